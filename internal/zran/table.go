package zran

import (
	"math/bits"
	"sync"
)

// Symbols and sizes of RFC 1951. Fixed blocks have codes for two more length and distance symbols that mean nothing.
const (
	maxCode      = 15 // bits of a Huffman code
	maxLit       = 288
	maxDistSyms  = 32
	maxDynLit    = 286
	maxDynDist   = 30
	endOfBlock   = 256
	preSyms      = 19
	litBits      = 11 // index bits of the first level of the tables
	distBits     = 8
	preBits      = 7
	litEntries   = 1 << 12 // 2342 suffice for 288 symbols, 15 and 11 bits; powers of two save bounds checks
	distEntries  = 1 << 9  // 402 suffice for 32 symbols, 15 and 8 bits
	litTableMask = litEntries - 1
	distMask     = distEntries - 1
)

// An entry of a decoding table says all about the symbol whose code the index begins with.
//
//	bits 0-5    how many bits the symbol takes: code and extra bits; in a link, those of the first level
//	     8-11   how many of them are the code; in a link, index bits of the second level
//	     13     no code begins so, or the symbol means nothing
//	     14     end of block
//	     15     something special: bit 13, bit 14, or, with neither, a link to a second level
//	     16-30  literal byte, base of the length, base of the distance; in a link, first index of the second level
//	     31     literal
type entry = uint32

const (
	isInvalid = 1 << 13
	isEnd     = 1 << 14
	isSpecial = 1 << 15
	isLiteral = 1 << 31
)

type (
	litTable  [litEntries]entry
	distTable [distEntries]entry
)

// What an entry says besides its code length, by symbol.
var (
	litSymbols  = makeLitSymbols()
	distSymbols = makeDistSymbols()
	preSymbols  = makePreSymbols()
)

func makeLitSymbols() (t [maxLit]entry) {
	for i := range endOfBlock {
		t[i] = isLiteral | entry(i)<<16
	}
	t[endOfBlock] = isSpecial | isEnd
	base := 3
	for i := 257; i < 285; i++ {
		extra := max(0, (i-261)/4)
		t[i] = entry(base)<<16 | entry(extra)
		base += 1 << extra
	}
	t[285] = 258 << 16
	t[286], t[287] = isSpecial|isInvalid, isSpecial|isInvalid
	return t
}

func makeDistSymbols() (t [maxDistSyms]entry) {
	base := 1
	for i := range maxDynDist {
		extra := max(0, (i-2)/2)
		t[i] = entry(base)<<16 | entry(extra)
		base += 1 << extra
	}
	t[30], t[31] = isSpecial|isInvalid, isSpecial|isInvalid
	return t
}

func makePreSymbols() (t [preSyms]entry) {
	for i := range t {
		t[i] = entry(i) << 16
	}
	return t
}

var fixed = sync.OnceValue(func() *fixedTables {
	var f fixedTables
	var lens [maxLit]uint8
	for i := range lens {
		switch {
		case i < 144, i >= 280:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		default:
			lens[i] = 7
		}
	}
	build(f.lit[:], litBits, lens[:], litSymbols[:])
	for i := range maxDistSyms {
		lens[i] = 5
	}
	build(f.dist[:], distBits, lens[:maxDistSyms], distSymbols[:])
	return &f
})

type fixedTables struct {
	lit  litTable
	dist distTable
}

// build makes the decoding table of the canonical Huffman code with these code lengths. The first level has 1<<first entries.
// It returns the shortest length, 0 for an empty code, and whether the code is complete, or empty, or one symbol of one bit:
// no others are allowed.
func build(tab []entry, first int, lens []uint8, symbols []entry) (shortest uint, ok bool) {
	var count [maxCode + 1]int
	for _, n := range lens {
		count[n&maxCode]++
	}
	total, lo, hi := len(lens)-count[0], 0, 0
	count[0] = 0
	space := 1 << maxCode
	var at [maxCode + 2]int
	for n := 1; n <= maxCode; n++ {
		at[n+1] = at[n] + count[n]
		space -= count[n] << (maxCode - n)
		if count[n] > 0 {
			hi = n
			if lo == 0 {
				lo = n
			}
		}
	}
	switch {
	case total == 0:
		fillAll(tab[:1<<first], isSpecial|isInvalid)
		return 0, true
	case space < 0 || space > 0 && (total != 1 || hi != 1):
		return 0, false
	}
	var sorted [maxLit]uint16 // symbols by length
	for sym, n := range lens {
		if n != 0 {
			sorted[at[n]] = uint16(sym)
			at[n]++
		}
	}
	if space > 0 {
		fillAll(tab[:2], 1<<8|1|isSpecial|isInvalid)
	}
	code, i := uint16(0), 0 // next code, the first bit highest of n; next in sorted
	for n := lo; n <= min(hi, first); n++ {
		for range count[n] {
			tab[bits.Reverse16(code)>>(16-n)] = symbols[sorted[i]] + entry(n<<8|n)
			code++
			i++
		}
		code <<= 1
		if n < first {
			copy(tab[1<<n:2<<n], tab[:1<<n]) // what is not filled yet will be
		}
	}
	for n := min(hi, first) + 1; n < first; n++ {
		copy(tab[1<<n:2<<n], tab[:1<<n])
	}
	if hi > first {
		buildSecond(tab, first, code, sorted[i:total], &count, symbols) // lo <= first: else there would be more symbols
	}
	return uint(lo), true
}

// buildSecond makes the second levels: sorted are the symbols with more than first bits, code is the next of first+1 bits.
func buildSecond(tab []entry, first int, code uint16, sorted []uint16, count *[maxCode + 1]int, symbols []entry) {
	n, next, start, size, prefix := first+1, 1<<first, 0, 0, -1
	left := count[n]
	for _, sym := range sorted {
		for left == 0 {
			n++
			code <<= 1
			left = count[n]
		}
		rev := int(bits.Reverse16(code) >> (16 - n))
		if p := rev & (1<<first - 1); p != prefix {
			prefix, start = p, next
			sub := n - first // index bits: until the codes with this prefix fill them
			for used := left; used < 1<<sub; used = used<<1 + count[first+sub] {
				sub++
			}
			size = 1 << sub
			next += size
			tab[p] = isSpecial | entry(start)<<16 | entry(sub)<<8 | entry(first)
		}
		e := symbols[sym] + entry(n<<8|n)
		for j := rev >> first; j < size; j += 1 << (n - first) {
			tab[start+j] = e
		}
		code++
		left--
	}
}

func fillAll(tab []entry, e entry) {
	for i := range tab {
		tab[i] = e
	}
}
