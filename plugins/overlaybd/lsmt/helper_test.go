package lsmt

import (
	"bytes"
	"io"
	"math/rand"
	"testing"
)

// op is a range of a layer in the words of the tests: sectors, and what they hold.
type op struct {
	start, n uint64
	fill     byte // 0: zero flag
}

// model is the oracle: the device as plain bytes, and which sectors were mentioned.
type model struct {
	data []byte
	set  []bool
}

func newModel(sectors int) *model {
	return &model{make([]byte, sectors*SectorSize), make([]bool, sectors)}
}

func (m *model) apply(ops []op) {
	for _, o := range ops {
		for s := o.start; s < o.start+o.n; s++ {
			m.set[s] = true
			copy(m.data[s*SectorSize:], body(o, s, 1))
		}
	}
}

// body is the content of n sectors of o from sector s on; every sector differs from the others.
func body(o op, s, n uint64) []byte {
	out := make([]byte, n*SectorSize)
	if o.fill == 0 {
		return out
	}
	for k := range out {
		out[k] = o.fill ^ byte((s+uint64(k/SectorSize))*7)
	}
	return out
}

// write makes a layer of ops; each is cut into calls of at most step sectors.
func write(t testing.TB, c Config, ops []op, step uint64) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := NewWriter(&buf, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range ops {
		for s := o.start; s < o.start+o.n; s += step {
			n := min(step, o.start+o.n-s)
			if o.fill == 0 {
				err = w.Zero(int64(s)*SectorSize, int64(n)*SectorSize)
			} else {
				err = w.Data(int64(s)*SectorSize, body(o, s, n))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	info, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != int64(buf.Len()) {
		t.Fatalf("info says %d bytes, got %d", info.Size, buf.Len())
	}
	return buf.Bytes()
}

func open(t testing.TB, b []byte) *Layer {
	t.Helper()
	l, err := Open(bytes.NewReader(b), int64(len(b)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func stack(t testing.TB, layers ...*Layer) *Device {
	t.Helper()
	d, err := Stack(layers...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func readAll(t testing.TB, d *Device) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(d, 0, d.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// randomOps returns ascending ranges on a device of the given sectors.
func randomOps(r *rand.Rand, sectors uint64) []op {
	var out []op
	for at := uint64(r.Intn(9)); at < sectors; {
		n := min(uint64(1+r.Intn(12)), sectors-at)
		out = append(out, op{at, n, byte(r.Intn(4) * 37)})
		at += n + uint64(r.Intn(6))
	}
	return out
}

func wantModel(t *testing.T, d *Device, m *model) {
	t.Helper()
	if got := readAll(t, d); !bytes.Equal(got, m.data) {
		t.Fatal("the device differs from the model")
	}
	set := make([]bool, len(m.set))
	for _, s := range d.Segments() {
		for k := s.Start; k < s.End(); k++ {
			set[k] = true
		}
	}
	for k := range set {
		if set[k] != m.set[k] {
			t.Fatalf("sector %d mentioned: %v, want %v", k, set[k], m.set[k])
		}
	}
}
