package zran

import "encoding/binary"

const fastInput = 32 // bytes that one round of the fast loop may touch

// fast decodes while there are fastInput bytes of input and room up to roomLimit. It stops before any symbol that is not
// a literal or a sound match: symbol decides about it.
//
// A round begins with 56 bits or more. It takes up to three literals of the first level (33 bits), or up to two and a
// match: length 20 bits, then the buffer is filled again, distance 28. At most 3+258 bytes come out; copying in pieces of 16
// writes up to 15 more, which the following output overwrites: winSlack has room.
func (r *Reader) fast() {
	in, pos, b, n := r.buf[:r.end], r.pos, r.b, r.n
	out, op, hist := r.win, r.op, r.hist
	lit, dists := r.hl, r.hd
	last := len(in) - fastInput
	for pos <= last && op <= roomLimit {
		b |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		e := lit[b&(1<<litBits-1)]
		if int32(e) < 0 {
			b >>= e & 63
			n -= uint(e & 63)
			out[op] = byte(e >> 16)
			op++
			e = lit[b&(1<<litBits-1)]
			if int32(e) < 0 {
				b >>= e & 63
				n -= uint(e & 63)
				out[op] = byte(e >> 16)
				op++
				e = lit[b&(1<<litBits-1)]
				if int32(e) < 0 {
					b >>= e & 63
					n -= uint(e & 63)
					out[op] = byte(e >> 16)
					op++
					continue
				}
			}
		}
		if e&isSpecial != 0 {
			if e&(isEnd|isInvalid) != 0 {
				break
			}
			e = lit[(e>>16+uint32(b>>litBits)&(1<<(e>>8&15)-1))&litTableMask]
			if int32(e) < 0 {
				b >>= e & 63
				n -= uint(e & 63)
				out[op] = byte(e >> 16)
				op++
				continue
			}
			if e&isSpecial != 0 {
				break
			}
		}
		// 34 bits or more are there: 20 for the length, 14 for the distance's first level
		keepB, keepN, keepPos := b, n, pos
		length := int(e>>16 + uint32(b&(1<<(e&63)-1)>>(e>>8&15)))
		b >>= e & 63
		n -= uint(e & 63)
		e = dists[b&(1<<distBits-1)]
		b |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		if e&isSpecial != 0 {
			if e&isInvalid == 0 {
				e = dists[(e>>16+uint32(b>>distBits)&(1<<(e>>8&15)-1))&distMask]
			}
			if e&isInvalid != 0 {
				b, n, pos = keepB, keepN, keepPos
				break
			}
		}
		dist := int(e>>16 + uint32(b&(1<<(e&63)-1)>>(e>>8&15)))
		if dist > op-hist {
			b, n, pos = keepB, keepN, keepPos
			break
		}
		b >>= e & 63
		n -= uint(e & 63)
		src, end := op-dist, op+length
		switch {
		case dist >= 16:
			for {
				lo, hi := binary.LittleEndian.Uint64(out[src:]), binary.LittleEndian.Uint64(out[src+8:])
				binary.LittleEndian.PutUint64(out[op:], lo)
				binary.LittleEndian.PutUint64(out[op+8:], hi)
				src += 16
				op += 16
				if op >= end {
					break
				}
			}
		case dist >= 8:
			for op < end {
				binary.LittleEndian.PutUint64(out[op:], binary.LittleEndian.Uint64(out[src:]))
				src += 8
				op += 8
			}
		case dist == 1:
			v := uint64(out[src]) * 0x0101010101010101
			for op < end {
				binary.LittleEndian.PutUint64(out[op:], v)
				op += 8
			}
		default:
			for op < end {
				out[op] = out[src]
				op++
				src++
			}
		}
		op = end
	}
	r.pos, r.b, r.n, r.op = pos, b&(1<<(n&63)-1), n, op
}
