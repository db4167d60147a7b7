package lsmt

import (
	"bytes"
	"io"
	"testing"

	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

// law: any bytes are refused with a known class, by Open and Check alike, or the layer reads to its end, and what Commit makes of
// it reads the same and is its own Commit.
func roundTrip(t *testing.T, b []byte) {
	l, err := Open(bytes.NewReader(b), int64(len(b)), Options{})
	errs, _ := Check(bytes.NewReader(b), int64(len(b)), Options{})
	if (err == nil) != (len(errs) == 0) {
		t.Fatalf("Open says %v, Check %v", err, errs)
	}
	if err != nil {
		vectors.Known(t, err)
		if l != nil {
			t.Fatal("half a result")
		}
		return
	}
	d := stack(t, l)
	var total uint64
	for _, s := range d.Segments() {
		total += uint64(s.Length)
	}
	if total > 1<<15 || l.VirtualSize()%SectorSize != 0 { // as much as the fuzzer's time allows
		return
	}
	var one, two bytes.Buffer
	if _, err := Commit(&one, d, Config{}); err != nil {
		if last := d.Segments(); len(last) > 0 && last[len(last)-1].End() > uint64(d.Size())/SectorSize {
			return // mentions what is not on its device
		}
		t.Fatal(err)
	}
	again := stack(t, open(t, one.Bytes()))
	if again.Size() != d.Size() {
		t.Fatal("size", again.Size(), d.Size())
	}
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	for _, s := range d.Segments() {
		for _, at := range []int64{int64(s.Start)*SectorSize - 7, int64(s.End())*SectorSize - 70} {
			at = max(at, 0)
			n, err := d.ReadAt(p, at)
			m, err2 := again.ReadAt(q, at)
			if n != m || (err != nil && err != io.EOF) || err != err2 || !bytes.Equal(p[:n], q[:m]) {
				t.Fatalf("at %d: %d %v, %d %v", at, n, err, m, err2)
			}
		}
	}
	if _, err := Commit(&two, again, Config{}); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Fatal("committed twice differs", err)
	}
}

func FuzzOpen(f *testing.F) {
	for _, v := range vectors.Load(f, "testdata") {
		f.Add(v.Data)
	}
	f.Fuzz(roundTrip)
}

func FuzzRegion(f *testing.F) {
	good := goodForVectors(f)
	for _, d := range damages {
		f.Add(uint32(d.off), d.value)
	}
	f.Fuzz(func(t *testing.T, off uint32, patch []byte) {
		b := bytes.Clone(good)
		copy(b[int(off)%len(b):], patch)
		roundTrip(t, b)
	})
}

// law: layers made of any ranges stack to what plain memory holds.
func FuzzWriter(f *testing.F) {
	f.Add([]byte{0, 3, 1, 2, 9, 0, 255, 0, 0, 1, 40, 7})
	f.Add([]byte{1, 1, 1, 1, 1, 1, 255, 255, 0, 200, 0, 255, 9, 9, 9})
	f.Fuzz(func(t *testing.T, script []byte) {
		m := newModel(sectors)
		var layers []*Layer
		var ops []op
		at := uint64(0)
		flush := func() {
			m.apply(ops)
			layers = append(layers, open(t, write(t, Config{VirtualSize: sectors * SectorSize}, ops, 3)))
			ops, at = nil, 0
		}
		for k := 0; k+3 <= len(script) && len(layers) < 20; k += 3 {
			start := at + uint64(script[k])
			n := uint64(script[k+1]) % 50
			if script[k] == 255 || start+n > sectors {
				flush()
				continue
			}
			ops = append(ops, op{start, n, script[k+2]})
			at = start + n
		}
		flush()
		wantModel(t, stack(t, layers...), m)
	})
}
