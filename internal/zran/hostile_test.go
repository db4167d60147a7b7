package zran_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/zran"
)

// bitWriter makes deflate streams by hand.
type bitWriter struct {
	b []byte
	n uint
}

// bits adds the k lowest bits of v, the lowest first.
func (w *bitWriter) bits(v, k uint) {
	for ; k > 0; k-- {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[len(w.b)-1] |= byte(v&1) << (w.n % 8)
		v >>= 1
		w.n++
	}
}

// code adds a Huffman code: its first bit is the highest.
func (w *bitWriter) code(v, k uint) {
	for k > 0 {
		k--
		w.bits(v>>k&1, 1)
	}
}

// dynamic begins a dynamic block with these code lengths, each written as five bits: all of 0..15 have codes of four bits.
func (w *bitWriter) dynamic(lit, dist []uint8) {
	w.bits(1|2<<1, 3)
	w.bits(uint(len(lit)-257), 5)
	w.bits(uint(len(dist)-1), 5)
	w.bits(15, 4)
	for _, sym := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		if sym < 16 {
			w.bits(4, 3)
		} else {
			w.bits(0, 3)
		}
	}
	for _, n := range append(bytes.Clone(lit), dist...) {
		w.code(uint(n), 4)
	}
}

// lengths returns n code lengths, all zero but those given as symbol, length, ...
func lengths(n int, pairs ...int) []uint8 {
	l := make([]uint8, n)
	for i := 0; i < len(pairs); i += 2 {
		l[pairs[i]] = uint8(pairs[i+1])
	}
	return l
}

// stair is a complete code with lengths 1, 2, … 15, 15 for symbols n-16 and up; the longest belong to the last.
func stair(n int) []uint8 {
	l := make([]uint8, n)
	for i := range 15 {
		l[n-16+i] = uint8(i + 1)
	}
	l[n-1] = 15
	return l
}

func handmade(lit, dist []uint8, codes ...uint) []byte {
	var w bitWriter
	w.dynamic(lit, dist)
	for i := 0; i < len(codes); i += 2 {
		w.code(codes[i], codes[i+1])
	}
	w.bits(0, 1)
	return w.b
}

// hostile returns streams with odd and broken codes; the verdict on them is the standard library's.
func hostile() map[string][]byte {
	ab := lengths(258, 'a', 2, 'b', 2, 256, 2, 257, 2)
	m := map[string][]byte{
		"reserved type":             {7},
		"stored, bad complement":    {1, 5, 0, 5, 0},
		"stored, empty":             {1, 0, 0, 255, 255},
		"one distance":              handmade(ab, lengths(1, 0, 1), 0, 2, 3, 2, 0, 1, 2, 2),
		"one distance, other bit":   handmade(ab, lengths(1, 0, 1), 0, 2, 3, 2, 1, 1, 2, 2),
		"one distance of two bits":  handmade(ab, lengths(1, 0, 2), 0, 2, 2, 2),
		"no distance":               handmade(ab, lengths(1), 0, 2, 1, 2, 2, 2),
		"no distance, used":         handmade(ab, lengths(1), 0, 2, 3, 2),
		"no distance, used, cut":    handmade(ab, lengths(1), 0, 2, 3, 2)[:94],
		"distances incomplete":      handmade(ab, lengths(3, 0, 2, 1, 2, 2, 2), 2, 2),
		"distances oversubscribed":  handmade(ab, lengths(3, 0, 1, 1, 1, 2, 1), 2, 2),
		"only end":                  handmade(lengths(257, 256, 1), lengths(1), 0, 1),
		"only end, other bit":       handmade(lengths(257, 256, 1), lengths(1), 1, 1),
		"only one literal":          handmade(lengths(257, 'a', 1), lengths(1), 0, 1, 0, 1, 1, 1),
		"no literal":                handmade(lengths(257), lengths(1), 0, 1),
		"literals incomplete":       handmade(lengths(257, 'a', 2, 256, 2), lengths(1), 0, 2, 1, 2),
		"literals oversubscribed":   handmade(lengths(257, 'a', 1, 'b', 1, 256, 1), lengths(1), 0, 1),
		"no end":                    handmade(lengths(257, 'a', 1, 'b', 1), lengths(1), 0, 1, 1, 1),
		"distance before beginning": handmade(ab, lengths(2, 0, 1, 1, 1), 0, 2, 3, 2, 1, 1, 2, 2),
		"287 symbols":               handmade(make([]uint8, 287), lengths(1)),
		"31 distances":              handmade(ab, make([]uint8, 31)),
		"all codes long":            handmade(stair(257), stair(30), 0x7fff, 15),
		"far distance, all bits":    handmade(append(lengths(257, 'a', 2, 256, 2), stair(29)[1:]...)[:286], stair(30), 0, 2),
		"repeat nothing":            {5, 0xc0, 0x81, 8, 0, 0, 0, 0, 0x20, 0xff, 0xff},
	}
	var fixed bitWriter
	fixed.bits(3, 3)
	fixed.code(0xc6, 8) // 286
	m["fixed, 286"] = bytes.Clone(fixed.b)
	fixed = bitWriter{}
	fixed.bits(3, 3)
	fixed.code(0x30+'a', 8)
	fixed.code(1, 7) // length 3
	fixed.code(30, 5)
	m["fixed, distance 30"] = append(fixed.b, 0, 0)
	return m
}

func TestHostile(t *testing.T) {
	for name, b := range hostile() {
		for n := range len(b) + 1 {
			t.Run(fmt.Sprint(name, "/", n), func(t *testing.T) {
				compare(t, ours(b[:n], zran.Options{Format: zran.Deflate}), stdFlate(b[:n]))
			})
		}
		long := append(bytes.Clone(b), make([]byte, 100)...) // now the fast loop meets it
		t.Run(name+"/long", func(t *testing.T) {
			compare(t, ours(long, zran.Options{Format: zran.Deflate}), stdFlate(long))
		})
	}
}

// Every byte of a stream broken in several ways: the verdict is the standard library's.
func TestFlips(t *testing.T) {
	for _, raw := range texts(300) {
		for _, level := range levels {
			b := deflated(raw, level)
			for i := range b {
				for _, x := range []byte{1, 0x80, 0x55} {
					b[i] ^= x
					compare(t, ours(b, zran.Options{Format: zran.Deflate}), stdFlate(b))
					b[i] ^= x
				}
			}
		}
	}
}

// Likewise in the middle of long streams, where the fast loop meets the fault.
func TestFlipsLong(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for name, raw := range texts(100_000) {
		if len(raw) < 100 {
			continue
		}
		for _, level := range levels {
			b := deflated(raw, level)
			for range 12 {
				i, x := rnd.IntN(len(b)), byte(1+rnd.IntN(255))
				b[i] ^= x
				t.Run(fmt.Sprint(name, "/", level, "/", i), func(t *testing.T) {
					compare(t, ours(b, zran.Options{Format: zran.Deflate}), stdFlate(b))
				})
				b[i] ^= x
			}
		}
	}
}

func TestGzipRefused(t *testing.T) {
	g := gzipped(texts(2000)["text"], 6)
	for i := range g {
		b := bytes.Clone(g)
		b[i] ^= 0x10
		if i < 10 && i != 3 && i > 2 {
			continue // time, level, system: anything
		}
		got, want := ours(b, zran.Options{}), stdGzip(b)
		compareGzip(t, got, want)
		if i >= len(g)-8 && abi.ClassOf(got.err) != abi.ErrCorrupt {
			t.Errorf("trailer byte %d: %v", i, got.err)
		}
	}
}

// compareGzip is compare but for what begins like a header and is neither one nor complete: we say corrupt at once.
func compareGzip(t testing.TB, got, want result) {
	t.Helper()
	if want.err != nil && abi.ClassOf(got.err) == abi.ErrCorrupt && bytes.Equal(got.out, want.out) {
		return
	}
	compare(t, got, want)
}
