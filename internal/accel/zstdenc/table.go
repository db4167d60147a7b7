package zstdenc

import "math/bits"

const (
	maxSymbols  = 53
	minTableLog = 5
	maxTableLog = 9
)

// table is a table of finite state entropy coding. States are 1<<log to 2<<log-1.
type table struct {
	log     uint
	symbols int               // all are smaller
	norm    [maxSymbols]int16 // how many states a symbol has; -1 for one state that it has out of turn
	steps   [64]step
	next    [1 << maxTableLog]uint16
}

// step says how a symbol changes the state.
type step struct {
	bits uint32 // added to the state, its upper half is the number of bits to write
	base int32  // added to what is left of the state, an index of next
}

// normalize shares the states out among the symbols.
func (t *table) normalize(c *counts, log uint) {
	t.log, t.symbols = log, c.symbols
	left, largest := 1<<log, 0
	for s, n := range c.n[:c.symbols] {
		share := uint64(n) << (log + 8) / uint64(c.total)
		v := int16(share >> 8)
		switch {
		case n == 0:
		case v == 0:
			v = -1
			left--
		default:
			if v < 8 && uint8(share) > roundUp[v] {
				v++
			}
			if v > t.norm[largest] {
				largest = s
			}
			left -= int(v)
		}
		t.norm[s] = v
	}
	for left < 0 && -left >= int(t.norm[largest])/2 { // too much for one: whoever has most gives
		for s, v := range t.norm[:t.symbols] {
			if v > t.norm[largest] {
				largest = s
			}
		}
		t.norm[largest]--
		left++
	}
	t.norm[largest] += int16(left)
}

// roundUp is the fraction, in 1/256, above which a small share is rounded up.
var roundUp = [8]uint8{0, 115, 123, 127, 134, 171, 183, 203}

// build makes steps and next (RFC 8878, 4.1.1, from the encoder's side).
func (t *table) build() {
	size := uint32(1) << t.log
	var symbols [1 << maxTableLog]uint8 // by state
	var at [maxSymbols]uint32
	regular, sum := size, uint32(0)
	for s, n := range t.norm[:t.symbols] {
		at[s] = sum
		t.steps[s] = makeStep(n, t.log, sum)
		if n == -1 {
			regular--
			symbols[regular] = uint8(s)
			n = 1
		}
		sum += uint32(n)
	}
	pos, skip, mask := uint32(0), size>>1+size>>3+3, size-1
	for s, n := range t.norm[:t.symbols] {
		for range n {
			symbols[pos] = uint8(s)
			for pos = (pos + skip) & mask; pos >= regular; {
				pos = (pos + skip) & mask
			}
		}
	}
	for i, s := range symbols[:size] {
		t.next[at[s]] = uint16(size + uint32(i))
		at[s]++
	}
}

// makeStep returns the step of a symbol that has n states, the first one at index sum of next.
func makeStep(n int16, log uint, sum uint32) step {
	switch n {
	case 0:
		return step{}
	case -1, 1:
		return step{uint32(log)<<16 - 1<<log, int32(sum) - 1}
	}
	most := uint32(log) + 1 - uint32(bits.Len32(uint32(n-1)))
	return step{most<<16 - uint32(n)<<most, int32(sum) - int32(n)}
}

// single makes a table of one symbol, which takes no bits.
func (t *table) single(s uint8) {
	t.log, t.symbols = 0, 0
	t.steps[s&63] = step{}
	t.next[0] = 0
}

// first returns the state from which the decoder reads nothing more but symbol s.
func (t *table) first(s uint8) uint32 {
	if t.log == 0 {
		return 0
	}
	st := t.steps[s&63]
	n := (st.bits + 1<<15) >> 16
	return uint32(t.next[int32((n<<16-st.bits)>>n)+st.base])
}

// appendHeader appends norm as numbers of varying width: of values that can still come, the lower ones take a bit less.
func (t *table) appendHeader(dst []byte) []byte {
	w := byteWriter{out: dst}
	w.add(uint32(t.log-minTableLog), 4)
	for s, left := 0, 1<<t.log+1; left > 1; s++ {
		v := int(t.norm[s]) + 1 // 0 to left
		width := uint(bits.Len(uint(left)))
		short := 1<<width - 1 - left // so many take a bit less
		switch {
		case v < short:
			w.add(uint32(v), width-1)
		case v < 1<<(width-1):
			w.add(uint32(v), width)
		default:
			w.add(uint32(v+short), width)
		}
		left -= max(v-1, 1-v)
		if v != 1 {
			continue
		}
		run := 0 // of more symbols that have no state
		for ; t.norm[s+1] == 0; s++ {
			run++
		}
		for ; run >= 3; run -= 3 {
			w.add(3, 2)
		}
		w.add(uint32(run), 2)
	}
	return w.finish()
}

// byteWriter appends bits, the lowest first.
type byteWriter struct {
	out []byte
	acc uint32
	n   uint
}

// add appends the n low bits of v, at most 16; the others must be 0.
func (w *byteWriter) add(v uint32, n uint) {
	w.acc |= v << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.out = append(w.out, byte(w.acc))
		w.acc >>= 8
	}
}

func (w *byteWriter) finish() []byte {
	if w.n > 0 {
		return append(w.out, byte(w.acc))
	}
	return w.out
}
