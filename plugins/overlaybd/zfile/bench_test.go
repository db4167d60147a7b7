package zfile

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"testing"

	"github.com/pierrec/lz4/v4"
)

func BenchmarkWriter(b *testing.B) {
	in := content(16 << 20)
	for _, a := range []Algorithm{LZ4, Zstd} {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%v/workers=%d", a, workers), func(b *testing.B) {
				b.SetBytes(int64(len(in)))
				b.ReportAllocs()
				for b.Loop() {
					w, err := NewParallelWriter(io.Discard, Config{Algorithm: a}, workers)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := w.Write(in); err != nil {
						b.Fatal(err)
					}
					info, err := w.Close()
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(float64(info.Size)/float64(info.Length), "ratio")
				}
			})
		}
	}
}

// Our encoder follows the reference; pierrec's makes other blocks and is here to compare speed.
func BenchmarkLZ4Block(b *testing.B) {
	in := content(1 << 20)
	var e lzEncoder
	out := make([]byte, 0, 8192)
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(int64(len(in)))
		for b.Loop() {
			for at := 0; at < len(in); at += 4096 {
				out = e.append(out[:0], in[at:at+4096])
			}
		}
	})
	b.Run("pierrec", func(b *testing.B) {
		var c lz4.Compressor
		b.SetBytes(int64(len(in)))
		for b.Loop() {
			for at := 0; at < len(in); at += 4096 {
				if _, err := c.CompressBlock(in[at:at+4096], out[:8192]); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	in := content(16 << 20)
	for _, a := range []Algorithm{LZ4, Zstd} {
		stored, _ := compress(b, Config{Algorithm: a}, 2, in, len(in))
		f, err := Open(bytes.NewReader(stored), int64(len(stored)), Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(a.String()+"/sequential", func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			p := make([]byte, 1<<20)
			for b.Loop() {
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.NewSectionReader(f, 0, f.Size())}, p); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(a.String()+"/random4K", func(b *testing.B) {
			r := rand.New(rand.NewSource(1))
			p := make([]byte, 4096)
			b.SetBytes(4096)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.ReadAt(p, int64(r.Intn(len(in)-8192))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
