package zran_test

import (
	"bytes"
	"testing"

	"github.com/convhost/convhost/internal/zran"
)

// FuzzDeflate: the standard library and zran agree on every input.
func FuzzDeflate(f *testing.F) {
	for _, b := range hostile() {
		f.Add(b)
	}
	for _, raw := range texts(3000) {
		for _, level := range levels {
			f.Add(deflated(raw, level))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) { compare(t, ours(b, zran.Options{Format: zran.Deflate}), stdFlate(b)) })
}

// FuzzGzip: likewise, headers and trailers included.
func FuzzGzip(f *testing.F) {
	for _, raw := range texts(300) {
		f.Add(append(gzipped(raw, 6), gzipped(raw, 1)...))
	}
	f.Add([]byte("\x1f\x8b\x08\x1f\x00\x00\x00\x00\x00\x03\x02\x00abname\x00comment\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, want := ours(b, zran.Options{}), stdGzip(b)
		if want.err != nil && !bytes.HasPrefix(b, []byte("\x1f\x8b\x08")) {
			if got.err == nil {
				t.Fatal("accepted")
			}
			return // the library wants ten bytes before it looks at them, and calls nothing at all io.EOF
		}
		compareGzip(t, got, want)
	})
}
