package lsmt

import (
	"bytes"
	"io"
	"math/rand"
	"testing"
)

func benchLayer(b *testing.B, entries int, step uint64) []byte {
	var buf bytes.Buffer
	w, err := NewWriter(&buf, Config{VirtualSize: 64 << 30})
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, SectorSize)
	for k := range entries {
		if err := w.Data(int64(k)*int64(step)*SectorSize, p); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

func BenchmarkOpen(b *testing.B) {
	data := benchLayer(b, 100_000, 9)
	b.ReportAllocs()
	for b.Loop() {
		open2(b, data)
	}
	b.ReportMetric(100_000*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mentries/s")
}

func open2(b *testing.B, data []byte) *Layer {
	l, err := Open(bytes.NewReader(data), int64(len(data)), Options{})
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func BenchmarkStack255(b *testing.B) {
	var layers []*Layer
	for k := range MaxLayers {
		layers = append(layers, open2(b, benchLayer(b, 500, uint64(2+k%7))))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Stack(layers...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadAt4K(b *testing.B) {
	d, err := Stack(open2(b, benchLayer(b, 100_000, 9)))
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewSource(1))
	p := make([]byte, 4096)
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.ReadAt(p, int64(r.Intn(900_000))*SectorSize); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	p := make([]byte, 4096)
	b.SetBytes(4096)
	w, err := NewWriter(io.Discard, Config{})
	if err != nil {
		b.Fatal(err)
	}
	off := int64(0)
	for b.Loop() {
		if err := w.Data(off, p); err != nil {
			b.Fatal(err)
		}
		off += 4096
	}
}
