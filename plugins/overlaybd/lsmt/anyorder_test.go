package lsmt

import (
	"bytes"
	"errors"
	"math/rand"
	"testing"

	"github.com/convhost/convhost/abi"
)

// TestAnyOrder writes disjoint ranges in random order: the device is that of the model, and the index is sorted and joined.
func TestAnyOrder(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for round := range 200 {
		var ops []op
		for s := uint64(0); s < 900; {
			n := 1 + uint64(rnd.Intn(60))
			if rnd.Intn(4) > 0 {
				ops = append(ops, op{start: s, n: n, fill: byte(rnd.Intn(3) * 41)})
			}
			s += n
		}
		m := newModel(1024)
		m.apply(ops)
		rnd.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
		c := Config{VirtualSize: 1024 * SectorSize, AnyOrder: true}
		b := write(t, c, ops, 1000)
		if !bytes.Equal(b, write(t, c, ops, 1+uint64(rnd.Intn(7)))) {
			t.Fatalf("round %d: how ranges were cut changes the bytes", round)
		}
		if errs, notes := Check(bytes.NewReader(b), int64(len(b)), Options{}); len(errs)+len(notes) > 0 {
			t.Fatalf("round %d: %v %v", round, errs, notes)
		}
		l := open(t, b)
		for i, s := range l.Segments() {
			if i > 0 && l.Segments()[i-1].continues(s) && l.Segments()[i-1].Length < runLength {
				t.Fatalf("round %d: segments %d and %d are not joined", round, i-1, i)
			}
		}
		dev, err := Stack(l)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, dev.Size())
		if _, err := dev.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, m.data) {
			t.Fatalf("round %d: the device differs from the model", round)
		}
	}
}

func TestAnyOrderOverlap(t *testing.T) {
	var buf bytes.Buffer
	w, err := NewWriter(&buf, Config{VirtualSize: 1 << 20, AnyOrder: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{8192, 0, 4096, 8192} {
		if err := w.Data(off, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); !errors.Is(err, abi.ErrInvalid) {
		t.Errorf("a sector that was given twice: %v, want ErrInvalid", err)
	}
}
