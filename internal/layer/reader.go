package layer

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/convhost/convhost/abi"
)

// Reader reads the members of one layer's tar in order. It is used from one goroutine, holds one buffer of 64 KiB, and
// neither closes its source nor reads further than it must before [Reader.Drain].
type Reader struct {
	src source
	lim Limits
	err error // sticky

	x        extended
	ext      []byte // bodies of the extended headers of this member
	extBytes int64
	xattrs   []abi.Xattr
	foreign  []abi.Xattr // from LIBARCHIVE records
	nameBuf  []byte
	name     string // of the current member, for errors
	raw      []byte // the same before it is clean
	hdrOff   int64
	headers  int64
	seq      uint64
	holes    int64

	phys   int64 // data bytes of the current member that are still in the source
	pad    int64
	size   int64 // of the body, expanded
	pos    int64 // in the body, expanded
	sparse bool
	segs   []segment
	seg    int

	marker bool
}

// End is what [Reader.Drain] found at the end of the stream.
type End struct {
	Marker   bool  // the archive ended with two zero blocks
	Trailing int64 // bytes after them
	NonZero  bool  // some of these bytes are not zero: not part of the content, though part of the diff ID
}

// NewReader returns a Reader of the tar in src.
func NewReader(src io.Reader, lim Limits) *Reader {
	return &Reader{src: source{r: src, buf: make([]byte, bufferSize)}, lim: lim.withDefaults()}
}

// Offset returns how many bytes of the tar have been consumed.
func (r *Reader) Offset() int64 { return r.src.off }

// Next skips what is left of the current body and reads the next member into e; io.EOF at the end of the archive. It
// overwrites e and reuses the array of e.Xattrs: keep a copy of that slice if e is used again. Strings and
// values stay valid. After an error e is zero and every later call returns the same error.
func (r *Reader) Next(e *abi.Entry) error {
	if r.err == nil {
		r.xattrs = e.Xattrs[:0]
		*e = abi.Entry{}
		r.err = r.next(e)
	}
	if r.err != nil {
		*e = abi.Entry{}
	}
	return r.err
}

func (r *Reader) next(e *abi.Entry) error {
	for {
		if err := r.finish(); err != nil {
			return err
		}
		r.hdrOff, r.extBytes, r.ext, r.xattrs = r.src.off, 0, r.ext[:0], r.xattrs[:0]
		r.x.reset()
		b, err := r.member()
		if err != nil {
			return err
		}
		skip, err := r.entry(e, b)
		if err != nil {
			return err
		}
		if !skip {
			return nil
		}
	}
}

// finish moves to the end of the current member. The padding of a last body may be missing, as in containerd.
func (r *Reader) finish() error {
	if missing, err := r.src.skip(r.phys); err != nil {
		r.phys = missing
		return r.sourceError(err, "body", fmt.Sprintf("%d more bytes", missing))
	}
	r.phys, r.size, r.pos = 0, 0, 0
	_, err := r.src.skip(r.pad)
	r.pad, r.name, r.raw = 0, "", nil
	if err != nil && err != io.EOF {
		return r.sourceError(err, "padding", "the next header")
	}
	return nil
}

// member reads header blocks up to the next real member and returns its block.
func (r *Reader) member() (block, error) {
	for {
		b, err := r.headerBlock()
		if err != nil {
			return nil, err
		}
		size, ok := parseNumber(b[124:136])
		switch b[156] {
		case 'x', 'L', 'K':
			if !ok || size < 0 {
				return nil, r.fail(abi.ErrCorrupt, "size of an extended header", fmt.Sprintf("%q", b[124:136]), "a number")
			}
			kind, off := b[156], r.src.off
			body, err := r.extBody(size)
			if err != nil {
				return nil, err
			}
			r.x.seen = true
			switch kind {
			case 'L':
				r.x.longName = cstring(body)
			case 'K':
				r.x.longLink = cstring(body)
			default:
				if err := r.parsePax(body, off); err != nil {
					return nil, err
				}
			}
		case 'g':
			if !ok || size < 0 {
				return nil, r.fail(abi.ErrCorrupt, "size of a global header", fmt.Sprintf("%q", b[124:136]), "a number")
			}
			if r.x.seen {
				return nil, r.fail(abi.ErrCorrupt, "global header", "between an extended header and its member", "before both")
			}
			if size > r.lim.HeaderBytes {
				return nil, r.limitError(r.hdrOff, "bytes of a global header", r.lim.HeaderBytes)
			}
			if missing, err := r.src.skip(size + padding(size)); err != nil {
				return nil, r.sourceError(err, "global header", fmt.Sprintf("%d more bytes", missing))
			}
			r.hdrOff = r.src.off
		default:
			return b, nil
		}
	}
}

// headerBlock reads one block with a right checksum; io.EOF at the end of the archive.
func (r *Reader) headerBlock() (block, error) {
	at := r.src.off
	b, err := r.src.block()
	if err != nil {
		if err == io.EOF && len(b) == 0 && !r.x.seen {
			return nil, io.EOF
		}
		return nil, r.sourceError(err, "header", "a block of 512 bytes")
	}
	if block(b).isZero() {
		if r.x.seen {
			return nil, r.fail(abi.ErrCorrupt, "end of archive", "after an extended header", "the member it describes")
		}
		b, err = r.src.block()
		switch {
		case err == io.EOF && len(b) == 0:
			return nil, io.EOF
		case err != nil:
			return nil, r.sourceError(err, "end of archive", "two blocks of zeros")
		case !block(b).isZero():
			return nil, &abi.FormatError{Class: abi.ErrCorrupt, Format: "tar", Off: at, Field: "end of archive", Got: "a single zero block", Want: "two"}
		}
		r.marker = true
		return nil, io.EOF
	}
	if r.headers++; r.headers/4 > r.lim.Entries {
		return nil, r.limitError(at, "headers per entry", 4)
	}
	if !block(b).checksumOK() {
		return nil, &abi.FormatError{Class: abi.ErrCorrupt, Format: "tar", Off: at, Field: "header checksum", Got: fmt.Sprintf("%q", cstring(b[148:156])),
			Want: fmt.Sprintf("%06o", block(b).sum())}
	}
	return b, nil
}

// extBody reads the body of an extended header and its padding. It grows with what really comes.
func (r *Reader) extBody(size int64) ([]byte, error) {
	if size > r.lim.HeaderBytes-r.extBytes {
		return nil, r.limitError(r.hdrOff, "bytes of extended headers", r.lim.HeaderBytes)
	}
	r.extBytes += size
	start := len(r.ext)
	for left := size; left > 0; {
		b, err := r.src.block()
		n := min(left, blockSize)
		if err != nil && (err != io.EOF || int64(len(b)) < n) {
			return nil, r.sourceError(err, "extended header", fmt.Sprintf("%d more bytes", left))
		}
		r.ext = append(r.ext, b[:n]...)
		left -= n
	}
	return r.ext[start:len(r.ext):len(r.ext)], nil
}

func padding(n int64) int64 { return -n & (blockSize - 1) }

func (r *Reader) fail(c abi.Class, field, got, want string) error {
	return &abi.FormatError{Class: c, Format: "tar", Entry: r.entryName(), Off: r.hdrOff, Field: field, Got: got, Want: want}
}

// entryName is the current member's name for an error message.
func (r *Reader) entryName() string {
	if r.name == "" {
		return clip(r.raw)
	}
	return r.name
}

// Read reads the body of the current regular file; io.EOF at its end, at once for other members. A body that ends
// early is abi.ErrTruncated.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if !r.sparse {
		if r.phys == 0 {
			return 0, io.EOF
		}
		return r.readData(p, r.phys)
	}
	if r.pos == r.size {
		return 0, io.EOF
	}
	for r.seg < len(r.segs) && r.pos >= r.segs[r.seg].off+r.segs[r.seg].n {
		r.seg++
	}
	hole := r.size - r.pos
	if r.seg < len(r.segs) {
		s := r.segs[r.seg]
		if r.pos >= s.off {
			return r.readData(p, s.off+s.n-r.pos)
		}
		hole = s.off - r.pos
	}
	p = p[:min(int64(len(p)), hole)]
	clear(p)
	r.pos += int64(len(p))
	return len(p), nil
}

func (r *Reader) readData(p []byte, most int64) (int, error) {
	n, err := r.src.read(p[:min(int64(len(p)), most)])
	r.phys -= int64(n)
	r.pos += int64(n)
	if err != nil {
		r.err = r.sourceError(err, "body", fmt.Sprintf("%d more bytes", r.phys))
	}
	return n, r.err
}

// Drain reads the source to its end, so that digests over it are complete, and tells what stood behind the archive. Call
// it after Next returned io.EOF; earlier it also passes over the members that were not read.
func (r *Reader) Drain() (End, error) {
	end := End{Marker: r.marker}
	for {
		if err := r.src.fill(); err == io.EOF {
			return end, nil
		} else if err != nil {
			return end, r.sourceError(err, "bytes after the archive", "its end")
		}
		b := r.src.buf[r.src.lo:r.src.hi]
		end.Trailing += int64(len(b))
		end.NonZero = end.NonZero || !allZero(b)
		r.src.off += int64(len(b))
		r.src.lo = r.src.hi
	}
}

func allZero(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
