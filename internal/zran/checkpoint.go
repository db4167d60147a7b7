package zran

import (
	"io"

	"github.com/convhost/convhost/abi"
)

// Block is the start of a deflate block: a place where decompression can begin, given the window.
type Block struct {
	In   int64 // input offset of the next byte that is wholly unread
	Out  int64 // output offset of the block's first byte
	Bits uint8 // how many bits of the byte at In-1 belong to the block: its highest, 0 to 7
	Byte uint8 // the byte at In-1 if Bits is not 0, else 0

	First   bool  // first block of a member
	Members int   // gzip headers before it
	Start   int64 // output offset of the member's first byte; of a member whose beginning was not seen, the checkpoint's

	window []byte
}

// Window returns the output before the block that its distances can reach: the last 32 KiB, or less if the member has no
// more. It is valid during the call of OnBlock.
func (b *Block) Window() []byte { return b.window }

// Checkpoint returns what is needed to go on from here later. It copies the window.
func (b *Block) Checkpoint() Checkpoint {
	return Checkpoint{In: b.In, Out: b.Out, Bits: b.Bits, Byte: b.Byte, Window: append([]byte(nil), b.window...)}
}

// Checkpoint is the start of a deflate block with all that is needed to decompress from there. Its fields are those of
// the indexes in use: overlaybd's gzip.meta (en_pos, de_pos, bits, and the window with zeros put before it up to 32 KiB)
// and nydus' ZRAN contexts (in_offset, out_offset, ctx_bits, ctx_byte, dictionary).
type Checkpoint struct {
	In     int64  // input offset of the next byte that is wholly unread
	Out    int64  // output offset of the first byte that comes out
	Bits   uint8  // how many of the highest bits of Byte come before In, 0 to 7
	Byte   uint8  // the byte at In-1
	Window []byte // output before Out, up to 32 KiB; zeros before the member's beginning do no harm
}

// NewReaderAt returns a Reader that goes on at c. src begins with the byte at input offset c.In. For Gzip, the checksum and
// length of the member that c lies in are read but cannot be checked; those of members that follow are. The window is
// copied.
func NewReaderAt(src io.Reader, c Checkpoint, opt Options) *Reader {
	r := NewReader(nil, opt)
	r.ResetAt(src, c)
	return r
}

// ResetAt makes r what NewReaderAt(src, c, its options) returns, in the same memory.
func (r *Reader) ResetAt(src io.Reader, c Checkpoint) {
	r.Reset(src)
	if c.Bits > 7 || len(c.Window) > maxDist || c.In < 0 || c.Out < 0 {
		r.err = abi.Errorf(abi.ErrInvalid, "%s checkpoint at 0x%x: %d bits, output offset %d, window of %d bytes; want at most 7 bits and %d bytes",
			r.opt.Format, c.In, c.Bits, c.Out, len(c.Window), maxDist)
		return
	}
	r.base += c.In
	r.buf[headroom-1] = c.Byte
	r.b, r.n = uint64(c.Byte>>(8-c.Bits)), uint(c.Bits)
	r.op = copy(r.win, c.Window)
	r.rp, r.sum = r.op, r.op
	r.outBase = c.Out - int64(r.op)
	r.memStart = c.Out
	r.members, r.partial = 1, true
	r.state = atBlock
}

// tell calls OnBlock.
func (r *Reader) tell() {
	if r.opt.OnBlock == nil {
		return
	}
	b := Block{In: r.offset(), Out: r.outBase + int64(r.op), Bits: uint8(r.n % 8), First: r.first, Members: r.members, Start: r.memStart}
	if b.Bits > 0 {
		b.Byte = r.buf[b.In-1-r.base]
	}
	b.window = r.win[max(r.hist, r.op-maxDist):r.op:r.op]
	r.err = r.opt.OnBlock(&b)
}
