// Package look reads and compares the bytes of a buffer at given positions, eight at a time: what match finders do all the
// time. lz4enc and zstdenc share it.
package look

import (
	"encoding/binary"
	"math/bits"
)

// With the third number in a slice expression the compiler needs no care for an empty result at the end of b, which makes a
// matcher a fifth faster.

// Load32 returns the four bytes at at, the first one lowest.
func Load32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at : at+4 : len(b)]) }

// Load64 returns the eight bytes at at, the first one lowest.
func Load64(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at : at+8 : len(b)]) }

// Diff has the bits set in which the eight bytes at i and at j differ.
func Diff(b []byte, i, j int) uint64 { return Load64(b, i) ^ Load64(b, j) }

// Common counts equal bytes from i and from j on, j up to end; i < j.
func Common(b []byte, i, j, end int) int {
	start := j
	for ; j+8 <= end; i, j = i+8, j+8 {
		if x := Diff(b, i, j); x != 0 {
			return j - start + bits.TrailingZeros64(x)/8
		}
	}
	for j < end && b[i] == b[j] {
		i, j = i+1, j+1
	}
	return j - start
}
