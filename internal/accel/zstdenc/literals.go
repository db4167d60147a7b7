package zstdenc

import (
	"encoding/binary"

	"github.com/klauspost/compress/huff0"
)

// Types of literals (RFC 8878, 3.1.1.3.1.1).
const (
	litRaw = iota
	litSame
	litCompressed
	litTreeless // with the Huffman table of an earlier block
)

const (
	minHuffman = 32   // fewer literals are not compressed
	minStreams = 1024 // fewer literals make one stream, others four
)

// appendLiterals appends the literals section of a block (RFC 8878, 3.1.1.3.1).
func (e *Encoder) appendLiterals(dst []byte) []byte {
	n := len(e.lits)
	if n < minHuffman {
		return append(appendLiteralsHeader(dst, litRaw, n), e.lits...)
	}
	e.huff.WantLogLess = 6 // else a decoder is faster without
	compress := huff0.Compress4X
	if n < minStreams {
		compress = huff0.Compress1X
	}
	out, reused, err := compress(e.lits, &e.huff)
	switch {
	case err == huff0.ErrUseRLE:
		return append(appendLiteralsHeader(dst, litSame, n), e.lits[0])
	case err != nil: // it does not shrink
		return append(appendLiteralsHeader(dst, litRaw, n), e.lits...)
	}
	kind := litCompressed
	if reused {
		kind = litTreeless
	}
	e.huff.Reuse = huff0.ReusePolicyAllow
	return append(appendCompressedHeader(dst, kind, n, len(out)), out...)
}

// appendLiteralsHeader appends the header of n literals that are stored as they are, or of which one is.
func appendLiteralsHeader(dst []byte, kind, n int) []byte {
	switch {
	case n < 32:
		return append(dst, byte(kind|n<<3))
	case n < 4096:
		return append(dst, byte(kind|1<<2|n<<4), byte(n>>4))
	}
	return append(dst, byte(kind|3<<2|n<<4), byte(n>>4), byte(n>>12))
}

// appendCompressedHeader appends the header of n literals in size bytes, which are fewer.
func appendCompressedHeader(dst []byte, kind, n, size int) []byte {
	switch {
	case n < minStreams:
		h := kind | n<<4 | size<<14
		return append(dst, byte(h), byte(h>>8), byte(h>>16))
	case n < 16384:
		return binary.LittleEndian.AppendUint32(dst, uint32(kind|2<<2|n<<4|size<<18))
	}
	return append(binary.LittleEndian.AppendUint32(dst, uint32(kind|3<<2|n<<4|size<<22)), byte(size>>10))
}
