package zstdenc

import "math/bits"

// Numbers of extra bits, by code, of literal lengths and of match lengths (RFC 8878, 3.1.1.3.2.1.1).
var (
	litBits = [256]uint8{16: 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	lenBits = [256]uint8{32: 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
)

// Codes of small values; above, each power of two has one.
var (
	litCodes = smallCodes(64, &litBits)
	lenCodes = smallCodes(128, &lenBits)
)

func smallCodes(n int, bits *[256]uint8) (codes [128]uint8) {
	for code, at := uint8(0), 0; at < n; code++ {
		for range 1 << bits[code] {
			codes[at] = code
			at++
		}
	}
	return codes
}

// litCode returns the code of n literals.
func litCode(n uint32) uint8 {
	if n < 64 {
		return litCodes[n]
	}
	return uint8(bits.Len32(n)) + 18
}

// lenCode returns the code of a match of n+3 bytes.
func lenCode(n uint32) uint8 {
	if n < 128 {
		return lenCodes[n]
	}
	return uint8(bits.Len32(n)) + 35
}

// predefined are the tables that need no description (RFC 8878, 3.1.1.3.2.2).
var predefined = [3]*table{
	fixed(6, 4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1),
	fixed(5, 1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1),
	fixed(6, 1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
		1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1),
}

func fixed(log uint, norm ...int16) *table {
	t := &table{log: log, symbols: len(norm)}
	copy(t.norm[:], norm)
	t.build()
	return t
}
