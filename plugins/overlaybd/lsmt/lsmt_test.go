package lsmt

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

const sectors = 400

func TestStackEqualsModel(t *testing.T) {
	for seed := range int64(40) {
		r := rand.New(rand.NewSource(seed))
		m := newModel(sectors)
		var layers []*Layer
		for range 1 + r.Intn(7) {
			ops := randomOps(r, sectors)
			m.apply(ops)
			layers = append(layers, open(t, write(t, Config{VirtualSize: sectors * SectorSize}, ops, 5)))
		}
		d := stack(t, layers...)
		wantModel(t, d, m)
		for range 50 {
			off := r.Intn(len(m.data))
			p := make([]byte, r.Intn(3000))
			n, err := d.ReadAt(p, int64(off))
			if want := min(len(p), len(m.data)-off); n != want || (err == nil) != (n == len(p)) || (err != nil && err != io.EOF) {
				t.Fatalf("read %d at %d: %d, %v", len(p), off, n, err)
			}
			if !bytes.Equal(p[:n], m.data[off:off+n]) {
				t.Fatalf("read %d at %d differs", len(p), off)
			}
		}
		var one bytes.Buffer
		if _, err := Commit(&one, d, Config{}); err != nil {
			t.Fatal(err)
		}
		wantModel(t, stack(t, open(t, one.Bytes())), m)
	}
}

func TestCutsOfCallsDoNotMatter(t *testing.T) {
	ops := []op{{3, 40000, 9}, {40003, 17000, 0}, {57100, 20, 1}}
	c := Config{VirtualSize: 60000 * SectorSize, Comment: "x"}
	want := write(t, c, ops, 64)
	for _, step := range []uint64{1, 7, 8, 1000, 1 << 20} {
		if got := write(t, c, ops, step); !bytes.Equal(got, want) {
			t.Fatalf("step %d differs", step)
		}
	}
	lengths := []uint16{}
	for _, s := range open(t, want).Segments() {
		lengths = append(lengths, s.Length)
	}
	if len(lengths) != 6 || lengths[0] != 16320 || lengths[2] != 40000-2*16320 || lengths[3] != 16320 {
		t.Fatal(lengths)
	}
}

// The bytes of a small layer, from the format's tables.
func TestBytes(t *testing.T) {
	id, err := ParseUUID("c02fb491-b4d4-4904-8684-a014d032af78")
	if err != nil {
		t.Fatal(err)
	}
	b := write(t, Config{VirtualSize: 64 << 30, UUID: id, Comment: "hi"}, []op{{16, 8, 1}, {4096, 2, 0}, {5000, 1, 2}}, 8)
	want := []struct {
		off int
		hex string
	}{
		{0, "4c534d54000102006 57e63d29444084ca2d2c8ec4fcfae8a 86010000 07000000 0000000000000000 0000000000000000 0000000010000000"},
		{56, hex.EncodeToString([]byte("C02FB491-B4D4-4904-8684-A014D032AF78\x0000000000-0000-0000-0000-000000000000\x00")) + "0000 0101 686900"},
		{4096 + 9*512, "1000000000002000 0800000000000000 0010000000000800 1000000000008000 8813000000000400 1000000000000000 ffffffffffff0300 0000000000000000"},
		{4096 + 9*512 + 4096 + 24, "86010000 06000000 0022000000000000 0001000000000000"},
	}
	for _, w := range want {
		raw, err := hex.DecodeString(strings.ReplaceAll(w.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := b[w.off : w.off+len(raw)]; !bytes.Equal(got, raw) {
			t.Errorf("at %d:\n got %x\nwant %x", w.off, got, raw)
		}
	}
	if len(b) != 4096+9*512+4096+4096 {
		t.Error("size", len(b))
	}
	l := open(t, b)
	if l.Header().UUID != id || l.Trailer().Comment != "hi" || l.VirtualSize() != 64<<30 || l.Trailer().IndexSize != 256 {
		t.Errorf("%+v", l.Trailer())
	}
	if errs, notes := Check(bytes.NewReader(b), int64(len(b)), Options{}); len(errs)+len(notes) != 0 {
		t.Error(errs, notes)
	}
}

func TestEmptyLayer(t *testing.T) {
	b := write(t, Config{}, nil, 1)
	if len(b) != 8192 {
		t.Fatal(len(b))
	}
	top := open(t, b)
	low := open(t, write(t, Config{VirtualSize: 4096}, []op{{0, 8, 3}}, 8))
	d := stack(t, low, top)
	if d.Size() != 4096 || d.Segments()[0].Tag != 1 {
		t.Fatal(d.Size(), d.Segments())
	}
	if !bytes.Equal(readAll(t, d), body(op{0, 8, 3}, 0, 8)) {
		t.Fatal("content")
	}
}

// TestTruncation cuts a good layer at each edge, appends to it, and reads it through odd readers.
func TestTruncation(t *testing.T) {
	good := write(t, Config{VirtualSize: 1 << 20}, []op{{0, 9, 1}, {20, 3, 2}}, 8)
	size := int64(len(good))
	for _, cut := range vectors.Edges(size, 0, 8, HeaderSize, HeaderSize+12*512, size-HeaderSize, size) {
		b := good[:cut]
		l, err := Open(bytes.NewReader(b), cut, Options{})
		if l != nil || !errors.Is(err, abi.ErrTruncated) {
			t.Errorf("cut at %d: %v", cut, err)
		}
		if l, err := Open(bytes.NewReader(b), size, Options{}); l != nil || !errors.Is(err, abi.ErrTruncated) {
			t.Errorf("cut at %d, size says %d: %v", cut, size, err)
		}
		if _, err := Open(vectors.Failing{B: good, At: cut}, size, Options{}); !errors.Is(err, vectors.ErrRead) || abi.ClassOf(err) != abi.ErrIO {
			t.Errorf("fails at %d: %v", cut, err)
		}
	}
	if _, err := Open(bytes.NewReader(append(bytes.Clone(good), 0)), size+1, Options{}); !errors.Is(err, abi.ErrTruncated) {
		t.Errorf("garbage: %v", err)
	}
	for _, r := range vectors.Odd(good) {
		l, err := Open(r, r.Size, Options{})
		if err != nil {
			t.Fatal(r.Name, err)
		}
		readAll(t, stack(t, l))
	}
}

func TestMissingData(t *testing.T) {
	good := write(t, Config{VirtualSize: 8192}, []op{{0, 16, 1}}, 8)
	l := open(t, good)
	l.data = bytes.NewReader(good[:HeaderSize+1000])
	n, err := stack(t, l).ReadAt(make([]byte, 8192), 0)
	var fe *abi.FormatError
	if n != 0 || !errors.As(err, &fe) || fe.Class != abi.ErrTruncated || fe.Off != HeaderSize+1000 {
		t.Error(n, err)
	}
}

func TestStackLimits(t *testing.T) {
	l := open(t, write(t, Config{VirtualSize: 4096}, []op{{0, 1, 1}, {2, 1, 1}, {4, 1, 1}}, 8))
	many := make([]*Layer, MaxLayers)
	for k := range many {
		many[k] = l
	}
	if d := stack(t, many...); len(d.Segments()) != 3 || d.Segments()[0].Tag != 0 {
		t.Error(d.Segments())
	}
	if _, err := Stack(append(many, l)...); !errors.Is(err, abi.ErrLimit) {
		t.Error(err)
	}
	if _, err := Stack(); !errors.Is(err, abi.ErrInvalid) {
		t.Error(err)
	}
	if _, err := StackLimit(2, l); !errors.Is(err, abi.ErrLimit) {
		t.Error(err)
	}
	if _, err := StackLimit(4, l, open(t, write(t, Config{}, []op{{1, 1, 1}, {3, 1, 1}}, 8))); !errors.Is(err, abi.ErrLimit) {
		t.Error(err)
	}
}

func TestWriterRefuses(t *testing.T) {
	for name, f := range map[string]func(w *Writer) error{
		"order":     func(w *Writer) error { w.Zero(1024, 512); return w.Data(512, make([]byte, 512)) },
		"overlap":   func(w *Writer) error { w.Zero(0, 1024); return w.Zero(512, 512) },
		"alignment": func(w *Writer) error { return w.Data(0, make([]byte, 100)) },
		"offset":    func(w *Writer) error { return w.Zero(7, 512) },
		"end":       func(w *Writer) error { return w.Zero(0, 1<<20+512) },
		"negative":  func(w *Writer) error { return w.Zero(-512, 512) },
		"remote":    func(w *Writer) error { return w.Remote(0, 512, 512) },
		"closed":    func(w *Writer) error { w.Close(); return w.Zero(0, 512) },
		"sticky":    func(w *Writer) error { w.Zero(7, 512); return w.Zero(0, 512) },
	} {
		w, err := NewWriter(io.Discard, Config{VirtualSize: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if err := f(w); !errors.Is(err, abi.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := w.Close(); err == nil {
			t.Errorf("%s: closed", name)
		}
	}
	for _, c := range []Config{{VirtualSize: 5}, {VirtualSize: -512}, {VirtualSize: 1 << 60}, {Comment: strings.Repeat("x", 257)}} {
		if _, err := NewWriter(io.Discard, c); !errors.Is(err, abi.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	w, _ := NewWriter(io.Discard, Config{MaxEntries: 256})
	var err error
	for k := int64(0); err == nil; k++ {
		err = w.Zero(k*1024, 512)
	}
	if !errors.Is(err, abi.ErrLimit) || len(w.segments) != 256 {
		t.Error(err, len(w.segments))
	}
	if _, err := NewWriter(failingWriter{}, Config{}); !errors.Is(err, abi.ErrIO) {
		t.Error(err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestUUID(t *testing.T) {
	for _, s := range []string{"", "c02fb491-b4d4-4904-8684-a014d032af7", "c02fb491-b4d4-4904-8684-a014d032af7x", "c02fb491xb4d4-4904-8684-a014d032af78"} {
		if _, err := ParseUUID(s); !errors.Is(err, abi.ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
