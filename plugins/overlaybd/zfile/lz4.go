package zfile

import (
	"encoding/binary"
	"math/bits"
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
)

// lzTable maps the hash of four bytes to where they were seen last; 0, the start, when never.
type lzTable [1 << lzHashBits]uint16

func lzHash(v uint32) uint32 { return v * 2654435761 >> (32 - lzHashBits) }

func load32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }

// swap notes that position at has hash h and returns the position that had it before.
func (t *lzTable) swap(h uint32, at int) int {
	before := int(t[h])
	t[h] = uint16(at)
	return before
}

// find searches a match from position at on, and returns its start and the earlier position; ok is false when there is none.
func (t *lzTable) find(src []byte, at int) (from, match int, ok bool) {
	last := len(src) - lzMatchLimit // the last position where a match may start
	next, step := at, 1
	h := lzHash(load32(src, next))
	for misses := 1 << lzSkip; ; misses++ {
		at = next
		next += step
		step = misses >> lzSkip
		if next > last+1 {
			return 0, 0, false
		}
		match = int(t[h])
		ahead := lzHash(load32(src, next))
		t[h] = uint16(at)
		h = ahead
		if load32(src, match) == load32(src, at) {
			return at, match, true
		}
	}
}

// matchLength counts equal bytes from the two positions on, at most to end.
func matchLength(src []byte, early, late, end int) int {
	start := late
	for late+8 <= end {
		if x := binary.LittleEndian.Uint64(src[early:]) ^ binary.LittleEndian.Uint64(src[late:]); x != 0 {
			return late - start + bits.TrailingZeros64(x)/8
		}
		early, late = early+8, late+8
	}
	for late < end && src[early] == src[late] {
		early, late = early+1, late+1
	}
	return late - start
}

// appendLZ4 appends src, 1 to 65536 bytes, as one block. t is working memory.
func appendLZ4(dst, src []byte, t *lzTable) []byte {
	anchor := 0 // literals from here on are not written yet
	if len(src) > lzMatchLimit {
		clear(t[:])
		last, end := len(src)-lzMatchLimit, len(src)-lzLastBytes
		t[lzHash(load32(src, 0))] = 0
		for at := 1; ; {
			from, match, ok := t.find(src, at)
			if !ok {
				break
			}
			for from > anchor && match > 0 && src[from-1] == src[match-1] {
				from, match = from-1, match-1
			}
			for ok {
				n := matchLength(src, match+lzMinMatch, from+lzMinMatch, end)
				dst = appendSequence(dst, src[anchor:from], from-match, n)
				anchor = from + lzMinMatch + n
				if anchor > last {
					break
				}
				// Does another match follow at once?
				t[lzHash(load32(src, anchor-2))] = uint16(anchor - 2)
				from = anchor
				match = t.swap(lzHash(load32(src, from)), from)
				ok = load32(src, match) == load32(src, from)
			}
			if anchor > last {
				break
			}
			at = anchor + 1
		}
	}
	dst = append(dst, byte(min(len(src)-anchor, 15))<<4)
	return append(appendLength(dst, len(src)-anchor), src[anchor:]...)
}

// appendSequence appends literals and a match of n+4 bytes.
func appendSequence(dst, literals []byte, distance, n int) []byte {
	dst = append(dst, byte(min(len(literals), 15))<<4|byte(min(n, 15)))
	dst = append(appendLength(dst, len(literals)), literals...)
	dst = append(dst, byte(distance), byte(distance>>8))
	return appendLength(dst, n)
}

// appendLength appends the part of n that did not fit into four bits of the token.
func appendLength(dst []byte, n int) []byte {
	if n < 15 {
		return dst
	}
	for n -= 15; n >= 255; n -= 255 {
		dst = append(dst, 255)
	}
	return append(dst, byte(n))
}
