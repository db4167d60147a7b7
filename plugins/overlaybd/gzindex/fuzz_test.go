package gzindex

import (
	"bytes"
	"testing"

	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

// law: any bytes are refused with a known class by Open or by a read, or the content has the size that the index says; and when
// Check finds nothing it is what gzip gives.
func readOrRefuse(t *testing.T, meta, gz []byte) {
	f, err := Open(bytes.NewReader(meta), int64(len(meta)), bytes.NewReader(gz), int64(len(gz)), Options{MaxEntries: 1 << 12, Pool: NewPool(1<<20, 1)})
	if err != nil {
		vectors.Known(t, err)
		return
	}
	errs, _ := Check(bytes.NewReader(meta), int64(len(meta)), bytes.NewReader(gz), int64(len(gz)), Options{MaxEntries: 1 << 12})
	for _, err := range errs {
		vectors.Known(t, err)
	}
	got, err := readAll(f)
	if err != nil {
		vectors.Known(t, err)
		if len(errs) == 0 {
			t.Fatal("check found nothing, read says", err)
		}
		return
	}
	if int64(len(got)) != f.Size() {
		t.Fatal("short", len(got), f.Size())
	}
	if len(errs) == 0 {
		if _, raw, err := tryBuild(gz, Config{}); err != nil || !bytes.Equal(raw, got) {
			t.Fatal("content differs", err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	var gz []byte
	for _, v := range vectors.Load(f, "testdata") {
		if v.Name == "layer" {
			gz = v.Data
		}
	}
	for _, v := range vectors.Load(f, "testdata") {
		if v.Name != "layer" {
			f.Add(v.Data, gz)
		}
	}
	f.Fuzz(readOrRefuse)
}

// FuzzHeader and FuzzEntry change a good file behind its checksums.
func FuzzHeader(f *testing.F) {
	gz := layerForVectors(f)
	good, _ := build(f, gz, Config{Span: 100_000})
	f.Add(uint16(offEntries), []byte{9})
	f.Add(uint16(offRaw), []byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, off uint16, patch []byte) {
		meta := bytes.Clone(good)
		copy(meta[int(off)%HeaderSize:HeaderSize], patch)
		readOrRefuse(t, sign(meta), gz)
	})
}

func FuzzEntry(f *testing.F) {
	gz := layerForVectors(f)
	good, _ := build(f, gz, Config{Span: 100_000})
	f.Add(uint16(0), []byte{1})
	f.Add(uint16(entrySize+24), []byte{7})
	f.Fuzz(func(t *testing.T, off uint16, patch []byte) {
		meta := withEntries(bytes.Clone(good), func(e []byte) []byte {
			copy(e[int(off)%len(e):], patch)
			return e
		})
		readOrRefuse(t, meta, gz)
	})
}

// law: a gzip file that zran reads to the end and that has one member gets an index that Check accepts.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("some content"), uint16(900), uint16(7), uint8(6), uint32(1000))
	f.Add([]byte{0}, uint16(60000), uint16(4096), uint8(0), uint32(4096))
	f.Add([]byte{}, uint16(0), uint16(1), uint8(9), uint32(1))
	f.Fuzz(func(t *testing.T, p []byte, times, step uint16, level uint8, span uint32) {
		raw := bytes.Repeat(p, int(times)+1)
		raw = raw[:min(len(raw), 300_000)]
		gz := gzipped(t, raw, int(level%10))
		if step > 100 {
			gz = flushed(t, raw, int(step))
		}
		meta, _ := build(t, gz, Config{Span: int64(span%(1<<31)) + 1000})
		if errs, notes := Check(bytes.NewReader(meta), int64(len(meta)), bytes.NewReader(gz), int64(len(gz)), Options{}); len(errs)+len(notes) > 0 {
			t.Fatal(errs, notes)
		}
		if got, err := readAll(open(t, meta, gz, Options{})); err != nil || !bytes.Equal(got, raw) {
			t.Fatal(err)
		}
	})
}
