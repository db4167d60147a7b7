package gzindex

import (
	"bytes"
	"io"
	"math/rand"
	"testing"

	"github.com/convhost/convhost/internal/zran"
)

// BenchmarkWriter decompresses with an index and, as a measure, without.
func BenchmarkWriter(b *testing.B) {
	raw := sample(16 << 20)
	gz := gzipped(b, raw, 6)
	for name, opt := range map[string]func() zran.Options{
		"index": func() zran.Options {
			w := NewWriter(io.Discard, Config{})
			return zran.Options{OnMember: w.Member, OnBlock: w.Block}
		},
		"none": func() zran.Options { return zran.Options{} },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if _, err := zran.NewReader(bytes.NewReader(gz), opt()).WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReadAt reads 4 KiB at random places, and forward.
func BenchmarkReadAt(b *testing.B) {
	raw := sample(64 << 20)
	gz := gzipped(b, raw, 6)
	meta, _ := build(b, gz, Config{})
	p := make([]byte, 4096)
	for name, next := range map[string]func(k int64) int64{
		"random":  func(int64) int64 { return rand.Int63n(int64(len(raw) - len(p))) },
		"forward": func(k int64) int64 { return k * int64(len(p)) % int64(len(raw)-len(p)) },
	} {
		b.Run(name, func(b *testing.B) {
			f := open(b, meta, gz, Options{})
			b.SetBytes(int64(len(p)))
			k := int64(0)
			for b.Loop() {
				if _, err := f.ReadAt(p, next(k)); err != nil {
					b.Fatal(err)
				}
				k++
			}
		})
	}
}
