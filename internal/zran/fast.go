package zran

import "encoding/binary"

const (
	fastInput = 32          // bytes that one round of the fast loop may touch
	inMask    = inBytes - 1 // no position in the fast loop exceeds these: the masks change nothing, but spare the bounds checks
	winMask   = winArray - 1
)

// fast decodes while there are fastInput bytes of input and room up to roomLimit. It stops before the end of the block and
// before codes that mean nothing: symbol decides about them.
//
// e is always the entry of what comes next, looked up before the buffer is filled so that it does not wait for that. A round
// then has 56 bits or more. It takes up to three literals of the first level (33 bits), or up to two and a
// match: length 20 bits, then the buffer is filled again, distance 28. At most 3+258 bytes come out; copying in pieces of 16
// writes up to 15 more, which the following output overwrites: winSlack has room.
//
// It is one long function because a call moves what is in registers to memory and back.
func (r *Reader) fast() {
	in, pos, b, n := (*[headroom + inBytes]byte)(r.buf), uint(r.pos), r.b, r.n
	out, op, hist := (*[winArray + 16]byte)(r.win), uint(r.op), uint(r.hist)
	lit, dists := r.hl, r.hd
	last := uint(r.end) - fastInput
	b |= binary.LittleEndian.Uint64(in[pos&inMask:pos&inMask+8]) << (n & 63)
	pos += (63 - n) >> 3
	n |= 56
	e := lit[b&(1<<litBits-1)]
	for pos <= last && op <= roomLimit {
		b |= binary.LittleEndian.Uint64(in[pos&inMask:pos&inMask+8]) << (n & 63)
		pos += (63 - n) >> 3
		n |= 56
		if int32(e) < 0 {
			b >>= e & 63
			n -= uint(e & 63)
			out[op&winMask] = byte(e >> 16)
			op++
			e = lit[b&(1<<litBits-1)]
			if int32(e) < 0 {
				b >>= e & 63
				n -= uint(e & 63)
				out[op&winMask] = byte(e >> 16)
				op++
				e = lit[b&(1<<litBits-1)]
				if int32(e) < 0 {
					b >>= e & 63
					n -= uint(e & 63)
					out[op&winMask] = byte(e >> 16)
					op++
					e = lit[b&(1<<litBits-1)]
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
				out[op&winMask] = byte(e >> 16)
				op++
				e = lit[b&(1<<litBits-1)]
				continue
			}
			if e&isSpecial != 0 {
				break
			}
		}
		// 34 bits or more are there: 20 for the length, 14 to look up the distance's first level; then 28 for the distance
		length := uint(e>>16 + uint32(b&(1<<(e&63)-1)>>(e>>8&15)))
		b >>= e & 63
		n -= uint(e & 63)
		e = dists[b&(1<<distBits-1)]
		b |= binary.LittleEndian.Uint64(in[pos&inMask:pos&inMask+8]) << (n & 63)
		pos += (63 - n) >> 3
		n |= 56
		if e&isSpecial != 0 {
			if e&isInvalid == 0 {
				e = dists[(e>>16+uint32(b>>distBits)&(1<<(e>>8&15)-1))&distMask]
			}
			if e&isInvalid != 0 {
				r.leave(pos, b, n, op)
				r.bad(uint(e>>8&15), noDistance)
				return
			}
		}
		dist := uint(e>>16 + uint32(b&(1<<(e&63)-1)>>(e>>8&15)))
		b >>= e & 63
		n -= uint(e & 63)
		if dist > op-hist {
			r.leave(pos, b, n, op)
			r.bad(0, farDistance)
			return
		}
		e = lit[b&(1<<litBits-1)]
		src, end := op-dist, op+length
		switch {
		case dist >= 16:
			for {
				*(*[16]byte)(out[op&winMask : op&winMask+16]) = *(*[16]byte)(out[src&winMask : src&winMask+16])
				src += 16
				op += 16
				if op >= end {
					break
				}
			}
		case dist >= 8:
			for op < end {
				binary.LittleEndian.PutUint64(out[op&winMask:op&winMask+8], binary.LittleEndian.Uint64(out[src&winMask:src&winMask+8]))
				src += 8
				op += 8
			}
		case dist == 1:
			v := uint64(out[src&winMask]) * 0x0101010101010101
			for op < end {
				binary.LittleEndian.PutUint64(out[op&winMask:op&winMask+8], v)
				op += 8
			}
		default:
			for op < end {
				out[op&winMask] = out[src&winMask]
				op++
				src++
			}
		}
		op = end
	}
	r.leave(pos, b, n, op)
}

// leave takes over what the fast loop has in registers.
func (r *Reader) leave(pos uint, b uint64, n, op uint) {
	r.pos, r.b, r.n, r.op = int(pos), b&(1<<(n&63)-1), n, int(op)
}
