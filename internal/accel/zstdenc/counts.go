package zstdenc

import (
	"math"
	"math/bits"
)

// counts says how often symbols occur in a block.
type counts struct {
	n       [64]uint32
	symbols int // all are smaller
	total   int
	most    int // of one symbol
}

// finish derives the rest from n.
func (c *counts) finish(total int) {
	c.total = total
	for s, n := range c.n {
		if n > 0 {
			c.symbols = s + 1
			c.most = max(c.most, int(n))
		}
	}
}

// tableLog returns the size of table that suits, at most most.
func (c *counts) tableLog(most uint) uint {
	enough := bits.Len(uint(c.total-1)) - 3
	needed := min(bits.Len(uint(c.total)), bits.Len(uint(c.symbols-1))+1)
	return min(max(uint(max(enough, needed)), minTableLog), most)
}

// entropy estimates the bits that the symbols take with the best table there can be, in 1/256.
func (c *counts) entropy() uint32 {
	all, sum := log2(uint32(c.total)), uint32(0)
	for _, n := range c.n[:c.symbols] {
		if n > 0 {
			sum += n * (all - log2(n))
		}
	}
	return sum
}

// cost estimates the bits that the symbols take with t, in 1/256: MaxUint32 if it has not all of them or is nil.
func (t *table) cost(c *counts) uint32 {
	if t == nil || c.symbols > t.symbols {
		return math.MaxUint32
	}
	all, sum := uint32(t.log)<<8, uint32(0)
	for s, n := range c.n[:c.symbols] {
		if n == 0 {
			continue
		}
		v := t.norm[s]
		if v == 0 {
			return math.MaxUint32
		}
		sum += n * (all - log2(uint32(max(v, -v))))
	}
	return sum
}

// log2 is the logarithm of v, which is not 0, in 1/256.
func log2(v uint32) uint32 {
	n := bits.Len32(v) - 1
	return uint32(n)<<8 + uint32(fraction[uint8(uint64(v)<<8>>n)])
}

// fraction is the logarithm of 1 + i/256.
var fraction = func() (t [256]uint8) {
	for i := range t {
		t[i] = uint8(math.Log2(1+float64(i)/256) * 256)
	}
	return t
}()
