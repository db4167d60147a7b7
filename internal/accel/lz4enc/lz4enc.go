package lz4enc

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/convhost/convhost/internal/accel/look"
)

// Version is another one when the output for some buffer is.
const Version = 1

const (
	hashBits    = 13
	minMatch    = 4
	maxDistance = 1<<16 - 1
	lastBytes   = 5   // are literals
	lastMatch   = 28  // none starts closer to the end: 12 bytes by the format, 16 more so that all may read a little ahead
	patience    = 128 // bytes without a match before the search takes longer steps
	few         = 16  // literals that are copied at once
)

// Encoder compresses buffers, one after the other. The zero value is ready. It takes 32 KiB, and is not safe for
// concurrent use.
type Encoder struct {
	table [1 << hashBits]uint32 // position by hash; 0 if there was none, which is as good a position as others
}

// Bound returns the length of the longest block of n bytes.
func Bound(n int) int { return n + n/255 + 16 }

// Append appends a block of src to dst, at most Bound(len(src)) bytes. src must be shorter than 4 GiB.
func (e *Encoder) Append(dst, src []byte) []byte {
	clear(e.table[:])
	dst = slices.Grow(dst, Bound(len(src))+few)
	w := writer{dst[:cap(dst)], len(dst)}
	done := 0 // what is before is in sequences
	end := len(src) - lastMatch
	for at := 1; at < end; {
		ref := 0
		if at, ref = e.search(src, at, end); at >= end {
			break
		}
		for ref >= 0 {
			n, back := 0, 0
			if x := look.Diff(src, ref+minMatch, at+minMatch); x != 0 {
				n = bits.TrailingZeros64(x) / 8
			} else {
				n = 8 + look.Common(src, ref+minMatch+8, at+minMatch+8, len(src)-lastBytes)
			}
			if ref >= 8 { // then up to 8 bytes before may be equal as well
				back = min(bits.LeadingZeros64(look.Diff(src, ref-8, at-8))/8, at-done)
			}
			w.sequence(src, done, at-back-done, at-ref, n+back)
			at += minMatch + n
			if done = at; at >= end {
				break
			}
			e.table[hash(look.Load64(src, at-2))] = uint32(at - 2)
			ref = e.lookUp(src, at)
		}
		at++ // which was looked up
	}
	return w.finish(src[done:])
}

func hash(v uint64) uint64 {
	const prime = 0xcf1bbcdcbf9b // of six bytes
	return v * (prime << 16) >> (64 - hashBits)
}

// search returns the first match from position at on, and where the same bytes are. If there is none, the position is end or
// later.
func (e *Encoder) search(src []byte, at, end int) (pos, ref int) {
	t := &e.table
	for step := 2; ; step++ {
		for stop := min(end, at+patience); at < stop; at += step {
			v := look.Load64(src, at)
			h := hash(v)
			ref := int(t[h])
			t[h] = uint32(at)
			v1 := look.Load64(src, at+1)
			h = hash(v1)
			ref1 := int(t[h])
			t[h] = uint32(at + 1)
			if look.Load32(src, ref) == uint32(v) && at-ref <= maxDistance {
				return at, ref
			}
			if look.Load32(src, ref1) == uint32(v1) && at+1-ref1 <= maxDistance {
				return at + 1, ref1
			}
		}
		if at >= end {
			return at, 0
		}
	}
}

// lookUp returns where the bytes at at were before, or -1.
func (e *Encoder) lookUp(src []byte, at int) int {
	v := look.Load64(src, at)
	h := hash(v)
	ref := int(e.table[h])
	e.table[h] = uint32(at)
	if look.Load32(src, ref) != uint32(v) || at-ref > maxDistance {
		return -1
	}
	return ref
}

// writer writes to out, which is long enough, from at on.
type writer struct {
	out []byte
	at  int
}

// sequence writes lit literals from src[from:], behind which there are lastMatch bytes, and a match of n+4 bytes.
func (w *writer) sequence(src []byte, from, lit, distance, n int) {
	token := byte(min(n, 15))
	if lit < 15 {
		w.out[w.at] = byte(lit<<4) | token
		to := w.out[w.at+1 : w.at+1+few : len(w.out)]
		*(*[few]byte)(to) = [few]byte(src[from : from+few : len(src)])
		w.at += 1 + lit
	} else {
		w.out[w.at] = 15<<4 | token
		w.at++
		w.more(lit)
		w.at += copy(w.out[w.at:], src[from:from+lit])
	}
	binary.LittleEndian.PutUint16(w.out[w.at:w.at+2:len(w.out)], uint16(distance))
	w.at += 2
	if n >= 15 {
		w.more(n)
	}
}

// more writes what of n, at least 15, is not in the token.
func (w *writer) more(n int) {
	for n -= 15; n >= 255; n -= 255 {
		w.out[w.at] = 255
		w.at++
	}
	w.out[w.at] = byte(n)
	w.at++
}

// finish writes the last literals and returns all.
func (w *writer) finish(lits []byte) []byte {
	w.out[w.at] = byte(min(len(lits), 15) << 4)
	w.at++
	if len(lits) >= 15 {
		w.more(len(lits))
	}
	w.at += copy(w.out[w.at:], lits)
	return w.out[:w.at]
}
