package ext4_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
)

// member is an entry with its body.
type member struct {
	abi.Entry
	body string
}

// script reads a short notation, one entry a word: "d/" directory, "f" file (its content is its name), "f=x" file with
// content x, "l->t" symbolic link, "h=>t" hard link; ".wh." names are whiteouts; "@MODE" at the end sets the mode.
func script(t testing.TB, s string) (out []member) {
	for i, w := range strings.Fields(s) {
		m := member{Entry: abi.Entry{Kind: abi.KindRegular, Mode: 0o644, MtimeSec: int64(1000 + i), MtimeNs: uint32(i), Seq: uint64(i)}}
		w, mode, hasMode := strings.Cut(w, "@")
		if hasMode {
			if _, err := fmt.Sscanf(mode, "%o", &m.Mode); err != nil {
				t.Fatal(err)
			}
		}
		if p, to, ok := strings.Cut(w, "->"); ok {
			m.Kind, m.Path, m.Link = abi.KindSymlink, p, to
		} else if p, to, ok := strings.Cut(w, "=>"); ok {
			m.Kind, m.Path, m.Link = abi.KindHardlink, p, to
		} else if strings.HasSuffix(w, "/") {
			m.Kind, m.Path = abi.KindDir, strings.TrimSuffix(strings.TrimPrefix(w, "./"), "/")
			if !hasMode {
				m.Mode = 0o755
			}
		} else {
			var ok bool
			if m.Path, m.body, ok = strings.Cut(w, "="); !ok {
				m.body = m.Path
			}
			m.Size = int64(len(m.body))
		}
		switch base := filepath.Base(m.Path); {
		case base == ".wh..wh..opq":
			m.Flags, m.body, m.Size = abi.EntryOpaque, "", 0
		case strings.HasPrefix(base, ".wh."):
			m.Flags, m.body, m.Size = abi.EntryWhiteout, "", 0
		}
		out = append(out, m)
	}
	return out
}

// applyTo applies a layer with ap and to tree and commits it.
func applyTo(t testing.TB, ap *ext4.Applier, tree *flatten.Tree, ms []member) (ext4.Stats, error) {
	t.Helper()
	tree.BeginLayer()
	for i := range ms {
		m := &ms[i]
		err := ap.Apply(context.Background(), &m.Entry, strings.NewReader(m.body))
		want := tree.Apply(&m.Entry, sha256.Sum256([]byte(m.body)))
		if (err == nil) != (want == nil) || abi.ClassOf(err) != abi.ClassOf(want) {
			t.Fatalf("%s: %v; flatten: %v", m.Path, err, want)
		}
		if err != nil {
			return ext4.Stats{}, err
		}
	}
	return ap.Commit()
}

// records reads a file system as flatten describes a tree.
func records(t testing.TB, r io.ReaderAt, size int64) []flatten.Record {
	t.Helper()
	im, err := ext4.Open(r, size)
	if err != nil {
		t.Fatal(err)
	}
	var out []flatten.Record
	at := map[string]int{}
	err = im.Walk(context.Background(), func(e *abi.Entry, body *ext4.File) error {
		r := flatten.Record{Path: e.Path, Kind: e.Kind, Mode: e.Mode, UID: e.UID, GID: e.GID, MtimeSec: e.MtimeSec, MtimeNs: e.MtimeNs,
			Size: e.Size, Link: e.Link, DevMajor: e.DevMajor, DevMinor: e.DevMinor, Xattrs: e.Xattrs}
		if e.Kind == abi.KindHardlink {
			f := &out[at[e.Link]]
			f.Group = f.Path
			r = *f
			r.Path = e.Path
		} else if e.Kind == abi.KindRegular {
			h := sha256.New()
			if _, err := io.Copy(h, body); err != nil {
				return err
			}
			h.Sum(r.SHA256[:0])
		}
		at[e.Path] = len(out)
		out = append(out, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func compare(t testing.TB, dev *ext4.Overlay, tree *flatten.Tree) {
	t.Helper()
	opt := flatten.CompareOptions{Max: 10}
	for _, d := range flatten.Compare(slices.Values(records(t, dev, dev.Size())), tree.Records(), opt) {
		t.Errorf("ext4 first, flatten second: %v", d)
	}
}

// dump writes what changed on a device into a sparse file.
func dump(t testing.TB, dev *ext4.Overlay) string {
	t.Helper()
	return sparse(t, dev, dev.Size(), dev.Changes())
}

func sparse(t testing.TB, dev io.ReaderAt, size int64, runs []ext4.Run) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	buf, zero := make([]byte, ext4.BlockSize), make([]byte, ext4.BlockSize)
	for _, r := range runs {
		for b := r.Block; b < r.Block+r.Count; b++ {
			if _, err := dev.ReadAt(buf, int64(b)*ext4.BlockSize); err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(buf, zero) {
				continue
			}
			if _, err := f.WriteAt(buf, int64(b)*ext4.BlockSize); err != nil {
				t.Fatal(err)
			}
		}
	}
	return name
}

// judge holds the device against e2fsck.
func judge(t testing.TB, dev *ext4.Overlay) {
	t.Helper()
	tool := find("e2fsck")
	if tool == "" {
		missing(t, "e2fsck")
		return
	}
	out, err := exec.Command(tool, "-fn", dump(t, dev)).CombinedOutput()
	if err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

func find(tool string) string {
	for _, p := range []string{tool, "/usr/sbin/" + tool, "/sbin/" + tool} {
		if q, err := exec.LookPath(p); err == nil {
			return q
		}
	}
	return ""
}

// missing says that a judge is not here; where judges are required that is a failure.
func missing(t testing.TB, tool string) {
	t.Helper()
	if os.Getenv("CONVHOST_REQUIRE_JUDGES") != "" {
		t.Fatalf("%s is required but not installed", tool)
	}
	t.Logf("%s is not installed: not held against it", tool)
}

func smallFile(i int, body string) member {
	return member{Entry: abi.Entry{Kind: abi.KindRegular, Path: fmt.Sprintf("usr/share/dir%d/file%d", i/100, i), Mode: 0o644, Size: int64(len(body))}, body: body}
}
