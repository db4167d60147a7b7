package rafs6

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
)

var mergeCases = []struct {
	vector   string
	layers   []string
	prefetch []string
}{
	{"merge-base-top", []string{"base", "top"}, nil},
	{"merge-base-mid", []string{"base", "mid"}, nil},
	{"merge-base-mid-top", []string{"base", "mid", "top"}, nil},
	{"merge-base-nodata-top", []string{"base", "nodata", "top"}, nil},
	{"merge-prefetch-root", []string{"base", "mid"}, []string{"/", "/etc"}},
}

func TestMergeVectors(t *testing.T) {
	for _, c := range mergeCases {
		t.Run(c.vector, func(t *testing.T) {
			m := NewMerger(MergeOptions{Prefetch: c.prefetch})
			for _, l := range c.layers {
				data, id := boot(t, "zstd-blake3-"+l)
				if err := m.AddBootstrap(data, nil, id); err != nil {
					t.Fatal(err)
				}
			}
			image, err := m.Finish()
			if err != nil {
				t.Fatal(err)
			}
			got, err := image.Bootstrap()
			if err != nil {
				t.Fatal(err)
			}
			want, _ := boot(t, c.vector)
			if !bytes.Equal(got, want) {
				t.Errorf("differs from byte %#x", firstDiff(got, want))
			}
		})
	}
}

func gunzipFile(t *testing.T, name string) []byte {
	r, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	p, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMergeDebian(t *testing.T) {
	root := os.Getenv("CONVHOST_TESTDATA")
	if root == "" {
		t.Skip("CONVHOST_TESTDATA is not set: no Debian bootstraps")
	}
	dir := filepath.Join(root, "nydus/v6/debian-merge")
	order, err := os.ReadFile(filepath.Join(dir, "order.txt"))
	if err != nil {
		t.Skip(err)
	}
	m := NewMerger(MergeOptions{})
	for _, id := range strings.Fields(string(order)) {
		id = strings.TrimSuffix(filepath.Base(id), ".boot")
		data := gunzipFile(t, filepath.Join(dir, id+".boot.gz"))
		tree, err := Open(data)
		if err != nil {
			t.Fatal(err)
		}
		if out, _ := tree.Bootstrap(); !bytes.Equal(out, data) {
			t.Errorf("%s: written bootstrap differs", id)
		}
		for _, err := range Check(data) {
			t.Error(err)
		}
		if err := m.Add(tree, id); err != nil {
			t.Fatal(err)
		}
	}
	image, err := m.Finish()
	if err != nil {
		t.Fatal(err)
	}
	got, err := image.Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	if want := gunzipFile(t, filepath.Join(dir, "bootstrap.gz")); !bytes.Equal(got, want) {
		t.Errorf("differs from byte %#x", firstDiff(got, want))
	}
}

// The helpers below make small layers by hand.

func dir(p string, mode uint32) abi.Entry {
	return abi.Entry{Kind: abi.KindDir, Path: p, Mode: mode, MtimeSec: 7}
}
func file(p, body string) tarEntry {
	return tarEntry{abi.Entry{Kind: abi.KindRegular, Path: p, Mode: 0o644, Size: int64(len(body)), MtimeSec: 7}, []byte(body)}
}
func symlink(p, to string) abi.Entry {
	return abi.Entry{Kind: abi.KindSymlink, Path: p, Link: to, Mode: 0o777}
}
func hardlink(p, to string) abi.Entry {
	return abi.Entry{Kind: abi.KindHardlink, Path: p, Link: to, Mode: 0o600, UID: 9, MtimeSec: 8}
}

var plainOptions = Options{ChunkSize: 4096, Codec: abi.CodecZstd, Digest: abi.DigestSHA256}

func tryLayer(list ...any) (*Tree, error) {
	var entries []tarEntry
	for k, v := range list {
		var e tarEntry
		switch v := v.(type) {
		case abi.Entry:
			e.Entry = v
		case tarEntry:
			e = v
		}
		e.Seq, e.HdrOff = uint64(k), int64(512*k)
		entries = append(entries, e)
	}
	return build(plainOptions, entries, func(_ uint32, raw []byte) uint32 { return uint32(len(raw)) })
}

// layer makes a layer, writes and reads it, and returns what a merge gets.
func layer(t testing.TB, list ...any) *Tree {
	t.Helper()
	tree, err := tryLayer(list...)
	if err != nil {
		t.Fatal(err)
	}
	return reread(t, tree)
}

func reread(t testing.TB, tree *Tree) *Tree {
	t.Helper()
	state := tree.State([32]byte{})
	for k := range tree.blobs {
		b := &tree.blobs[k]
		b.MetaOffset, b.MetaSize = b.CompressedSize, 16*uint64(b.ChunkCount)
		if b.ID == "" {
			b.ID = strings.Repeat("x", 64)
		}
	}
	data, err := tree.Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range Check(data) {
		t.Error(err)
	}
	out, err := Open(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.ApplyState(state); err != nil {
		t.Fatal(err)
	}
	return out
}

func merged(t testing.TB, o MergeOptions, layers ...*Tree) *Tree {
	t.Helper()
	m := NewMerger(o)
	for k, l := range layers {
		if err := m.Add(l, strings.Repeat(string(rune('a'+k)), 64)); err != nil {
			t.Fatal(err)
		}
	}
	image, err := m.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return reread(t, image)
}

// list is the tree in short: a path a line, with type, mode and what matters.
func list(t testing.TB, tree *Tree) []string {
	t.Helper()
	var out []string
	err := tree.Walk(func(e *abi.Entry, f File) error {
		s := e.Path
		switch e.Kind {
		case abi.KindDir:
			s += "/ " + octalText(e.Mode)
		case abi.KindSymlink:
			s += " -> " + e.Link
		case abi.KindHardlink:
			s += " = " + e.Link
		case abi.KindRegular:
			s += " " + octalText(e.Mode) + " " + dec(e.Size)
		default:
			s += " " + dec(int32(e.Kind)) + " " + udec(e.DevMajor)
		}
		if e.UID != 0 {
			s += " uid " + udec(e.UID)
		}
		for _, x := range e.Xattrs {
			s += " " + x.Key + "=" + string(x.Value)
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantList(t testing.TB, tree *Tree, want ...string) {
	t.Helper()
	if got := list(t, tree); !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestMergeImpliedDirs(t *testing.T) {
	low := layer(t, dir("", 0o711), dir("a", 0o700), symlink("lib", "usr/lib"), dir("usr", 0o755), dir("usr/lib", 0o751), file("usr/lib/old", "1"))
	up := layer(t, file("a/new", "22"), file("lib/x", "333"), file("b/c", "4444"))
	wantList(t, merged(t, MergeOptions{}, low, up), // upstream: the implied directories win
		"/ 755", "a/ 755", "a/new 644 2", "b/ 755", "b/c 644 4", "lib/ 755", "lib/x 644 3", "usr/ 755", "usr/lib/ 751", "usr/lib/old 644 1")
	wantList(t, merged(t, MergeOptions{Correct: true}, low, up),
		"/ 711", "a/ 700", "a/new 644 2", "b/ 755", "b/c 644 4", "lib -> usr/lib", "usr/ 755", "usr/lib/ 751", "usr/lib/old 644 1", "usr/lib/x 644 3")
	if _, err := tryLayer(file("f", "1")); err != nil {
		t.Fatal(err)
	}
	m := NewMerger(MergeOptions{Correct: true})
	if err := m.Add(layer(t, file("a", "x")), strings.Repeat("a", 64)); err != nil {
		t.Fatal(err)
	}
	if err := m.Add(layer(t, file("a/b", "x")), strings.Repeat("b", 64)); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("implied directory over a file: %v", err)
	}
}

func TestMergeWhiteouts(t *testing.T) {
	low := layer(t, dir("", 0o755), file("gone", "1"), dir("d", 0o755), file("d/x", "1"), dir("o", 0o755), file("o/y", "1"), file(".wh.zero", ""))
	up := layer(t, dir("", 0o755), file(".wh.gone", ""), file(".wh.d", ""), dir("o", 0o700), file("o/.wh..wh..opq", ""), file("o/z", "22"), file("gone2", "1"))
	wantList(t, merged(t, MergeOptions{}, low, up), "/ 755", ".wh.zero 644 0", "gone2 644 1", "o/ 700", "o/z 644 2")
	wantList(t, merged(t, MergeOptions{Correct: true}, low, up), "/ 755", "gone2 644 1", "o/ 700", "o/z 644 2")
	back := layer(t, dir("", 0o755), file(".wh.d", ""), dir("d", 0o711), file("d/new", "1")) // deleted and made again
	wantList(t, merged(t, MergeOptions{}, low, back),
		"/ 755", ".wh.zero 644 0", "d/ 711", "d/new 644 1", "gone 644 1", "o/ 755", "o/y 644 1")
	all := layer(t, dir("", 0o755), file(".wh..wh..opq", ""), file("only", "1"))
	wantList(t, merged(t, MergeOptions{}, low, all), "/ 755", "only 644 1")
	one := layer(t, dir("", 0o755), file(".wh.caf\xe9", ""), dir("n", 0o755), file("n/.wh.q", ""))
	wantList(t, merged(t, MergeOptions{Correct: true}, one), "/ 755", ".wh.caf\xe9 644 0", "n/ 755")
}

func TestMergeReplaceAndLinks(t *testing.T) {
	low := layer(t, dir("", 0o755), file("a", "1"), hardlink("b", "a"), hardlink("c", "a"), dir("d", 0o755), file("d/x", "1"), file("f", "1"))
	up := layer(t, dir("", 0o755), file(".wh.a", ""), file("d", "22"), dir("f", 0o750), file("f/g", "333"))
	wantList(t, merged(t, MergeOptions{}, low, up), "/ 755", "b 600 1 uid 9", "c = b uid 9", "d 644 2", "f/ 750", "f/g 644 3")
	again := merged(t, MergeOptions{}, low, low)
	if n := len(again.Blobs()); n != 1 {
		t.Errorf("%d blobs", n)
	}
	same := NewMerger(MergeOptions{})
	for range 2 {
		if err := same.Add(low, strings.Repeat("a", 64)); err != nil {
			t.Fatal(err)
		}
	}
	image, err := same.Finish()
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, reread(t, image), list(t, low)...)
}

func TestMergeRefuses(t *testing.T) {
	if _, err := NewMerger(MergeOptions{}).Finish(); !errors.Is(err, abi.ErrInvalid) {
		t.Error(err)
	}
	a, _ := boot(t, "zstd-blake3-base")
	b, _ := boot(t, "zstd-blake3-kitchen-4k")
	m := NewMerger(MergeOptions{})
	ta, err := Open(a)
	if err != nil {
		t.Fatal(err)
	}
	tb, err := Open(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Add(ta, "a")); err != nil {
		t.Fatal(err)
	}
	if err := m.Add(tb, "b"); !errors.Is(err, abi.ErrInvalid) {
		t.Errorf("other chunk size: %v", err)
	}
}
