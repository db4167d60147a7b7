package cas_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/host/cas"
)

// TestQuiet: the logger that containerd's packages share in a process belongs to the embedder.
func TestQuiet(t *testing.T) {
	var said bytes.Buffer
	old, level := log.L.Logger.Out, log.L.Logger.GetLevel()
	log.L.Logger.SetOutput(&said)
	defer log.L.Logger.SetOutput(old)
	if err := log.SetLevel("trace"); err != nil {
		t.Fatal(err)
	}
	defer log.L.Logger.SetLevel(level)
	s, err := cas.OpenEphemeral(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, text := range []string{"one", "two", "one"} {
		if _, err := cas.WriteDocument(t.Context(), s, "x/y", []byte(text), nil); err != nil {
			t.Fatal(err)
		}
	}
	w, err := s.Ingest(t.Context(), "half")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := s.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := cas.Copy(t.Context(), s, ocispec.Descriptor{MediaType: "x/y", Digest: digest.FromString("x"), Size: 1}, strings.NewReader("y"), nil); err == nil {
		t.Error("a wrong digest was taken")
	}
	if said.Len() > 0 {
		t.Errorf("the store says %s", said.String())
	}
}
