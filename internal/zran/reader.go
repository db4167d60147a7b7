package zran

import (
	"bytes"
	"io"

	"github.com/convhost/convhost/abi"
)

// Format is what the input is.
type Format uint8

// Formats.
const (
	Gzip    Format = iota // members of RFC 1952
	Deflate               // one stream of RFC 1951; io.EOF comes behind its last block
)

// String returns the name that errors use.
func (f Format) String() string {
	if f == Deflate {
		return "deflate"
	}
	return "gzip"
}

// Trailing says what may follow a gzip member besides the end of the input.
type Trailing uint8

// What may follow.
const (
	Members Trailing = iota // more members only
	Zeros                   // more members, then zeros up to the end of the input
	Ignore                  // nothing is looked at: io.EOF comes behind the first member's trailer
)

// Options say what to read and what to tell.
type Options struct {
	Format   Format
	Trailing Trailing

	// OnMember is called behind each gzip header, before anything of the member is decoded. Its error ends reading.
	OnMember func(Member) error

	// OnBlock is called at the start of every deflate block, also the first of a member; that is ahead of Read by up to the
	// window. The Block is valid during the call. Its error ends reading.
	OnBlock func(*Block) error
}

const (
	maxDist   = 32 << 10      // how far a distance reaches
	winArray  = 256 << 10     // history and output
	winBytes  = winArray + 16 // so that pieces of 16 fit anywhere
	winSlack  = 512           // what one round of the fast loop may write beyond roomLimit, and more than a match
	roomLimit = winArray - winSlack
	lowInput  = 320 // a dynamic block's header fits
)

// Reader decompresses. It implements io.Reader and io.WriterTo.
type Reader struct {
	input
	opt   Options
	state state
	err   error // final; comes out when the output before it has been read

	win      []byte
	op       int   // end of the output in win
	rp       int   // what the caller has of it
	sum      int   // what crc covers of it
	hist     int   // where the member's output begins, or 0 when it began before win
	outBase  int64 // output offset of win[0]
	starved  bool  // decoding needs input
	final    bool  // the block is the last one of its stream
	left     int   // bytes of a stored block to come
	hl       *litTable
	hd       *distTable
	minLit   uint // fewer bits than this cannot be complete: there is an end of block to come
	members  int
	memStart int64 // output offset of the member's first byte
	first    bool  // no block of the member was begun
	partial  bool  // the member's beginning was not seen: its checksum cannot be checked
	crc      uint32

	lit  litTable
	dist distTable
	lens [maxLit + maxDistSyms]uint8
}

// state is what is expected next.
type state uint8

const (
	atMember state = iota
	atBlock
	inStored
	inHuffman
	atTrailer
	atZeros
)

// NewReader returns a Reader of what src holds from its present position, which is input offset 0.
func NewReader(src io.Reader, opt Options) *Reader {
	r := &Reader{opt: opt, win: make([]byte, winBytes), input: input{buf: make([]byte, headroom+inBytes)}}
	r.Reset(src)
	return r
}

// Reset makes r what NewReader(src, its options) returns, in the same memory.
func (r *Reader) Reset(src io.Reader) {
	r.input.reset(src, 0)
	r.state, r.first = atMember, true
	if r.opt.Format == Deflate {
		r.state = atBlock
	}
	r.op, r.rp, r.sum, r.hist, r.outBase = 0, 0, 0, 0, 0
	r.members, r.memStart, r.partial, r.crc = 0, 0, false, 0
	r.starved, r.err = false, nil
}

// Read decompresses into p. It returns io.EOF when everything was complete and right.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.rp == r.op {
		if r.err != nil {
			return 0, r.err
		}
		r.more()
	}
	n := copy(p, r.win[r.rp:r.op])
	r.rp += n
	return n, nil
}

// WriteTo decompresses all that is left into w, without a copy between. It returns nil where Read returns io.EOF.
func (r *Reader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		for r.rp == r.op {
			if r.err == io.EOF {
				return n, nil
			}
			if r.err != nil {
				return n, r.err
			}
			r.more()
		}
		k, err := w.Write(r.win[r.rp:r.op])
		if k < 0 || k > r.op-r.rp {
			return n, abi.Errorf(abi.ErrInternal, "%s: writer claims to have written %d of %d bytes", r.opt.Format, k, r.op-r.rp)
		}
		r.rp += k
		n += int64(k)
		if err == nil && r.rp < r.op {
			err = io.ErrShortWrite
		}
		if err != nil {
			return n, err
		}
	}
}

// InputOffset returns the offset of the first input byte that was not needed yet. It is exact after io.EOF: trailer and
// zeros belong to what was needed.
func (r *Reader) InputOffset() int64 { return r.offset() }

// OutputOffset returns the offset of the next byte that Read returns.
func (r *Reader) OutputOffset() int64 { return r.outBase + int64(r.rp) }

// Members returns how many gzip headers were read so far, ahead of Read by up to the window.
func (r *Reader) Members() int { return r.members }

// Rest returns the input from InputOffset on. It takes the source over: the Reader must not be used afterwards. It is
// meant for after io.EOF, when a stream is followed by something else.
func (r *Reader) Rest() io.Reader {
	head := append(r.pending(), r.buf[r.pos:r.end]...)
	if r.srcErr != nil {
		return io.MultiReader(bytes.NewReader(head), &failed{r.srcErr})
	}
	return io.MultiReader(bytes.NewReader(head), r.src)
}

type failed struct{ err error }

func (f *failed) Read([]byte) (int, error) { return 0, f.err }

// more decodes until there is output or an error. All output before was taken.
func (r *Reader) more() {
	if r.op > roomLimit {
		r.slide()
	}
	for r.err == nil && r.op <= roomLimit {
		if r.op > r.rp && r.state != inHuffman && r.end-r.pos < lowInput {
			return // headers and trailers wait for their bytes: not while there is output
		}
		switch r.state {
		case atMember:
			r.member()
		case atBlock:
			r.block()
		case inStored:
			r.stored()
		case inHuffman:
			r.huffman()
		case atTrailer:
			r.trailer()
		case atZeros:
			r.zeros()
		}
		if r.starved {
			if r.op > r.rp {
				r.starved = false
				return
			}
			r.feed()
		}
	}
}

// feed gets input for a starved decoder.
func (r *Reader) feed() {
	r.starved = false
	if r.fill() {
		return
	}
	switch {
	case r.srcErr != io.EOF:
		r.err = r.sourceError(r.srcErr)
	case r.state == atMember && r.members > 0, r.state == atZeros:
		r.err = io.EOF
	default:
		r.truncated()
	}
}

// slide moves the history to the window's front.
func (r *Reader) slide() {
	r.checksum()
	by := r.op - maxDist
	copy(r.win, r.win[by:r.op])
	r.op, r.rp, r.sum = maxDist, maxDist, maxDist
	r.hist = max(r.hist-by, 0)
	r.outBase += int64(by)
}
