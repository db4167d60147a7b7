package ext4_test

import (
	"context"
	"crypto/sha256"
	"io"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
)

// applyWalk applies what a walk or diff gives to a tree, as a new layer.
func applyWalk(t *testing.T, tree *flatten.Tree, walk func(ext4.WalkFunc) error) (entries int) {
	t.Helper()
	tree.BeginLayer()
	err := walk(func(e *abi.Entry, f *ext4.File) error {
		entries++
		var sum [32]byte
		if f != nil {
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return err
			}
			h.Sum(sum[:0])
		}
		return tree.Apply(e, sum)
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// A diff applied to the lower tree gives the upper one, and nothing is given twice or for no reason.
func TestDiff(t *testing.T) {
	open := func(dev *ext4.Overlay) *ext4.Image {
		im, err := ext4.Open(dev, dev.Size())
		if err != nil {
			t.Fatal(err)
		}
		return im
	}
	check := func(lower, upper *ext4.Overlay) int {
		tree := flatten.New(flatten.Options{})
		applyWalk(t, tree, func(fn ext4.WalkFunc) error { return open(lower).Walk(context.Background(), fn) })
		n := applyWalk(t, tree, func(fn ext4.WalkFunc) error { return ext4.Diff(context.Background(), open(lower), open(upper), fn) })
		compare(t, upper, tree)
		return n
	}
	for seed := range uint64(40) {
		a, _ := applyRandom(t, seed, 2)
		b, _ := applyRandom(t, seed+100, 2)
		if a == nil || b == nil {
			continue
		}
		check(a, b)
		if n := check(a, a); n != 0 {
			t.Errorf("seed %d: %d entries between equal trees", seed, n)
		}
	}
	base, err := good()
	if err != nil {
		t.Fatal(err)
	}
	for l, want := range map[string]int{"small=changed": 1, ".wh.indexed": 2, "acls/x": 1, "large@600": 1, "indexed/0@600 l=>large@640": 302, ".wh.deep deep": 1, "fifo/": 1} {
		top := ext4.NewOverlay(base, base.Size(), nil)
		ap, err := ext4.NewApplier(top, ext4.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range script(t, l) {
			if err := ap.Apply(t.Context(), &m.Entry, strings.NewReader(m.body)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ap.Commit(); err != nil {
			t.Fatal(err)
		}
		if n := check(base, top); n != want {
			t.Errorf("%q: %d entries, want %d", l, n, want)
		}
	}
}
