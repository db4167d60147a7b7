package judges

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

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
	tree := flatten.New(flatten.Options{})
	for _, l := range sourceLayers(t, ref, platform) {
		l.apply(t, tree)
	}
	return tree
}

// sourceLayer is a layer of an image to convert.
type sourceLayer struct {
	descriptor
	file string
}

// sourceLayers lists the layers of the image "DIR:TAG", lowest first.
func sourceLayers(t testing.TB, ref, platform string) (out []sourceLayer) {
	t.Helper()
	dir, tag, _ := strings.Cut(ref, ":")
	d := ocidir.Open(t, dir)
	for _, l := range d.Manifest(tag, platform).Layers {
		out = append(out, sourceLayer{l, d.Blob(l.Digest)})
	}
	return out
}

// tar calls use with the layer's tar.
func (l sourceLayer) tar(t testing.TB, use func(io.Reader) error) {
	t.Helper()
	f, err := os.Open(l.file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := inflate.Open(t.Context(), f, inflate.Options{MediaType: l.MediaType, StoredDigest: l.Digest, StoredSize: l.Size})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := use(s); err != nil {
		t.Fatalf("layer %s: %v", l.Digest, err)
	}
}

// apply puts the layer upon a tree.
func (l sourceLayer) apply(t testing.TB, tree *flatten.Tree) {
	t.Helper()
	l.tar(t, func(r io.Reader) error {
		_, err := tree.ApplyTar(t.Context(), layer.NewReader(r, layer.Limits{}))
		return err
	})
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
