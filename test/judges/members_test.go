package judges

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// member is what a tar says about one name.
type member struct {
	Kind     byte
	Mode     int64
	UID, GID int
	Mtime    int64
	Link     string
	Major    int64
	Minor    int64
	Sum      [32]byte
	Xattrs   map[string]string
	Group    string // all names of a hard-linked file have the same
}

// members reads a tar with the standard library. Hard links take over what their file has.
func members(t testing.TB, p []byte) map[string]member {
	t.Helper()
	out := map[string]member{}
	names := map[string][]string{} // by first name
	for r := tar.NewReader(bytes.NewReader(p)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := clean(h.Name)
		m := member{Kind: h.Typeflag, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, Mtime: h.ModTime.Unix(), Link: h.Linkname, Major: h.Devmajor, Minor: h.Devminor, Xattrs: map[string]string{}}
		for k, v := range h.PAXRecords {
			if k, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				m.Xattrs[k] = v
			}
		}
		if h.Typeflag == tar.TypeLink {
			first := clean(h.Linkname)
			if g := out[first].Group; g != "" {
				first = g
			}
			m = out[first]
			if m.Group = first; len(names[first]) == 0 {
				names[first] = []string{first}
			}
			names[first] = append(names[first], name)
		} else {
			s := sha256.New()
			if _, err := io.Copy(s, r); err != nil {
				t.Fatal(err)
			}
			s.Sum(m.Sum[:0])
		}
		out[name] = m
	}
	for _, group := range names {
		slices.Sort(group)
		for _, n := range group {
			m := out[n]
			m.Group = group[0]
			out[n] = m
		}
	}
	return out
}

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// implied adds the directories that a tar does not list.
func implied(m map[string]member) map[string]member {
	for name := range m {
		for d := filepath.Dir(name); d != "."; d = filepath.Dir(d) {
			if _, ok := m[d]; !ok {
				m[d] = member{Kind: tar.TypeDir, Mode: 0o755, Sum: sha256.Sum256(nil), Xattrs: map[string]string{}}
			}
		}
	}
	return m
}

// wantEqualTars compares what a layer was made of with what came back.
func wantEqualTars(t testing.TB, got, want []byte) {
	t.Helper()
	m := implied(members(t, want))
	delete(m, "") // nydus-image leaves the root out
	if diff := cmp.Diff(m, members(t, got)); diff != "" {
		t.Errorf("nydus-image unpack gives other files (-want +got):\n%.4000s", diff)
	}
}
