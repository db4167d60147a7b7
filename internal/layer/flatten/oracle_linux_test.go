package flatten_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/archive"
	continuity "github.com/containerd/continuity/fs"
	"github.com/containerd/log"
	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
	"golang.org/x/sys/unix"
)

// extracted describes a directory on disk as records. Hard links are found by inode number.
func extracted(t *testing.T, root string) (out []flatten.Record) {
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		r := flatten.Record{Path: strings.TrimPrefix(rel, "."), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MtimeSec: int64(st.Mtim.Sec), MtimeNs: uint32(st.Mtim.Nsec)}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFDIR:
			r.Kind = abi.KindDir
			r.MtimeSec, r.MtimeNs = 0, 0 // changes with the content
		case syscall.S_IFLNK:
			r.Kind = abi.KindSymlink
			r.Link, err = os.Readlink(p)
		case syscall.S_IFREG:
			r.Kind = abi.KindRegular
			var b []byte
			b, err = os.ReadFile(p)
			r.Size, r.SHA256 = int64(len(b)), sha256.Sum256(b)
		}
		if st.Nlink > 1 && r.Kind != abi.KindDir {
			if first[st.Ino] == "" {
				first[st.Ino] = r.Path
			}
			r.Group = first[st.Ino]
		}
		out = append(out, r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// against applies layers with containerd to a directory and with us, and compares everything but directories' times.
func against(t *testing.T, ignore flatten.Field, scripts ...string) (refused bool) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var theirs error
	applied := 0
	for _, s := range scripts {
		applied++
		if _, theirs = archive.Apply(context.Background(), dir, bytes.NewReader(tarOf(t, s))); theirs != nil {
			break
		}
	}
	tree, ours := apply(t, flatten.Options{}, scripts...)
	if theirs != nil && ours == nil && dirLost(t, dir, scripts[applied-1]) {
		return true
	}
	if (theirs != nil) != (ours != nil) {
		t.Errorf("%q: containerd: %v; we: %v", scripts, theirs, ours)
	}
	if theirs != nil || ours != nil {
		return true
	}
	records := func(yield func(flatten.Record) bool) {
		for r := range tree.Records() {
			if r.Kind == abi.KindDir {
				r.MtimeSec, r.MtimeNs = 0, 0
			}
			r.Implied = false
			if !yield(r) {
				return
			}
		}
	}
	for _, d := range flatten.Compare(slices.Values(extracted(t, dir)), records, flatten.CompareOptions{IgnoreRoot: true, Ignore: ignore}) {
		t.Errorf("%q: containerd first, we second: %v", scripts, d)
	}
	return false
}

// dirLost tells whether a directory that the layer lists was replaced later in the same layer. containerd sets directories'
// times at the end of a layer and then fails, though everything was extracted.
func dirLost(t *testing.T, root, script string) bool {
	es, _ := entries(t, script)
	for _, e := range es {
		if e.Kind != abi.KindDir {
			continue
		}
		p, err := continuity.RootPath(root, e.Path)
		if err == nil {
			_, err = os.Lstat(p)
		}
		if err != nil {
			return true
		}
	}
	return false
}

// containerd's own extraction is the oracle for the rules. It needs root for owners.
func TestAgainstContainerd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: containerd sets owners when it extracts")
	}
	if err := log.SetLevel("error"); err != nil {
		t.Fatal(err)
	}
	for _, scripts := range [][]string{
		{"b a/ a/x a.b a/y/ a-"}, {"a/b/c"}, {"a/b a/@700"}, {"a/@750 a/b=1", "a/b=2@600"}, {"a/ a/b", "a"}, {"a", "a/ a/b"},
		{"d/ d/x a->d", "a/"}, {"a/ a/x a/y b", "a/.wh.x .wh.b"}, {"a", ".wh.b x/.wh.c"}, {"a=old", ".wh.a a=new@4755"},
		{"a/@700 a/x", ".wh.a a/y"}, {"a/ a/x a/d/ b", "a/ a/.wh..wh..opq a/new"}, {"a b/c", "./ .wh..wh..opq d"},
		{"a=1 b=>a@600"}, {"a=1", "b=>a"}, {"a=1 b=>a c=>a", "a=2"}, {"a=1 b=>a", ".wh.a"}, {"s->t h=>s"}, {"d/ d/f=1 s->/d h=>s/f"},
		{"usr/lib/ lib->usr/lib", "lib/x"}, {"a/l->../../../t a/l/x"}, {"l->no/where l/x"}, {"d/x l->d", "l/.wh.x"},
		{"a a/b"}, {"a=>b"}, {"a=1 a=>a"}, {"d/ d2/ a=>d"}, {"a->b b->a a/x"}, {"x/y/ l->x/y m->l/../z m/f"}, {"l->../../x/./y/../z l/f"},
		{"l->no/../x l/f"}, {"d/ d/s->no/../x d/s/f"}, {"x/y/ l->/x/y m->/l/../z m/f"},
	} {
		against(t, 0, scripts...)
	}
}

// Random layers over a few names. Times are not compared: containerd gives a file that replaces a directory of the same
// layer the directory's time. Whiteouts come first, for containerd lets late ones hide content of their own layer.
func TestRandomAgainstContainerd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: containerd sets owners when it extracts")
	}
	if err := log.SetLevel("error"); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	name := func() string {
		var el []string
		for range rnd.IntN(3) {
			el = append(el, string("ab"[rnd.IntN(2)]))
		}
		return strings.Join(append(el, string("abccddeeff"[rnd.IntN(10)])), "/")
	}
	refused := 0
	const rounds = 400
	for range rounds {
		var scripts, files []string
		for l := range 2 + rnd.IntN(2) {
			var white, rest []string
			for range 1 + rnd.IntN(7) {
				n := name()
				dir, base := "", n
				if i := strings.LastIndexByte(n, '/'); i >= 0 {
					dir, base = n[:i+1], n[i+1:]
				}
				switch k := rnd.IntN(12); {
				case k < 4:
					files = append(files, n)
					rest = append(rest, fmt.Sprintf("%s=%d@%o", n, rnd.IntN(3), 0o600+rnd.IntN(64)))
				case k < 7:
					rest = append(rest, fmt.Sprintf("%s/@%o", n, 0o700+rnd.IntN(64)))
				case k < 8:
					to := []string{name(), "/" + name(), "../" + name(), "../../" + name()}[rnd.IntN(4)]
					rest = append(rest, n+"->"+to)
				case k < 9 && len(files) > 0:
					rest = append(rest, n+"=>"+files[rnd.IntN(len(files))])
				case l > 0 && k < 11:
					white = append(white, dir+".wh."+base)
				case l > 0:
					white = append(white, dir+".wh..wh..opq")
				}
			}
			scripts = append(scripts, strings.Join(append(white, rest...), " "))
		}
		if against(t, flatten.FieldMtime, scripts...) {
			refused++
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d of %d refused by both", refused, rounds)
}
