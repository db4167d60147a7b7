package zran

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// Member is the header of a gzip member.
type Member struct {
	In      int64  // input offset of the header
	Data    int64  // input offset of the deflate stream
	Out     int64  // output offset of the member's first byte
	Flags   uint8  // FLG as it stands
	XFL     uint8  // compression level, by custom
	OS      uint8  // file system
	ModTime uint32 // seconds since 1970; 0 if unknown
	Extra   []byte // extra field, nil if none
	Name    string // bytes as they stand, by the RFC Latin-1
	Comment string // likewise
}

// Bits of a gzip header's FLG.
const (
	flagHdrCRC  = 1 << 1
	flagExtra   = 1 << 2
	flagName    = 1 << 3
	flagComment = 1 << 4

	maxString = 511 // bytes of name and comment, without the zero
)

// member reads a header, or finds out what follows the last member.
func (r *Reader) member() {
	if r.top(); r.n == 0 {
		r.starved = true
		return
	}
	start := r.offset()
	h := header{r: r}
	one := h.byte()
	if one == 0x1f {
		two := h.byte()
		if r.err != nil {
			return
		}
		if two == 0x8b {
			r.header(&h, start)
			return
		}
	}
	switch {
	case r.members == 0:
		r.corruptAt(start, "member header", "malformed", "RFC 1952")
	case r.opt.Trailing == Zeros && one == 0:
		r.state = atZeros
	default:
		r.garbage(start)
	}
}

func (r *Reader) garbage(off int64) {
	want := "another member or the end"
	if r.opt.Trailing == Zeros {
		want = "nothing but zeros"
	}
	r.corruptAt(off, "data after the last member", "not empty", want)
}

// zeros skips padding.
func (r *Reader) zeros() {
	for r.top(); r.n >= 8; r.top() {
		at := r.offset()
		if byte(r.b) != 0 {
			r.garbage(at)
			return
		}
		r.drop(8)
	}
	r.starved = true
}

// header reads bytes of a gzip header with their checksum; after an error they are zero.
type header struct {
	r   *Reader
	crc uint32
	buf [1]byte
}

func (h *header) byte() byte {
	v, _ := h.r.bits(8)
	h.buf[0] = byte(v)
	h.crc = crc32.Update(h.crc, crc32.IEEETable, h.buf[:])
	return h.buf[0]
}

func (h *header) uint16() uint16 {
	lo := h.byte()
	return uint16(lo) | uint16(h.byte())<<8
}

func (h *header) string() (s string, ok bool) {
	var b []byte
	for h.r.err == nil {
		c := h.byte()
		if c == 0 {
			return string(b), true
		}
		if len(b) == maxString {
			return "", false
		}
		b = append(b, c)
	}
	return "", true
}

func (r *Reader) header(h *header, start int64) {
	m := Member{In: start, Out: r.outBase + int64(r.op)}
	bad := func(got, want string) { r.corruptAt(start, "member header", got, want) }
	if method := h.byte(); r.err == nil && method != 8 {
		bad(fmt.Sprintf("of method %d", method), "8, deflate")
		return
	}
	m.Flags = h.byte()
	m.ModTime = uint32(h.uint16())
	m.ModTime |= uint32(h.uint16()) << 16
	m.XFL, m.OS = h.byte(), h.byte()
	if r.err == nil && m.Flags&flagExtra != 0 {
		m.Extra = []byte{}
		for n := h.uint16(); n > 0 && r.err == nil; n-- {
			m.Extra = append(m.Extra, h.byte())
		}
	}
	ok := true
	if r.err == nil && m.Flags&flagName != 0 {
		m.Name, ok = h.string()
	}
	if r.err == nil && ok && m.Flags&flagComment != 0 {
		m.Comment, ok = h.string()
	}
	if r.err == nil && !ok {
		bad("with a name or comment too long", fmt.Sprintf("%d bytes at most", maxString))
	}
	if r.err == nil && m.Flags&flagHdrCRC != 0 {
		want := uint16(h.crc)
		if got := h.uint16(); r.err == nil && got != want {
			bad(fmt.Sprintf("with CRC %#04x", got), fmt.Sprintf("%#04x, that of the header", want))
		}
	}
	if r.err != nil {
		return
	}
	m.Data = r.offset()
	r.members++
	r.crc, r.sum, r.hist, r.partial, r.memStart = 0, r.op, r.op, false, m.Out
	r.state, r.first = atBlock, true
	if r.opt.OnMember != nil {
		r.err = r.opt.OnMember(m)
	}
}

// checksum brings crc up to date.
func (r *Reader) checksum() {
	if r.opt.Format == Gzip && !r.partial {
		r.crc = crc32.Update(r.crc, crc32.IEEETable, r.win[r.sum:r.op])
	}
	r.sum = r.op
}

// trailer checks the end of a member; the bits of the last block's last byte are gone.
func (r *Reader) trailer() {
	r.checksum()
	var b [8]byte
	for i := range b {
		v, ok := r.bits(8)
		if !ok {
			return
		}
		b[i] = byte(v)
	}
	sum, size := binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint32(b[4:])
	if out := uint32(r.outBase + int64(r.op) - r.memStart); !r.partial && (sum != r.crc || size != out) {
		r.corrupt("trailer", fmt.Sprintf("CRC-32 %08x and length %d", sum, size),
			fmt.Sprintf("%08x and %d, those of what came out", r.crc, out))
		return
	}
	r.state = atMember
	if r.opt.Trailing == Ignore {
		r.err = io.EOF
	}
}
