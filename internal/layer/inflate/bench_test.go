package inflate_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/convhost/convhost/internal/layer/inflate"
)

// BenchmarkGzipLayer opens a Debian layer of the shared test data and reads it to the end, digests included.
func BenchmarkGzipLayer(b *testing.B) {
	dir := os.Getenv("CONVHOST_TESTDATA")
	if dir == "" {
		b.Skip("CONVHOST_TESTDATA is not set: no Debian layer")
	}
	stored, err := os.ReadFile(filepath.Join(dir, "images/debian-multi/blobs/sha256/f4f78518ff8ea852cbb6aea04899050308b10d9a91d952273d398bc9b5e2e933"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := inflate.Open(b.Context(), bytes.NewReader(stored), inflate.Options{})
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, s)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(n)
		s.Close()
	}
}
