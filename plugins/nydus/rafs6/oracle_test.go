package rafs6

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
)

// flat says what the independent flattener makes of layers, in the words of list.
func flat(layers ...[]tarEntry) ([]string, error) {
	tree := flatten.New(flatten.Options{})
	for _, l := range layers {
		tree.BeginLayer()
		for k := range l {
			if err := tree.Apply(&l[k].Entry, [32]byte{}); err != nil {
				return nil, err
			}
		}
	}
	var out []string
	for r := range tree.Records() {
		s := r.Path + " " + dec(int32(r.Kind)) + " " + udec(r.UID) + " " + dec(r.MtimeSec) + " " + dec(r.Size) + " " + r.Link + " " + udec(r.DevMajor)
		if r.Kind != abi.KindSymlink {
			s += " " + octalText(r.Mode)
		}
		if r.Kind == abi.KindRegular {
			s += " " + r.Group
		}
		for _, x := range r.Xattrs {
			s += " " + x.Key + "=" + string(x.Value)
		}
		out = append(out, s)
	}
	return out, nil
}

// flatTree says the same of a tree of ours.
func flatTree(t *testing.T, tree *Tree) []string {
	type rec struct {
		e     abi.Entry
		group string
	}
	var recs []*rec
	first := map[string]*rec{}
	err := tree.Walk(func(e *abi.Entry, _ File) error {
		r := &rec{e: *e}
		r.e.Xattrs = slices.Clone(e.Xattrs)
		if e.Kind == abi.KindHardlink {
			one := first[e.Link]
			one.group, r.group = e.Link, e.Link
			r.e.Kind, r.e.Size, r.e.Link = one.e.Kind, one.e.Size, ""
		}
		first[e.Path] = r
		recs = append(recs, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range recs {
		e := r.e
		s := e.Path + " " + dec(int32(e.Kind)) + " " + udec(e.UID) + " " + dec(e.MtimeSec) + " " + dec(e.Size) + " " + e.Link + " " + udec(e.DevMajor)
		if e.Kind != abi.KindSymlink {
			s += " " + octalText(e.Mode)
		}
		if e.Kind == abi.KindRegular {
			s += " " + r.group
		}
		for _, x := range e.Xattrs {
			s += " " + x.Key + "=" + string(x.Value)
		}
		out = append(out, s)
	}
	return out
}

// randomLayer makes entries; links is whether symlinks may occur.
func randomLayer(r *rand.Rand, whiteouts, links bool) []tarEntry {
	names := []string{"a", "b", "a/b", "a/b/c", "b/a", "l", "l/a", "m/l/b", "-", ".!", "a/...", "m"}
	if whiteouts {
		names = append(names, ".wh.a", "b/.wh..wh..opq", "b/.wh.a", "m/.wh.l") // no whiteout below a name that is whited out itself: there the order counts
	}
	var out []tarEntry
	for range 1 + r.IntN(12) {
		v := byte(r.IntN(256))
		e := script([]byte{byte(r.IntN(6)), 1, v})[0]
		e.Path = names[r.IntN(len(names))]
		e.Xattrs = sortXattrs(e.Xattrs)
		e.Seq, e.HdrOff = uint64(len(out)), int64(512*len(out))
		if e.Kind == abi.KindHardlink {
			e.Link = names[r.IntN(12)]
			e.UID = uint32(v)
		}
		if i := strings.LastIndex(e.Path, ".wh."); i >= 0 {
			e = file(e.Path, "")
			e.Seq, e.Flags = uint64(len(out)), abi.EntryWhiteout
			if strings.HasSuffix(e.Path, opaqueName) {
				e.Flags = abi.EntryOpaque
			}
		}
		if e.Kind == abi.KindSymlink && !links {
			continue
		}
		out = append(out, e)
	}
	return out
}

// One layer with everything in it, and two layers without symlinks (the flattener follows them entry by entry), give what
// the flattener of the host gives; what one refuses, the other refuses, too.
func TestAgainstFlattener(t *testing.T) {
	stored := func(_ uint32, raw []byte) uint32 { return uint32(len(raw)) }
	r := rand.New(rand.NewPCG(1, 2))
	agreed := 0
	for n := range 6000 {
		var layers [][]tarEntry
		if n%2 == 0 {
			layers = [][]tarEntry{randomLayer(r, false, true)}
		} else {
			layers = [][]tarEntry{randomLayer(r, false, false), randomLayer(r, true, false)}
		}
		want, wantErr := flat(layers...)
		m := NewMerger(MergeOptions{Correct: true})
		var err error
		for k, l := range layers {
			var tree *Tree
			if tree, err = build(plainOptions, l, stored); err != nil {
				break
			}
			reread(t, tree)
			boot, bootErr := tree.Bootstrap()
			if bootErr != nil {
				t.Fatal(bootErr)
			}
			if err = m.AddBootstrap(boot, tree.State([32]byte{}), string(rune('a'+k))); err != nil {
				break
			}
		}
		if (err != nil) != (wantErr != nil) {
			if len(layers) > 1 && (crossLayer(layers) || err == nil) {
				continue // a hard link to a lower layer; a lower file in the way until a later entry replaces it
			}
			t.Fatalf("case %d: got %v, want %v\n%s", n, err, wantErr, dump(layers))
		}
		if err != nil {
			if !errors.Is(err, abi.ClassOf(wantErr)) {
				t.Fatalf("case %d: got %v, want %v", n, err, wantErr)
			}
			continue
		}
		image, err := m.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if got := flatTree(t, reread(t, image)); !slices.Equal(got, want) {
			if crossLayer(layers) {
				continue
			}
			t.Fatalf("case %d:\n%s\ngot\n  %s\nwant\n  %s", n, dump(layers), strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
		agreed++
	}
	t.Logf("%d cases agree", agreed)
	if agreed < 1000 {
		t.Error("too few cases compared")
	}
}

// crossLayer tells whether the upper layer has hard links.
func crossLayer(layers [][]tarEntry) bool {
	return len(layers) > 1 && slices.ContainsFunc(layers[1], func(e tarEntry) bool { return e.Kind == abi.KindHardlink })
}

func dump(layers [][]tarEntry) string {
	var b strings.Builder
	for _, l := range layers {
		for _, e := range l {
			b.WriteString(dec(int32(e.Kind)) + " " + e.Path + " " + e.Link + " " + dec(e.Size) + " " + octalText(e.Mode) + "\n")
		}
		b.WriteString("--\n")
	}
	return b.String()
}
