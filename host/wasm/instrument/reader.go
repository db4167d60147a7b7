package instrument

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/convhost/convhost/abi"
)

// reader walks over bytes of a module. The first error sticks; after it every read gives zero.
type reader struct {
	b   []byte // the whole module, so that offsets in errors are those of the file
	pos int
	end int
	err error
}

func (r *reader) left() int { return r.end - r.pos }

func (r *reader) fail(class abi.Class, field, got, want string) {
	if r.err == nil {
		r.err = &abi.FormatError{Class: class, Format: "wasm module", Field: field, Off: int64(r.pos), Got: got, Want: want}
		r.pos = r.end
	}
}

func (r *reader) bad(field string, got any, want string) {
	r.fail(abi.ErrCorrupt, field, fmt.Sprint(got), want)
}

func (r *reader) byte(field string) byte {
	if r.pos >= r.end {
		r.fail(abi.ErrTruncated, field, "missing", "a byte")
		return 0
	}
	c := r.b[r.pos]
	r.pos++
	return c
}

func (r *reader) skip(n int, field string) {
	if n > r.left() {
		r.fail(abi.ErrTruncated, field, fmt.Sprintf("%d bytes", r.left()), fmt.Sprintf("%d bytes", n))
		return
	}
	r.pos += n
}

// u32 reads an unsigned LEB128 number of at most 32 bits.
func (r *reader) u32(field string) uint32 {
	if r.pos < r.end && r.b[r.pos] < 0x80 {
		r.pos++
		return uint32(r.b[r.pos-1])
	}
	v, n := binary.Uvarint(r.b[r.pos:min(r.end, r.pos+5)])
	if n <= 0 {
		r.fail(abi.ErrCorrupt, field, "an endless number", "a LEB128 number of at most 32 bits")
		return 0
	}
	if v > 1<<32-1 {
		r.bad(field, v, "at most 32 bits")
		return 0
	}
	r.pos += n
	return uint32(v)
}

// sleb skips a signed LEB128 number of at most maxBytes bytes.
func (r *reader) sleb(maxBytes int, field string) {
	for i := 0; i < maxBytes; i++ {
		if r.byte(field)&0x80 == 0 {
			return
		}
	}
	r.bad(field, "endless", fmt.Sprintf("at most %d bytes", maxBytes))
}

// count reads the number of elements of a vector, each of which takes at least min bytes of what is left.
func (r *reader) count(field string, limit, min int) int {
	n := r.u32(field)
	if uint64(n) > uint64(limit) {
		r.fail(abi.ErrLimit, field, fmt.Sprint(n), fmt.Sprintf("at most %d", limit))
		return 0
	}
	if int(n) > r.left()/min {
		r.bad(field, n, fmt.Sprintf("what fits in the %d bytes left", r.left()))
		return 0
	}
	return int(n)
}

func (r *reader) name(field string) string {
	n := r.count(field, maxName, 1)
	s := string(r.b[r.pos : r.pos+n])
	r.pos += n
	if !utf8.ValidString(s) {
		r.bad(field, fmt.Sprintf("%q", s), "UTF-8")
		return ""
	}
	return s
}
