package flatten_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/internal/layer/inflate"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// Layers of real images through the whole path: inflate with its promise, read, flatten. archive/tar counts along.
func TestRealLayers(t *testing.T) {
	dir := os.Getenv("CONVHOST_TESTDATA")
	if dir == "" {
		t.Skip("CONVHOST_TESTDATA is not set: no real images here")
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "images", "*", "blobs", "sha256", "*"))
	if err != nil || len(blobs) == 0 {
		t.Fatalf("no blobs below %s: %v", dir, err)
	}
	for _, p := range blobs {
		stored, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if inflate.Sniff(stored) == inflate.Plain {
			continue // manifests and configs
		}
		raw, tree, end := flattenStored(t, stored, digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(p)))
		compareWithStdlib(t, raw)
		t.Logf("%s: %d names, end %+v", filepath.Base(p)[:12], tree.Len(), end)
	}
}

func flattenStored(t *testing.T, stored []byte, want digest.Digest) ([]byte, *flatten.Tree, layer.End) {
	t.Helper()
	start := time.Now()
	s, err := inflate.Open(t.Context(), bytes.NewReader(stored), inflate.Options{StoredDigest: want, StoredSize: int64(len(stored))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var raw bytes.Buffer
	tree := flatten.New(flatten.Options{})
	end, err := tree.ApplyTar(t.Context(), layer.NewReader(io.TeeReader(s, &raw), layer.Limits{}))
	if err != nil {
		t.Fatal(err)
	}
	res, ok := s.Result()
	if !ok || res.RawSHA256 != sha256.Sum256(raw.Bytes()) || res.StoredSize != int64(len(stored)) {
		t.Errorf("result %v %+v", ok, res)
	}
	t.Logf("%d → %d bytes in %v", res.StoredSize, res.RawSize, time.Since(start).Round(time.Millisecond))
	return raw.Bytes(), tree, end
}

// compareWithStdlib reads a tar with archive/tar and with us, member by member.
func compareWithStdlib(t *testing.T, raw []byte) {
	t.Helper()
	std, ours := tar.NewReader(bytes.NewReader(raw)), layer.NewReader(bytes.NewReader(raw), layer.Limits{})
	type member struct {
		Path, Link, Body string
		Mode             uint32
		UID, GID         int
		Size             int64
		Mtime            time.Time
	}
	for {
		h, err := std.Next()
		var e abi.Entry
		err2 := ours.Next(&e)
		if err == io.EOF && err2 == io.EOF {
			return
		}
		if err != nil || err2 != nil {
			t.Fatalf("archive/tar: %v; we: %v", err, err2)
		}
		a, _ := io.ReadAll(std)
		b, _ := io.ReadAll(ours)
		want := member{filepath.Clean("/" + h.Name)[1:], h.Linkname, string(a), uint32(h.Mode) & 0o7777, h.Uid, h.Gid, h.Size, h.ModTime}
		got := member{e.Path, e.Link, string(b), e.Mode, int(e.UID), int(e.GID), e.Size, time.Unix(e.MtimeSec, int64(e.MtimeNs))}
		if e.Kind == abi.KindHardlink {
			want.Link = filepath.Clean("/" + h.Linkname)[1:]
		}
		if e.Flags&(abi.EntryWhiteout|abi.EntryOpaque) != 0 {
			want.Link = "" // some whiteouts of docker are hard links to each other
		}
		if want != got {
			want.Body, got.Body = "", ""
			t.Fatal(cmp.Diff(want, got))
		}
	}
}
