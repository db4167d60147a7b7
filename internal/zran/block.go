package zran

import (
	"fmt"
	"io"
)

// Types of deflate blocks.
const (
	typeStored  = 0
	typeFixed   = 1
	typeDynamic = 2
)

// block begins the next block.
func (r *Reader) block() {
	if r.top(); r.n < 3 {
		r.starved = true
		return
	}
	if r.tell(); r.err != nil {
		return
	}
	r.first = false
	r.final = r.b&1 != 0
	typ := r.b >> 1 & 3
	r.drop(3)
	switch typ {
	case typeStored:
		r.storedHeader()
	case typeFixed:
		f := fixed()
		r.hl, r.hd, r.minLit, r.state = &f.lit, &f.dist, 7, inHuffman
	case typeDynamic:
		r.dynamic()
	default:
		r.corrupt("block type", "3", "0, 1 or 2")
	}
}

// endBlock goes on behind a block.
func (r *Reader) endBlock() {
	r.state = atBlock
	if !r.final {
		return
	}
	r.drop(r.n % 8)
	r.state = atTrailer
	if r.opt.Format == Deflate {
		r.checksum()
		r.err = io.EOF
	}
}

func (r *Reader) storedHeader() {
	r.drop(r.n % 8)
	v, ok := r.bits(32)
	if !ok {
		return
	}
	if n, not := uint16(v), uint16(v>>16); n != ^not {
		r.corrupt("stored block's length", fmt.Sprintf("%#04x with complement %#04x", n, not), "a complement")
		return
	}
	r.left, r.state = int(v&0xffff), inStored
}

// stored copies what the block holds.
func (r *Reader) stored() {
	for r.left > 0 && r.n >= 8 && r.op < winArray {
		r.win[r.op] = byte(r.b)
		r.drop(8)
		r.op++
		r.left--
	}
	if r.n == 0 {
		n := copy(r.win[r.op:winArray], r.buf[r.pos:min(r.end, r.pos+r.left)])
		r.op += n
		r.pos += n
		r.left -= n
	}
	switch {
	case r.left == 0:
		r.endBlock()
	case r.op < winArray:
		r.starved = true
	}
}

// preOrder is the order in which the lengths of the code length code come.
var preOrder = [preSyms]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the codes of a block with its own.
func (r *Reader) dynamic() {
	v, ok := r.bits(14)
	if !ok {
		return
	}
	lits, dists, pres := int(v&31)+257, int(v>>5&31)+1, int(v>>10)+4
	if lits > maxDynLit || dists > maxDynDist {
		r.corrupt("number of symbols", fmt.Sprintf("%d and %d", lits, dists), fmt.Sprintf("at most %d and %d", maxDynLit, maxDynDist))
		return
	}
	var lens [preSyms]uint8
	for _, sym := range preOrder[:pres] {
		v, ok := r.bits(3)
		if !ok {
			return
		}
		lens[sym] = uint8(v)
	}
	var pre [1 << preBits]entry
	if _, ok := build(pre[:], preBits, lens[:], preSymbols[:]); !ok {
		r.badCode("code lengths")
		return
	}
	if !r.codeLengths(&pre, lits+dists) {
		return
	}
	shortest, ok := build(r.lit[:], litBits, r.lens[:lits], litSymbols[:])
	if !ok {
		r.badCode("literals and lengths")
		return
	}
	if _, ok = build(r.dist[:], distBits, r.lens[lits:lits+dists], distSymbols[:]); !ok {
		r.badCode("distances")
		return
	}
	r.minLit = max(shortest, uint(r.lens[endOfBlock]))
	r.hl, r.hd, r.state = &r.lit, &r.dist, inHuffman
}

func (r *Reader) badCode(of string) {
	r.corrupt("Huffman code of "+of, "incomplete or oversubscribed", "a complete one")
}

// codeLengths reads n code lengths into lens.
func (r *Reader) codeLengths(pre *[1 << preBits]entry, n int) bool {
	for i := 0; i < n; {
		e, ok := r.preSymbol(pre)
		if !ok {
			return false
		}
		if e < 16 {
			r.lens[i] = uint8(e)
			i++
			continue
		}
		var v uint8
		var extra uint
		rep := 3
		switch e {
		case 16:
			if i == 0 {
				r.corrupt("code length", "a repetition of nothing", "a length first")
				return false
			}
			v, extra = r.lens[i-1], 2
		case 17:
			extra = 3
		case 18:
			rep, extra = 11, 7
		}
		more, ok := r.bits(extra)
		if !ok {
			return false
		}
		if rep += int(more); rep > n-i {
			r.corrupt("code length", fmt.Sprintf("repeated %d times", rep), fmt.Sprintf("at most %d", n-i))
			return false
		}
		for range rep {
			r.lens[i] = v
			i++
		}
	}
	return true
}

func (r *Reader) preSymbol(pre *[1 << preBits]entry) (sym uint, ok bool) {
	for {
		e := pre[r.b&(1<<preBits-1)]
		if k := uint(e & 63); k > r.n {
			if !r.need(r.n + 1) {
				return 0, false
			}
			continue
		}
		r.drop(uint(e & 63))
		if e&isSpecial != 0 {
			r.corrupt("code length", "no code", "a symbol")
			return 0, false
		}
		return uint(e >> 16), true
	}
}
