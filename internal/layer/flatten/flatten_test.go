package flatten_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/internal/layer/tarwrite"
	"github.com/google/go-cmp/cmp"
)

// entries reads a short notation, one entry a word: "d/" directory, "f" file (its content is its name), "f=x" file with
// content x, "l->t" symbolic link, "h=>t" hard link; "@MODE" at the end sets the mode.
func entries(t testing.TB, script string) (es []abi.Entry, bodies []string) {
	for i, w := range strings.Fields(script) {
		e := abi.Entry{Kind: abi.KindRegular, Mode: 0o644, MtimeSec: int64(1000 + i)}
		w, mode, ok := strings.Cut(w, "@")
		if ok {
			if _, err := fmt.Sscanf(mode, "%o", &e.Mode); err != nil {
				t.Fatal(err)
			}
		}
		body := ""
		if p, to, ok := strings.Cut(w, "->"); ok {
			e.Kind, e.Path, e.Link = abi.KindSymlink, p, to
		} else if p, to, ok := strings.Cut(w, "=>"); ok {
			e.Kind, e.Path, e.Link = abi.KindHardlink, p, to
		} else if strings.HasSuffix(w, "/") {
			e.Kind, e.Path = abi.KindDir, strings.TrimSuffix(strings.TrimPrefix(w, "./"), "/")
			if !ok && mode == "" {
				e.Mode = 0o755
			}
		} else {
			e.Path, body, ok = strings.Cut(w, "=")
			if !ok {
				body = e.Path
			}
			e.Size = int64(len(body))
		}
		es, bodies = append(es, e), append(bodies, body)
	}
	return es, bodies
}

func tarOf(t testing.TB, script string) []byte {
	es, bodies := entries(t, script)
	var b []byte
	for i := range es {
		var err error
		if b, err = tarwrite.AppendHeader(b, &es[i]); err != nil {
			t.Fatal(err)
		}
		b = tarwrite.AppendPadding(append(b, bodies[i]...), es[i].Size)
	}
	return tarwrite.AppendEnd(b)
}

func apply(t testing.TB, opt flatten.Options, layers ...string) (*flatten.Tree, error) {
	tree := flatten.New(opt)
	for _, l := range layers {
		if _, err := tree.ApplyTar(context.Background(), layer.NewReader(bytes.NewReader(tarOf(t, l)), layer.Limits{})); err != nil {
			return tree, err
		}
	}
	return tree, nil
}

// show writes a tree in a notation like that of entries; "?" marks implied directories, "{first}" a hard-link group.
func show(tree *flatten.Tree) string {
	var out []string
	sums := map[[32]byte]string{}
	for _, s := range []string{"1", "2", "new", "old"} {
		sums[sha256.Sum256([]byte(s))] = s
	}
	for r := range tree.Records() {
		s := r.Path
		switch r.Kind {
		case abi.KindDir:
			s += "/"
			if r.Implied {
				s += "?"
			}
		case abi.KindSymlink:
			s += "->" + r.Link
		default:
			if c, ok := sums[r.SHA256]; ok {
				s += "=" + c
			}
		}
		if r.Group != "" {
			s += "{" + r.Group + "}"
		}
		if r.Path != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

func TestRules(t *testing.T) {
	overlay := flatten.Options{Overlay: true}
	for _, c := range []struct {
		name   string
		layers []string
		opt    flatten.Options
		want   string
	}{
		{"sorted", []string{"b a/ a/x a.b a/y/ a-"}, flatten.Options{}, "a/ a/x a/y/ a- a.b b"},
		{"implied", []string{"a/b/c"}, flatten.Options{}, "a/? a/b/? a/b/c"},
		{"implied, then listed", []string{"a/b a/"}, flatten.Options{}, "a/ a/b"},
		{"listed below", []string{"a/ a/b=1", "a/b=2"}, flatten.Options{}, "a/ a/b=2"},
		{"file for directory", []string{"a/ a/b", "a"}, flatten.Options{}, "a"},
		{"directory for file", []string{"a", "a/ a/b"}, flatten.Options{}, "a/ a/b"},
		{"directory for link", []string{"d/ d/x a->d", "a/"}, flatten.Options{}, "a/ d/ d/x"},
		{"last one wins", []string{"a=1 a=2"}, flatten.Options{}, "a=2"},
		{"whiteout", []string{"a/ a/x a/y b", "a/.wh.x .wh.b"}, flatten.Options{}, "a/ a/y"},
		{"whiteout of a directory", []string{"a/ a/x/ a/x/y b", ".wh.a"}, flatten.Options{}, "b"},
		{"whiteout of nothing", []string{"a", ".wh.b"}, flatten.Options{}, "a"},
		{"whiteout in the bottom layer", []string{"a .wh.a"}, flatten.Options{}, "a"},
		{"whiteout implies its parent", []string{"", "x/.wh.a"}, flatten.Options{}, "x/?"},
		{"whiteout does not keep its parent", []string{"", "x/.wh.a .wh.x"}, flatten.Options{}, ""},
		{"whiteout before", []string{"a=old", ".wh.a a=new"}, flatten.Options{}, "a=new"},
		{"whiteout after", []string{"a=old", "a=new .wh.a"}, flatten.Options{}, "a=new"},
		{"whiteout before, directory", []string{"a/ a/x", ".wh.a a/y"}, flatten.Options{}, "a/? a/y"},
		{"whiteout after, directory", []string{"a/ a/x", "a/y .wh.a"}, flatten.Options{}, "a/? a/y"},
		{"whiteout after, listed", []string{"a/ a/x", "a/ a/y .wh.a"}, flatten.Options{}, "a/ a/y"},
		{"opaque", []string{"a/ a/x a/d/ a/d/y b", "a/ a/.wh..wh..opq a/new"}, flatten.Options{}, "a/ a/new b"},
		{"opaque after", []string{"a/ a/x a/d/ a/d/y b", "a/ a/new a/d/z a/.wh..wh..opq"}, flatten.Options{}, "a/ a/d/? a/d/z a/new b"},
		{"opaque root", []string{"a b/c", ".wh..wh..opq d"}, flatten.Options{}, "d"},
		{"opaque twice", []string{"a/x", "a/.wh..wh..opq a/y a/.wh..wh..opq"}, flatten.Options{}, "a/? a/y"},
		{"two layers later", []string{"a/x", ".wh.a", "a/y"}, flatten.Options{}, "a/? a/y"},
		{"hard link", []string{"a=1 b=>a"}, flatten.Options{}, "a=1{a} b=1{a}"},
		{"hard link, first name sorted", []string{"z=1 b=>z"}, flatten.Options{}, "b=1{b} z=1{b}"},
		{"hard link to a lower file", []string{"a=1", "b=>a"}, flatten.Options{}, "a=1{a} b=1{a}"},
		{"one name replaced", []string{"a=1 b=>a c=>a", "a=2"}, flatten.Options{}, "a=2 b=1{b} c=1{b}"},
		{"one name left", []string{"a=1 b=>a", ".wh.a"}, flatten.Options{}, "b=1"},
		{"hard link to a link", []string{"s->t h=>s"}, flatten.Options{}, "h->t{h} s->t{h}"},
		{"hard link through links", []string{"d/ d/f=1 s->/d h=>s/f"}, flatten.Options{}, "d/ d/f=1{d/f} h=1{d/f} s->/d"},
		{"parent link", []string{"usr/lib/ lib->usr/lib", "lib/x"}, flatten.Options{}, "lib->usr/lib usr/? usr/lib/ usr/lib/x"},
		{"parent link, absolute", []string{"usr/lib/ a/lib->/usr/lib", "a/lib/x"}, flatten.Options{}, "a/? a/lib->/usr/lib usr/? usr/lib/ usr/lib/x"},
		{"parent link above the root", []string{"a/l->../../../t a/l/x"}, flatten.Options{}, "a/? a/l->../../../t t/? t/x"},
		{"parent link to nothing", []string{"l->no/where l/x"}, flatten.Options{}, "l->no/where no/? no/where/? no/where/x"},
		{"dots behind a link", []string{"x/y/ l->x/y d/m->../l/../z d/m/f"}, flatten.Options{}, "d/? d/m->../l/../z l->x/y x/? x/y/ x/z/? x/z/f"},
		{"whiteout through a link", []string{"d/x l->d", "l/.wh.x"}, flatten.Options{}, "d/? l->d"},
		{"overlay: lower link", []string{"usr/lib/ lib->usr/lib", "lib/x"}, overlay, "lib/? lib/x usr/? usr/lib/"},
		{"overlay: lower file", []string{"a", "a/x"}, overlay, "a/? a/x"},
		{"overlay: link of the layer", []string{"d/", "l->d l/x"}, overlay, "d/ d/x l->d"},
	} {
		tree, err := apply(t, c.opt, c.layers...)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if got := show(tree); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		} else if n := len(slices.Collect(tree.Records())); int64(n) != tree.Len() {
			t.Errorf("%s: %d records, Len %d", c.name, n, tree.Len())
		}
	}
}

func TestRefused(t *testing.T) {
	for name, script := range map[string]string{
		"parent is a file": "a a/b", "hard link to nothing": "a=>b", "hard link to itself": "a=1 a=>a", "hard link to a directory": "d/ a=>d",
		"loop": "a->b b->a a/x", "parent link to a file": "f l->f l/x", "hard link below a file": "f h=>f/x",
	} {
		_, err := apply(t, flatten.Options{}, script)
		var fe *abi.FormatError
		if !errors.Is(err, abi.ErrCorrupt) || !errors.As(err, &fe) || fe.Entry == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := apply(t, flatten.Options{Names: 2}, "a b c"); abi.ClassOf(err) != abi.ErrLimit {
		t.Error(err)
	}
	deep := flatten.New(flatten.Options{})
	deep.BeginLayer()
	chain := strings.Repeat("d/", 2000)
	for i := range 5 {
		e := abi.Entry{Kind: abi.KindSymlink, Path: fmt.Sprintf("s%d", i), Link: fmt.Sprintf("s%d/%s", i-1, chain)}
		if i == 0 {
			e.Link = chain
		}
		if err := deep.Apply(&e, [32]byte{}); err != nil {
			t.Fatal(err)
		}
		err := deep.Apply(&abi.Entry{Kind: abi.KindDir, Path: fmt.Sprintf("s%d/x", i)}, [32]byte{})
		if want := i > 1; want != (abi.ClassOf(err) == abi.ErrLimit) {
			t.Errorf("depth %d: %v", 2000*(i+1), err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := flatten.New(flatten.Options{}).ApplyTar(ctx, layer.NewReader(bytes.NewReader(tarOf(t, "a")), layer.Limits{}))
	if abi.ClassOf(err) != abi.ErrCanceled {
		t.Error(err)
	}
}

func TestAttributes(t *testing.T) {
	x := func(kv ...string) (xs []abi.Xattr) {
		for i := 0; i < len(kv); i += 2 {
			xs = append(xs, abi.Xattr{Key: kv[i], Value: []byte(kv[i+1])})
		}
		return xs
	}
	tree := flatten.New(flatten.Options{})
	tree.BeginLayer()
	for _, e := range []abi.Entry{
		{Kind: abi.KindDir, Mode: 0o700, Xattrs: x("user.r", "1")},
		{Kind: abi.KindDir, Path: "d", Mode: 0o700, UID: 5, Xattrs: x("user.a", "1", "user.b", "2")},
		{Kind: abi.KindRegular, Path: "d/f", Mode: 0o600, UID: 1, MtimeSec: 7, Xattrs: x("user.a", "1", "user.c", "3")},
		{Kind: abi.KindHardlink, Path: "d/h", Link: "d/f", Mode: 0o640, UID: 2, MtimeSec: 8, Xattrs: x("user.a", "9", "user.b", "2")},
		{Kind: abi.KindSymlink, Path: "s", Link: "x", Mode: 0o644},
		{Kind: abi.KindDir, Path: "d", Mode: 0o755, Xattrs: x("user.z", "z")},
		{Kind: abi.KindChar, Path: "null", DevMajor: 1, DevMinor: 3, Mode: 0o666},
	} {
		if err := tree.Apply(&e, [32]byte{}); err != nil {
			t.Fatal(err)
		}
		clear(e.Xattrs) // Apply keeps nothing of the slice
	}
	f := flatten.Record{Path: "d/f", Kind: abi.KindRegular, Mode: 0o640, UID: 2, MtimeSec: 8, Group: "d/f", Xattrs: x("user.a", "9", "user.b", "2", "user.c", "3")}
	h := f
	h.Path = "d/h"
	want := []flatten.Record{{Kind: abi.KindDir, Mode: 0o700, Xattrs: x("user.r", "1")},
		{Path: "d", Kind: abi.KindDir, Mode: 0o755, Xattrs: x("user.z", "z")}, f, h,
		{Path: "null", Kind: abi.KindChar, Mode: 0o666, DevMajor: 1, DevMinor: 3}, {Path: "s", Kind: abi.KindSymlink, Mode: 0o777, Link: "x"}}
	if d := cmp.Diff(want, slices.Collect(tree.Records())); d != "" {
		t.Error(d)
	}
}

func TestCompare(t *testing.T) {
	a := []flatten.Record{
		{Kind: abi.KindDir, Mode: 0o755, Implied: true},
		{Path: "a", Kind: abi.KindRegular, Mode: 0o644, Size: 1, MtimeSec: 5, MtimeNs: 7},
		{Path: "b", Kind: abi.KindDir, Mode: 0o755, Implied: true},
		{Path: "b/c", Kind: abi.KindSymlink, Link: "x", Group: "b/c"},
		{Path: "b.d", Kind: abi.KindChar, DevMajor: 1},
		{Path: "e", Kind: abi.KindFifo, Xattrs: []abi.Xattr{{Key: "user.1", Value: []byte("1")}, {Key: "user.2", Value: []byte("2")}}},
	}
	b := slices.Clone(a)
	b[0].Mode, b[0].Implied = 0o700, false
	b[1] = flatten.Record{Path: "a", Kind: abi.KindRegular, Mode: 0o600, UID: 3, Size: 2, MtimeSec: 5, SHA256: [32]byte{1}}
	b[2].Mode, b[2].Implied = 0o700, false
	b[3].Link, b[3].Group = "y", ""
	b[4].DevMinor = 2
	b[5].Xattrs = []abi.Xattr{{Key: "user.2", Value: []byte("3")}, {Key: "user.3"}}
	b = append(b, flatten.Record{Path: "f", Kind: abi.KindDir})
	fields := func(ds []flatten.Difference) string {
		var out []string
		for _, d := range ds {
			out = append(out, d.Path+":"+d.Field)
			if d.String() == "" {
				t.Error("no text")
			}
		}
		return strings.Join(out, " ")
	}
	for _, c := range []struct {
		opt  flatten.CompareOptions
		want string
	}{
		{flatten.CompareOptions{}, ":mode a:mode a:owner a:mtime a:size a:content b:mode b/c:link b/c:hard-link group b.d:device e:xattrs e:xattrs e:xattrs f:path"},
		{flatten.CompareOptions{WholeSeconds: true, ImpliedUnspecified: true, Ignore: flatten.FieldXattrs | flatten.FieldOwner | flatten.FieldPath},
			"a:mode a:size a:content b/c:link b/c:hard-link group b.d:device"},
		{flatten.CompareOptions{IgnoreRoot: true, Max: 2}, "a:mode a:owner"},
	} {
		if got := fields(flatten.Compare(slices.Values(a), slices.Values(b), c.opt)); got != c.want {
			t.Errorf("%+v:\n got %s\nwant %s", c.opt, got, c.want)
		}
	}
	if d := flatten.Compare(slices.Values(a), slices.Values(a), flatten.CompareOptions{}); d != nil {
		t.Error(d)
	}
	if d := flatten.Compare(slices.Values(a), slices.Values(a[:3]), flatten.CompareOptions{}); fields(d) != "b/c:path b.d:path e:path" {
		t.Error(d)
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal([]flatten.Record{
		{Path: "a\xff", Kind: abi.KindRegular, Mode: 0o4755, MtimeSec: -1, MtimeNs: 5, Size: 3, Group: "a\xff", Xattrs: []abi.Xattr{{Key: "user.x", Value: []byte{0}}}},
		{Path: "l", Kind: abi.KindSymlink, Mode: 0o777, Link: "to"}, {Kind: abi.KindDir, Implied: true}, {Path: "c", Kind: abi.KindChar, DevMajor: 1},
	})
	want := `[{"pathBase64":"Yf8=","type":"file","mode":"4755","uid":0,"gid":0,"mtimeSec":-1,"mtimeNs":5,"size":3,` +
		`"sha256":"` + strings.Repeat("0", 64) + `","groupBase64":"Yf8=","xattrs":[{"key":"user.x","value":"AA=="}]},` +
		`{"path":"l","type":"symlink","mode":"0777","uid":0,"gid":0,"mtimeSec":0,"mtimeNs":0,"link":"to"},` +
		`{"path":"","type":"dir","mode":"0000","uid":0,"gid":0,"mtimeSec":0,"mtimeNs":0,"implied":true},` +
		`{"path":"c","type":"char","mode":"0000","uid":0,"gid":0,"mtimeSec":0,"mtimeNs":0,"devMajor":1,"devMinor":0}]`
	if err != nil || string(b) != want {
		t.Errorf("%v\n got %s\nwant %s", err, b, want)
	}
}

func TestMemory(t *testing.T) {
	const n = 200_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	tree := flatten.New(flatten.Options{})
	tree.BeginLayer()
	for i := range n {
		e := abi.Entry{Kind: abi.KindRegular, Path: fmt.Sprintf("usr/share/package-%d/file-with-a-name-%d", i/20, i), Size: 1}
		if err := tree.Apply(&e, [32]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	per := (heap() - before) / n
	t.Logf("%d bytes a file", per)
	if per > 600 {
		t.Errorf("%d bytes a file, want at most 600", per)
	}
	runtime.KeepAlive(tree)
}

// Any layers are applied or refused with a class; a layer without links that can be applied twice gives the same tree.
func FuzzApply(f *testing.F) {
	f.Add("a/x=1 b/ .wh.a c=>a/x", "a/.wh..wh..opq a/y l->a l/z .wh.b", false)
	f.Add("a/b/c d/", "a .wh.d d/e a/", true)
	f.Add("a/l->../../../t a/l/x", "t/.wh.x", true)
	f.Fuzz(func(t *testing.T, bottom, top string, overlay bool) {
		tree := flatten.New(flatten.Options{Overlay: overlay, Names: 10000})
		run := func(script string) error {
			tree.BeginLayer()
			es, bodies := entries(skipFatal{t}, script)
			for i := range es {
				b, err := tarwrite.AppendHeader(nil, &es[i])
				if err != nil {
					return nil
				}
				var e abi.Entry
				if layer.NewReader(bytes.NewReader(b), layer.Limits{}).Next(&e) != nil {
					return nil
				}
				if err := tree.Apply(&e, sha256.Sum256([]byte(bodies[i]))); err != nil {
					return err
				}
			}
			return nil
		}
		for _, s := range []string{bottom, top} {
			if err := run(s); err != nil {
				if c := abi.ClassOf(err); c != abi.ErrCorrupt && c != abi.ErrLimit {
					t.Fatal(err)
				}
				return
			}
		}
		once := slices.Collect(tree.Records())
		if d := flatten.Compare(slices.Values(once), tree.Records(), flatten.CompareOptions{}); d != nil || int64(len(once)) != tree.Len() {
			t.Fatal(d, len(once), tree.Len())
		}
		if strings.Contains(bottom+top, ">") || run(top) != nil {
			return
		}
		if d := flatten.Compare(slices.Values(once), tree.Records(), flatten.CompareOptions{}); d != nil {
			t.Fatalf("applied twice: %v", d)
		}
	})
}

type skipFatal struct{ testing.TB }

func (s skipFatal) Fatal(args ...any) { s.Skip(args...) }

func BenchmarkApply(b *testing.B) {
	es := make([]abi.Entry, 100000)
	for i := range es {
		es[i] = abi.Entry{Kind: abi.KindRegular, Path: fmt.Sprintf("usr/share/package-%d/file-with-a-name-%d", i/20, i), Size: 1}
	}
	b.ReportAllocs()
	for b.Loop() {
		tree := flatten.New(flatten.Options{})
		tree.BeginLayer()
		for i := range es {
			if err := tree.Apply(&es[i], [32]byte{}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(es)), "ns/entry")
}
