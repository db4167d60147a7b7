package zran

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/convhost/convhost/abi"
)

const (
	inBytes  = 64 << 10 // what is asked of the source at once
	headroom = 8        // bytes before pos that stay in buf, for those in the bit buffer and the one before them
	maxEmpty = 100      // reads in a row that return nothing
)

// input is the source as bits and bytes. The bit buffer holds n bits, the next one lowest; those above are zero between
// calls. Whole bytes of it are input that was not needed yet.
type input struct {
	src    io.Reader
	buf    []byte
	pos    int // next byte of buf that is not in the bit buffer
	end    int
	base   int64 // input offset of buf[0]
	srcErr error // what the source ended with
	b      uint64
	n      uint
}

func (in *input) reset(src io.Reader, off int64) {
	*in = input{src: src, buf: in.buf, pos: headroom, end: headroom, base: off - headroom}
}

// offset is that of the next whole byte: if bits are pending in the byte before, they come first.
func (in *input) offset() int64 { return in.base + int64(in.pos) - int64(in.n/8) }

// pending returns the whole bytes of the bit buffer.
func (in *input) pending() []byte {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], in.b>>(in.n%8))
	return b[:in.n/8]
}

// fill reads more from the source after all of buf went into the bit buffer. It returns false with srcErr set if there
// is no more.
func (in *input) fill() bool {
	copy(in.buf, in.buf[in.pos-headroom:in.pos])
	in.base += int64(in.pos - headroom)
	in.pos, in.end = headroom, headroom
	for i := 0; in.srcErr == nil; i++ {
		var n int
		n, in.srcErr = in.src.Read(in.buf[headroom:])
		if n < 0 || n > inBytes {
			in.srcErr = abi.Errorf(abi.ErrInternal, "source claims to have read %d bytes into %d", n, inBytes)
			return false
		}
		in.end += n
		if n > 0 {
			return true
		}
		if i == maxEmpty && in.srcErr == nil {
			in.srcErr = io.ErrNoProgress
		}
	}
	return false
}

// top moves bytes into the bit buffer while they fit.
func (in *input) top() {
	if in.end-in.pos >= 8 {
		in.b |= binary.LittleEndian.Uint64(in.buf[in.pos:]) << (in.n & 63)
		k := (63 - in.n) >> 3
		in.pos += int(k)
		in.n += k * 8
		in.b &= 1<<(in.n&63) - 1
		return
	}
	for in.n <= 55 && in.pos < in.end {
		in.b |= uint64(in.buf[in.pos]) << in.n
		in.pos++
		in.n += 8
	}
}

// drop takes k bits that are there.
func (in *input) drop(k uint) {
	in.b >>= k
	in.n -= k
}

// need gets at least k bits, up to 48, reading the source if it must.
func (r *Reader) need(k uint) bool {
	for r.n < k {
		r.top()
		if r.n >= k {
			break
		}
		if !r.fill() {
			if r.srcErr == io.EOF {
				r.truncated()
			} else {
				r.err = r.sourceError(r.srcErr)
			}
			return false
		}
	}
	return true
}

// bits takes k bits. At the end of the input it returns false with err set.
func (r *Reader) bits(k uint) (uint, bool) {
	if !r.need(k) {
		return 0, false
	}
	v := uint(r.b & (1<<k - 1))
	r.drop(k)
	return v, true
}

func (r *Reader) truncated() {
	field := "member"
	switch {
	case r.opt.Format == Deflate:
		field = "stream"
	case r.state == atMember:
		field = "member header"
	}
	r.err = &abi.FormatError{Class: abi.ErrTruncated, Format: r.opt.Format.String(), Off: r.base + int64(r.end), Field: field, Got: "cut",
		Want: "its end"}
}

func (r *Reader) corrupt(field, got, want string) {
	r.corruptAt(r.offset(), field, got, want)
}

func (r *Reader) corruptAt(off int64, field, got, want string) {
	r.err = &abi.FormatError{Class: abi.ErrCorrupt, Format: r.opt.Format.String(), Off: off, Field: field, Got: got, Want: want}
}

func (r *Reader) sourceError(err error) error {
	var c abi.Class
	if errors.As(err, &c) {
		return err
	}
	if c = abi.ClassOf(err); c == abi.ErrInternal {
		c = abi.ErrIO
	}
	if err == io.ErrUnexpectedEOF {
		c = abi.ErrTruncated
	}
	return abi.Errorf(c, "%s at 0x%x: read: %w", r.opt.Format, r.base+int64(r.end), err)
}
