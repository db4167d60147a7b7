package zran_test

import (
	"bytes"
	"fmt"
	"io"
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

// FuzzResume: whatever is accepted comes out the same from each of its blocks on, and through a reader of odd pieces.
func FuzzResume(f *testing.F) {
	for _, raw := range texts(2000) {
		f.Add(append(deflated(raw, 6), deflated(raw, 1)...), uint8(3))
	}
	f.Add(handmatched()[:33000], uint8(200))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		var cps []zran.Checkpoint
		z := zran.NewReader(bytes.NewReader(b), zran.Options{Format: zran.Deflate, OnBlock: func(b *zran.Block) error {
			if len(cps) < 20 {
				cps = append(cps, b.Checkpoint())
			}
			return nil
		}})
		want, wantErr := io.ReadAll(z)
		for _, c := range cps {
			src := pieces{bytes.NewReader(b[c.In:]), int(piece) + 1}
			z.ResetAt(src, c)
			got, err := io.ReadAll(z)
			if !bytes.Equal(got, want[c.Out:]) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Fatalf("from %d, %d: %d bytes, %v; want %d, %v", c.In, c.Out, len(got), err, len(want)-int(c.Out), wantErr)
			}
		}
	})
}

// pieces reads n bytes at most.
type pieces struct {
	r io.Reader
	n int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.n)]) }
