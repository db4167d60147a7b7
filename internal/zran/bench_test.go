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

// BenchmarkInflate compares: same layer, decompressed into nothing, interleaved when -count is more than one. MB/s are of
// output by wall clock; cpu-MB/s by the time the thread really had.
func BenchmarkInflate(b *testing.B) {
	data := layer(b)
	z := zran.NewReader(nil, zran.Options{})
	for _, c := range []struct {
		name string
		open func(io.Reader) (io.Reader, error)
	}{
		{"zran", func(r io.Reader) (io.Reader, error) { z.Reset(r); return z, nil }},
		{"klauspost", func(r io.Reader) (io.Reader, error) { return kgzip.NewReader(r) }},
		{"std", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			buf := make([]byte, 256<<10)
			var n int64
			stop := cpuClock()
			for b.Loop() {
				r, err := c.open(bytes.NewReader(data))
				if err != nil {
					b.Fatal(err)
				}
				// the same calls for all: plain reads
				if n, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf); err != nil {
					b.Fatal(err)
				}
			}
			if s := stop(); s > 0 {
				b.ReportMetric(float64(n)*float64(b.N)/1e6/s, "cpu-MB/s")
			}
			b.SetBytes(n)
		})
	}
}
