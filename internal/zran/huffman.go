package zran

// huffman decodes until the block ends, input or room run out, or something is wrong.
func (r *Reader) huffman() {
	for r.op <= roomLimit && r.err == nil && r.state == inHuffman {
		if r.end-r.pos >= fastInput {
			r.fast()
			if r.op > roomLimit || r.err != nil {
				return
			}
		}
		if r.symbol(); r.starved {
			return
		}
	}
}

// symbol decodes one literal, match or end of block, with all checks, or takes nothing and sets starved.
func (r *Reader) symbol() {
	r.top()
	b, n := r.b, r.n
	e := r.hl[b&(1<<litBits-1)]
	if e&(isSpecial|isEnd|isInvalid) == isSpecial {
		e = r.hl[(e>>16+uint32(b>>litBits)&(1<<(e>>8&15)-1))&litTableMask]
	}
	used := uint(e & 63)
	code := uint(e >> 8 & 15)
	switch {
	case code > n:
		r.starved = true
		return
	case e&isInvalid != 0:
		r.bad(code, noLiteral)
		return
	case e&isLiteral != 0:
		r.win[r.op] = byte(e >> 16)
		r.op++
		r.drop(used)
		return
	case e&isEnd != 0:
		r.drop(used)
		r.endBlock()
		return
	case used > n:
		r.starved = true
		return
	}
	length := int(e>>16 + uint32(b&(1<<used-1)>>code))
	b >>= used
	n -= used
	e = r.hd[b&(1<<distBits-1)]
	if e&(isSpecial|isInvalid) == isSpecial {
		e = r.hd[(e>>16+uint32(b>>distBits)&(1<<(e>>8&15)-1))&distMask]
	}
	more, code := uint(e&63), uint(e>>8&15)
	switch {
	case code > n:
		r.starved = true
		return
	case e&isInvalid != 0:
		r.bad(used+code, noDistance)
		return
	case more > n:
		r.starved = true
		return
	}
	dist := int(e>>16 + uint32(b&(1<<more-1)>>code))
	if dist > r.op-r.hist || dist > maxDist {
		r.bad(used+more, farDistance)
		return
	}
	r.drop(used + more)
	for range length {
		r.win[r.op] = r.win[r.op-dist]
		r.op++
	}
}

// fault is what can be wrong with a symbol: field, value and rule.
type fault [3]string

var (
	noLiteral   = fault{"literal or length", "no code", "a symbol"}
	noDistance  = fault{"distance", "no code", "a symbol"}
	farDistance = fault{"distance", "beyond the beginning", "at most what came out"}
)

// bad reports a symbol whose last bit is the used-th of the bit buffer. If the input ends so early that an end of block
// could not come any more, that is what is wrong.
func (r *Reader) bad(used uint, f fault) {
	if r.n < r.minLit {
		r.starved = true
		return
	}
	r.drop(used)
	r.corrupt(f[0], f[1], f[2])
}
