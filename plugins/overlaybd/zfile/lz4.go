package zfile

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// LZ4 blocks as the reference encoder makes them at its default settings for inputs up to 64 KiB. The choices below (hash,
// table, search order, where matches may start and end) are not demanded by the block format, but they decide which of the
// many right encodings comes out, and layers are compared by digest.
//
//	sequence: token (4 bits literal count, 4 bits match length - 4), more length bytes, literals, u16 distance, more length bytes
//	last sequence: literals only
const (
	lzHashBits   = 13
	lzMinMatch   = 4
	lzLastBytes  = 5  // the last bytes are literals
	lzMatchLimit = 12 // no match starts closer to the end
	lzSkip       = 6  // after 1<<lzSkip misses the search steps wider
	lzMaxInput   = 64 << 10
	lzWild       = 16 // short literals are copied in pieces of so many bytes, also behind their end
)

// lzWindow is a block with whatever memory comes behind it: large enough that a load at a 16-bit position needs no check.
type lzWindow [lzMaxInput + lzWild]byte

func (w *lzWindow) load32(at uint) uint32 {
	i := int(uint16(at))
	return binary.LittleEndian.Uint32(w[i : i+4])
}

func (w *lzWindow) load64(at uint) uint64 {
	i := int(uint16(at))
	return binary.LittleEndian.Uint64(w[i : i+8])
}

// lzTable maps the hash of four bytes to where they were seen last; 0, the start, when never.
type lzTable [1 << lzHashBits]uint16

// swap notes that v stands at position at and returns where something of its hash stood before.
func (t *lzTable) swap(v uint32, at uint) uint {
	slot := &t[v*2654435761>>(32-lzHashBits)]
	before := *slot
	*slot = uint16(at)
	return uint(before)
}

// lzEncoder is working memory for one block at a time.
type lzEncoder struct {
	table lzTable
	spare lzWindow // holds blocks that end too close to the end of their memory
}

// window returns the block src as a window.
func (e *lzEncoder) window(src []byte) *lzWindow {
	if cap(src) >= len(e.spare) {
		return (*lzWindow)(src[:len(e.spare)])
	}
	copy(e.spare[:], src)
	return &e.spare
}

// matchLength counts equal bytes from the two positions on, at most to end.
func (w *lzWindow) matchLength(early, late, end uint) uint {
	start := late
	for late+8 <= end {
		if x := w.load64(early) ^ w.load64(late); x != 0 {
			return late - start + uint(bits.TrailingZeros64(x))/8
		}
		early, late = early+8, late+8
	}
	for late < end && w[uint16(early)] == w[uint16(late)] {
		early, late = early+1, late+1
	}
	return late - start
}

// lzBound is the most that a block of n bytes becomes, and what is written behind it.
func lzBound(n int) int { return n + n/255 + 16 + lzWild }

// append appends src, 1 to 65536 bytes, to dst as one block. It may load from the memory behind src, up to its capacity, but what
// stands there does not matter.
func (e *lzEncoder) append(dst, src []byte) []byte {
	dst = slices.Grow(dst, lzBound(len(src)))
	out := dst[len(dst):cap(dst)]
	n, anchor := 0, uint(0)
	if len(src) > lzMatchLimit {
		n, anchor = e.sequences(out, src)
	}
	n = putLiterals(out, n, src[anchor:], 0)
	return dst[:len(dst)+n]
}

// sequences writes all sequences of src but the last to out, which has room for lzBound. It returns how many bytes it wrote, and where
// the literals of the last sequence start.
func (e *lzEncoder) sequences(out, src []byte) (d int, anchor uint) {
	w, t := e.window(src), &e.table
	clear(t[:])
	last, end := uint(len(src)-lzMatchLimit), uint(len(src)-lzLastBytes)
	for at := uint(1); ; at = anchor + 1 {
		var from, match uint // start of the next match, and where the same bytes were before
		next, step, v := at, uint(1), w.load32(at)
		for misses := uint(1 << lzSkip); ; misses++ {
			from = next
			next += step
			step = misses >> lzSkip
			if next > last+1 {
				return d, anchor
			}
			if match = t.swap(v, from); w.load32(match) == v {
				break
			}
			v = w.load32(next)
		}
		for from > anchor && match > 0 && w[uint16(from-1)] == w[uint16(match-1)] {
			from, match = from-1, match-1
		}
		for {
			var n uint // length of the match beyond the least
			if x := w.load64(match+lzMinMatch) ^ w.load64(from+lzMinMatch); x != 0 && from+lzMinMatch+8 <= end {
				n = uint(bits.TrailingZeros64(x)) / 8
			} else {
				n = w.matchLength(match+lzMinMatch, from+lzMinMatch, end)
			}
			if l := from - anchor; l < 15 {
				o := out[d : d+1+lzWild]
				o[0] = byte(l<<4) | byte(min(n, 15))
				*(*[lzWild]byte)(o[1:]) = *(*[lzWild]byte)(w[uint16(anchor):])
				d += 1 + int(l)
			} else {
				d = putLiterals(out, d, src[anchor:from], n)
			}
			binary.LittleEndian.PutUint16(out[d:], uint16(from-match))
			if d += 2; n >= 15 {
				d = putLength(out, d, n)
			}
			if anchor = from + lzMinMatch + n; anchor > last {
				return d, anchor
			}
			// Does another match follow at once?
			t.swap(w.load32(anchor-2), anchor-2)
			from, v = anchor, w.load32(anchor)
			if match = t.swap(v, from); w.load32(match) != v {
				break
			}
		}
	}
}

// putLiterals writes a token with the length of a match, n beyond the least, and literals.
func putLiterals(out []byte, d int, literals []byte, n uint) int {
	out[d] = byte(min(len(literals), 15))<<4 | byte(min(n, 15))
	if d++; len(literals) >= 15 {
		d = putLength(out, d, uint(len(literals)))
	}
	return d + copy(out[d:], literals)
}

// putLength writes the part of n, at least 15, that did not fit into four bits of the token.
func putLength(out []byte, d int, n uint) int {
	for n -= 15; n >= 255; n -= 255 {
		out[d] = 255
		d++
	}
	out[d] = byte(n)
	return d + 1
}
