package ext4

import "math/bits"

// Hash versions of an index; 3 to 5 are the same with unsigned characters.
const (
	hashLegacy  = 0
	hashHalfMD4 = 1
	hashTEA     = 2

	flagSignedHash   = 1 // of the superblock
	flagUnsignedHash = 2
)

// nameHash returns the hash of a name, its lowest bit clear. ok is false for a version that is not known.
func (v *volume) nameHash(version uint8, name string) (h uint32, ok bool) {
	if version <= hashTEA && v.flags&flagUnsignedHash != 0 {
		version += 3
	}
	signed := version <= hashTEA
	s := [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	if seed := v.sb[sbHashSeed : sbHashSeed+16]; !allZero(seed) {
		for i := range s {
			s[i] = u32(seed, i*4)
		}
	}
	switch version {
	case hashLegacy, hashLegacy + 3:
		h = legacyHash(name, signed)
	case hashHalfMD4, hashHalfMD4 + 3:
		for rest := name; ; {
			in := pack(rest, 8, signed)
			halfMD4(&s, in[:8])
			if len(rest) <= 32 {
				break
			}
			rest = rest[32:]
		}
		h = s[1]
	case hashTEA, hashTEA + 3:
		for rest := name; ; {
			in := pack(rest, 4, signed)
			tea(&s, in[:4])
			if len(rest) <= 16 {
				break
			}
			rest = rest[16:]
		}
		h = s[0]
	default:
		return 0, false
	}
	h &^= 1
	if h == 0xfffffffe { // the end of a directory for those who walk by hash
		h = 0xfffffffc
	}
	return h, true
}

func char(c byte, signed bool) uint32 {
	if signed {
		return uint32(int32(int8(c)))
	}
	return uint32(c)
}

func legacyHash(name string, signed bool) uint32 {
	h0, h1 := uint32(0x12a3fe2d), uint32(0x37abe8f9)
	for i := range len(name) {
		h := h1 + (h0 ^ char(name[i], signed)*7152373)
		if h&0x80000000 != 0 {
			h -= 0x7fffffff
		}
		h1, h0 = h0, h
	}
	return h0 << 1
}

// pack turns the first bytes of a name into num words; what is missing is made of the length.
func pack(s string, num int, signed bool) (out [8]uint32) {
	pad := uint32(len(s)) | uint32(len(s))<<8
	pad |= pad << 16
	val, k := pad, 0
	n := min(len(s), num*4)
	for i := range n {
		val = char(s[i], signed) + val<<8
		if i%4 == 3 {
			out[k] = val
			val = pad
			k++
		}
	}
	if k < num {
		out[k] = val
		k++
	}
	for ; k < num; k++ {
		out[k] = pad
	}
	return out
}

func halfMD4(s *[4]uint32, in []uint32) {
	f := func(x, y, z uint32) uint32 { return z ^ x&(y^z) }
	g := func(x, y, z uint32) uint32 { return x&y + (x^y)&z }
	h := func(x, y, z uint32) uint32 { return x ^ y ^ z }
	a, b, c, d := s[0], s[1], s[2], s[3]
	round := func(fn func(x, y, z uint32) uint32, k uint32, order [8]int, r [4]int) {
		for i := 0; i < 8; i += 4 {
			a = bits.RotateLeft32(a+fn(b, c, d)+in[order[i]]+k, r[0])
			d = bits.RotateLeft32(d+fn(a, b, c)+in[order[i+1]]+k, r[1])
			c = bits.RotateLeft32(c+fn(d, a, b)+in[order[i+2]]+k, r[2])
			b = bits.RotateLeft32(b+fn(c, d, a)+in[order[i+3]]+k, r[3])
		}
	}
	round(f, 0, [8]int{0, 1, 2, 3, 4, 5, 6, 7}, [4]int{3, 7, 11, 19})
	round(g, 0x5a827999, [8]int{1, 3, 5, 7, 0, 2, 4, 6}, [4]int{3, 5, 9, 13})
	round(h, 0x6ed9eba1, [8]int{3, 7, 2, 6, 1, 5, 0, 4}, [4]int{3, 9, 11, 15})
	s[0], s[1], s[2], s[3] = s[0]+a, s[1]+b, s[2]+c, s[3]+d
}

func tea(s *[4]uint32, in []uint32) {
	sum, b0, b1 := uint32(0), s[0], s[1]
	a, b, c, d := in[0], in[1], in[2], in[3]
	for range 16 {
		sum += 0x9E3779B9
		b0 += (b1<<4 + a) ^ (b1 + sum) ^ (b1>>5 + b)
		b1 += (b0<<4 + c) ^ (b0 + sum) ^ (b0>>5 + d)
	}
	s[0], s[1] = s[0]+b0, s[1]+b1
}
