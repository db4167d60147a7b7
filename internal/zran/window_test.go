package zran_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/convhost/convhost/internal/zran"
)

// fixedMatch writes a match in a block of fixed codes.
func (w *bitWriter) fixedMatch(length, dist uint) {
	sym, base, extra := uint(285), uint(258), uint(0)
	if length < 258 {
		for sym, base = 257, 3; ; sym++ {
			extra = 0
			if sym >= 265 {
				extra = (sym - 261) / 4
			}
			if length < base+1<<extra {
				break
			}
			base += 1 << extra
		}
	}
	if sym < 280 {
		w.code(sym-256, 7)
	} else {
		w.code(0xc0+sym-280, 8)
	}
	w.bits(length-base, extra)
	for sym, base = 0, 1; ; sym++ {
		extra = 0
		if sym >= 4 {
			extra = (sym - 2) / 2
		}
		if dist < base+1<<extra {
			break
		}
		base += 1 << extra
	}
	w.code(sym, 5)
	w.bits(dist-base, extra)
}

// handmatched is 32 KiB of noise, stored, and then matches in one fixed block: all lengths, all small distances, and the
// largest, over several windows of output.
func handmatched() (b []byte) {
	r := rand.New(rand.NewPCG(5, 6))
	var w bitWriter
	w.bits(0, 8)
	w.bits(0x8000, 16)
	w.bits(0x7fff, 16)
	for range 32768 {
		w.bits(uint(r.Uint32()&255), 8)
	}
	w.bits(3, 3)
	for length := uint(3); length <= 258; length++ {
		for _, dist := range []uint{1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 255, 4097, 32767, 32768} {
			w.fixedMatch(length, dist)
			if dist < 20 && length < 40 {
				w.code(0x30+length, 8) // so that it does not become the same byte all over
			}
		}
	}
	w.code(0, 7)
	return w.b
}

func TestMatches(t *testing.T) {
	b := handmatched()
	want := stdFlate(b)
	if want.err != nil || len(want.out) < 500_000 {
		t.Fatal(len(want.out), want.err)
	}
	compare(t, ours(b, zran.Options{Format: zran.Deflate}), want)
	for _, r := range []io.Reader{iotest.OneByteReader(bytes.NewReader(b)), iotest.HalfReader(bytes.NewReader(b))} {
		out, err := io.ReadAll(zran.NewReader(r, zran.Options{Format: zran.Deflate}))
		if err != nil || !bytes.Equal(out, want.out) {
			t.Error(len(out), err)
		}
	}
}

// One byte too far is refused, also when the memory behind the Reader holds something there.
func TestTooFar(t *testing.T) {
	for _, have := range []int{0, 1, 2, 300, 32767} {
		for _, behind := range []int{0, 100} { // for symbol and for the fast loop
			var w bitWriter
			w.bits(0, 8)
			w.bits(uint(have), 16)
			w.bits(^uint(have), 16)
			for i := range have {
				w.bits(uint(i), 8)
			}
			w.bits(3, 3)
			w.fixedMatch(3, uint(have)+1)
			w.code(0, 7)
			b := append(w.b, make([]byte, behind)...)
			compare(t, ours(b, zran.Options{Format: zran.Deflate}), stdFlate(b))
			if got := ours(b, zran.Options{Format: zran.Deflate}); len(got.out) != have || got.err == nil {
				t.Errorf("%d: %d bytes, %v", have, len(got.out), got.err)
			}
		}
	}
	// nor into the member before
	far := bitWriter{}
	far.bits(3, 3)
	far.fixedMatch(3, 1)
	far.bits(0, 200)
	g := gzipped([]byte("abc"), 6)
	b := append(append(bytes.Clone(g), g[:10]...), far.b...)
	got := ours(b, zran.Options{})
	compareGzip(t, got, stdGzip(b))
	if string(got.out) != "abc" || got.err == nil {
		t.Errorf("%q, %v", got.out, got.err)
	}
}
