package ext4_test

import (
	"strings"
	"testing"

	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
)

// chain makes a file system, applies layers and judges each. dev is nil if a layer was refused, by flatten too.
func chain(t *testing.T, size int64, mk ext4.MkfsOptions, layers ...[]member) (dev *ext4.Overlay, tree *flatten.Tree) {
	t.Helper()
	dev, tree = ext4.NewOverlay(nil, size, nil), flatten.New(flatten.Options{})
	for i, l := range layers {
		if i > 0 {
			if !next(t, dev, tree, l) {
				return nil, tree
			}
			continue
		}
		ap, err := ext4.Format(dev, mk, ext4.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := applyTo(t, ap, tree, l); err != nil {
			return nil, tree
		}
		judged(t, dev, tree)
	}
	return dev, tree
}

// next applies one more layer.
func next(t *testing.T, dev *ext4.Overlay, tree *flatten.Tree, layer []member) bool {
	t.Helper()
	ap, err := ext4.NewApplier(dev, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := applyTo(t, ap, tree, layer); err != nil {
		return false
	}
	judged(t, dev, tree)
	return true
}

func judged(t *testing.T, dev *ext4.Overlay, tree *flatten.Tree) {
	t.Helper()
	compare(t, dev, tree)
	for _, err := range ext4.Check(dev, dev.Size()) {
		t.Errorf("check: %v", err)
	}
	judge(t, dev)
	if t.Failed() {
		t.FailNow()
	}
}

func TestMkfs(t *testing.T) {
	for _, size := range []int64{4 << 20, 64 << 20, 128 << 20, 129<<20 + 8192, 1 << 30, 64 << 30, 256 << 30} {
		for _, sums := range []bool{false, true} {
			dev, _ := chain(t, size, ext4.MkfsOptions{Checksums: sums}, nil, script(t, "a b/ b/c l->"+strings.Repeat("x", 100)))
			// Upstream's applier caches 32 blocks together, but not superblock and descriptors: nothing else that changes may be near them.
			top := ext4.NewOverlay(dev, size, nil)
			ap, err := ext4.NewApplier(top, ext4.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range script(t, "x y/z b/d") {
				if err := ap.Apply(t.Context(), &m.Entry, strings.NewReader(m.body)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := ap.Commit(); err != nil {
				t.Fatal(err)
			}
			gdt := 1 + uint64((size+128<<20-1)/(128<<20)*64+4095)/4096
			for _, r := range top.Changes() {
				if end := r.Block + r.Count; end > gdt && r.Block < (gdt+31)/32*32 {
					t.Errorf("%d bytes: blocks %d to %d changed, descriptors end at %d", size, r.Block, end, gdt)
				}
			}
			t.Logf("%d bytes, checksums %v: %d blocks changed", size, sums, dev.Changed())
		}
	}
}

func TestRules(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers []string
	}{
		{"sorted", []string{"b a/ a/x a.b a/y/ a-"}},
		{"implied", []string{"a/b/c"}},
		{"implied, then listed", []string{"a/b a/"}},
		{"listed below", []string{"a/ a/b=1", "a/b=2"}},
		{"file for directory", []string{"a/ a/b", "a"}},
		{"directory for file", []string{"a", "a/ a/b"}},
		{"directory for link", []string{"d/ d/x a->d", "a/"}},
		{"last one wins", []string{"a=1 a=2"}},
		{"whiteout", []string{"a/ a/x a/y b", "a/.wh.x .wh.b"}},
		{"whiteout of a directory", []string{"a/ a/x/ a/x/y b", ".wh.a"}},
		{"whiteout of nothing", []string{"a", ".wh.b"}},
		{"whiteout in the bottom layer", []string{"a .wh.a"}},
		{"whiteout implies its parent", []string{"", "x/.wh.a"}},
		{"whiteout does not keep its parent", []string{"", "x/.wh.a .wh.x"}},
		{"whiteout before", []string{"a=old", ".wh.a a=new"}},
		{"whiteout after", []string{"a=old", "a=new .wh.a"}},
		{"whiteout before, directory", []string{"a/ a/x", ".wh.a a/y"}},
		{"whiteout after, directory", []string{"a/ a/x", "a/y .wh.a"}},
		{"whiteout after, listed", []string{"a/ a/x", "a/ a/y .wh.a"}},
		{"opaque", []string{"a/ a/x a/d/ a/d/y b", "a/ a/.wh..wh..opq a/new"}},
		{"opaque after", []string{"a/ a/x a/d/ a/d/y b", "a/ a/new a/d/z a/.wh..wh..opq"}},
		{"opaque root", []string{"a b/c", ".wh..wh..opq d"}},
		{"opaque twice", []string{"a/x", "a/.wh..wh..opq a/y a/.wh..wh..opq"}},
		{"two layers later", []string{"a/x", ".wh.a", "a/y"}},
		{"hard link", []string{"a=1 b=>a"}},
		{"hard link, first name sorted", []string{"z=1 b=>z"}},
		{"hard link to a lower file", []string{"a=1", "b=>a"}},
		{"hard link whited out", []string{"a=1", "b=>a .wh.b .wh.a"}},
		{"hard link below, whited out", []string{"a=1 d/ d/x=>a", "d/y=>a d/.wh..wh..opq .wh.a"}},
		{"one name replaced", []string{"a=1 b=>a c=>a", "a=2"}},
		{"one name left", []string{"a=1 b=>a", ".wh.a"}},
		{"hard link to a link", []string{"s->t h=>s"}},
		{"hard link through links", []string{"d/ d/f=1 s->/d h=>s/f"}},
		{"parent link", []string{"usr/lib/ lib->usr/lib", "lib/x"}},
		{"parent link, absolute", []string{"usr/lib/ a/lib->/usr/lib", "a/lib/x"}},
		{"parent link above the root", []string{"a/l->../../../t a/l/x"}},
		{"parent link to nothing", []string{"l->no/where l/x"}},
		{"dots behind a link", []string{"x/y/ l->x/y d/m->../l/../z d/m/f"}},
		{"whiteout through a link", []string{"d/x l->d", "l/.wh.x"}},
		{"file becomes link", []string{"a=1", "a->b", "a=2", "a/ a/b", "a->c"}},
		{"lost+found listed", []string{"lost+found/ x", ".wh.lost+found"}},
		{"lost+found used", []string{"lost+found/x", ".wh..wh..opq", "lost+found=1"[:0] + "lost+found/y"}},
		{"whiteout of lost+found", []string{"", ".wh.lost+found a"}},
		{"root", []string{"./@700 a", "./@711"}},
		{"parent is a file", []string{"a a/b"}},
		{"hard link to nothing", []string{"a=>b"}},
		{"hard link to itself", []string{"a=1 a=>a"}},
		{"hard link to a directory", []string{"d/ a=>d"}},
		{"loop", []string{"a->b b->a a/x"}},
		{"hard link below a file", []string{"f h=>f/x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var layers [][]member
			for _, l := range c.layers {
				layers = append(layers, script(t, l))
			}
			chain(t, 8<<20, ext4.MkfsOptions{Checksums: len(c.name)%2 == 0}, layers...)
		})
	}
}
