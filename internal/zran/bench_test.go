package zran_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/convhost/convhost/internal/zran"
	kgzip "github.com/klauspost/compress/gzip"
)

// debianLayer is a layer of the shared test data; it is used when CONVHOST_TESTDATA names the folder.
const debianLayer = "images/debian-multi/blobs/sha256/f4f78518ff8ea852cbb6aea04899050308b10d9a91d952273d398bc9b5e2e933"

func layer(b *testing.B) []byte {
	dir := os.Getenv("CONVHOST_TESTDATA")
	if dir == "" {
		b.Log("CONVHOST_TESTDATA is not set: generated data instead of a Debian layer")
		var all []byte
		for _, name := range []string{"mixed", "skewed", "text"} {
			all = append(all, texts(4 << 20)[name]...)
		}
		return gzipped(all, 6)
	}
	data, err := os.ReadFile(filepath.Join(dir, debianLayer))
	if err != nil {
		b.Fatal(err)
	}
	return data
}

// BenchmarkInflate decompresses the same layer with each library in turn, so that all of them meet the same machine. MB/s
// are of output, by the processor time that the thread had (elsewhere than on Linux by wall clock); "faster" is by how much
// zran outdoes klauspost.
func BenchmarkInflate(b *testing.B) {
	data := layer(b)
	z := zran.NewReader(nil, zran.Options{})
	libs := []struct {
		name string
		open func(io.Reader) (io.Reader, error)
		s    float64
	}{
		{name: "zran", open: func(r io.Reader) (io.Reader, error) { z.Reset(r); return z, nil }},
		{name: "klauspost", open: func(r io.Reader) (io.Reader, error) { return kgzip.NewReader(r) }},
		{name: "std", open: func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
	}
	buf := make([]byte, 256<<10)
	var out int64
	for b.Loop() {
		for i := range libs {
			stop := cpuClock()
			r, err := libs[i].open(bytes.NewReader(data))
			if err != nil {
				b.Fatal(err)
			}
			// the same calls for all: plain reads
			if out, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf); err != nil {
				b.Fatal(err)
			}
			libs[i].s += stop()
		}
	}
	for _, l := range libs {
		b.ReportMetric(float64(out)*float64(b.N)/1e6/l.s, l.name+"-MB/s")
	}
	b.ReportMetric(libs[1].s/libs[0].s, "faster")
	b.ReportMetric(0, "ns/op")
}
