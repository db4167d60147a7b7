package session

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// TestGzipWriter: the standard library reads what comes out, and the bytes depend on neither the number of workers nor
// the sizes of writes.
func TestGzipWriter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 5*gzipPiece)
	for k := range text {
		text[k] = byte('a' + r.IntN(8))
	}
	for _, n := range []int{0, 1, gzipPiece - 1, gzipPiece, gzipPiece + 1, 3 * gzipPiece, len(text)} {
		for _, level := range []int{-1, 1, 4, 9} {
			var first []byte
			for _, workers := range []int{0, 1, 2, 7} {
				var out bytes.Buffer
				z, err := newGzip(&out, level, workers)
				if err != nil {
					t.Fatal(err)
				}
				for rest := text[:n]; len(rest) > 0; {
					k := min(len(rest), 1+r.IntN(gzipPiece))
					if got, err := z.Write(rest[:k]); got != k || err != nil {
						t.Fatal(got, err)
					}
					rest = rest[k:]
				}
				if err := z.Close(); err != nil {
					t.Fatal(err)
				}
				if first == nil {
					first = bytes.Clone(out.Bytes())
					back, err := gzip.NewReader(&out)
					if err != nil {
						t.Fatal(err)
					}
					back.Multistream(false)
					if plain, err := io.ReadAll(back); err != nil || !bytes.Equal(plain, text[:n]) || out.Len() > 0 || back.Name != "" || !back.ModTime.IsZero() {
						t.Fatalf("%d bytes at level %d: read %d, %v; %d are left", n, level, len(plain), err, out.Len())
					}
				} else if !bytes.Equal(out.Bytes(), first) {
					t.Fatalf("%d bytes at level %d: %d workers give other bytes", n, level, workers)
				}
			}
		}
	}
	if _, err := newGzip(io.Discard, 99, 1); err == nil {
		t.Error("level 99 is accepted")
	}
}

// TestGzipWriterFails: an error of what is behind comes back, and nothing is left running.
func TestGzipWriterFails(t *testing.T) {
	for _, workers := range []int{1, 3} {
		z, err := newGzip(failing{}, -1, workers)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if _, err = z.Write(make([]byte, gzipPiece)); err != nil {
				break
			}
		}
		if !errors.Is(err, errFailing) {
			t.Errorf("%d workers: %v", workers, err)
		}
		z.abandon()
	}
}

var errFailing = errors.New("disk full")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFailing }
