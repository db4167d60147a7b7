package judges

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/internal/layer/inflate"
	"github.com/convhost/convhost/test/ocidir"
)

// flattened applies the layers of an ordinary image.
func flattened(t testing.TB, layers ...io.Reader) *flatten.Tree {
	t.Helper()
	tree := flatten.New(flatten.Options{})
	for i, l := range layers {
		if _, err := tree.ApplyTar(t.Context(), layer.NewReader(l, layer.Limits{})); err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
	}
	return tree
}

// sourceTree flattens the image "DIR:TAG".
func sourceTree(t testing.TB, ref, platform string) *flatten.Tree {
	t.Helper()
	dir, tag, _ := strings.Cut(ref, ":")
	d := ocidir.Open(t, dir)
	tree := flatten.New(flatten.Options{})
	for _, l := range d.Manifest(tag, platform).Layers {
		f, err := os.Open(d.Blob(l.Digest))
		if err != nil {
			t.Fatal(err)
		}
		s, err := inflate.Open(t.Context(), f, inflate.Options{MediaType: l.MediaType, StoredDigest: digest.Digest(l.Digest), StoredSize: l.Size})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tree.ApplyTar(t.Context(), layer.NewReader(s, layer.Limits{})); err != nil {
			t.Fatal(err)
		}
		s.Close()
		f.Close()
	}
	return tree
}

// wantEqualTrees compares an unpacked image with its layers.
func wantEqualTrees(t testing.TB, got []byte, layers [][]byte) {
	t.Helper()
	var readers []io.Reader
	for _, l := range layers {
		readers = append(readers, bytes.NewReader(l))
	}
	diffs(t, flattened(t, readers...), flattened(t, bytes.NewReader(got)), flatten.CompareOptions{WholeSeconds: true, IgnoreRoot: true})
}

// diffs reports what differs between a source and what was made of it.
func diffs(t testing.TB, want, got *flatten.Tree, opt flatten.CompareOptions) {
	t.Helper()
	report(t, flatten.Compare(want.Records(), got.Records(), opt))
}

func report(t testing.TB, all []flatten.Difference) {
	t.Helper()
	for _, d := range all[:min(len(all), 20)] {
		t.Error(d)
	}
	if len(all) > 20 {
		t.Errorf("and %d more differences", len(all)-20)
	}
}
