package cas

import (
	"bytes"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestAhead: large ingests whose bytes are on their way to disk before the commit are what was written, also after
// they were begun again.
func TestAhead(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		s, err := open(t.Context(), t.TempDir()+"/store", Options{NoSync: noSync})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		w, err := s.Ingest(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		piece := bytes.Repeat([]byte("0123456789abcdef"), aheadStep/64)
		write := func(n int) {
			t.Helper()
			for range n {
				if _, err := w.Write(piece); err != nil {
					t.Fatal(err)
				}
			}
		}
		write(9)
		if err := w.Truncate(); err != nil {
			t.Fatal(err)
		}
		write(5)
		want := digest.FromBytes(bytes.Repeat(piece, 5))
		if _, err := w.Commit(t.Context(), int64(5*len(piece)), want, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Info(t.Context(), want); err != nil {
			t.Error(err)
		}
	}
}
