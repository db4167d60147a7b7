package lsmt

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
	"github.com/convhost/convhost/plugins/overlaybd/tarshell"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
)

// TestGoldenDigest makes the whole hello-world layer anew from the segments of the original: LSMT, ZFile, tar. Its digest is the
// one that accelerated-container-image has in its tests.
func TestGoldenDigest(t *testing.T) {
	const want = "022231c3f1af70e0cc42f0c3781eabf174cff608210585bf93fc83e16d33672d"
	l := openUpstream(t, "hello-world.overlaybd", Options{})
	h := l.Header()
	for _, workers := range []int{1, 4} {
		var body bytes.Buffer
		z, err := zfile.NewParallelWriter(&body, zfile.Config{}, workers)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Commit(z, stack(t, l), Config{UUID: h.UUID, Parent: h.Parent}); err != nil {
			t.Fatal(err)
		}
		info, err := z.Close()
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		w, err := tarshell.NewWriter(sum, info.Size)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range [][]byte{info.Header, body.Bytes()[zfile.HeaderSize:]} {
			if _, err := w.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != want {
			t.Errorf("%d workers: %s, want %s", workers, got, want)
		}
	}
}

// TestDebugfs has e2fsprogs read files of both layers from the merged device.
func TestDebugfs(t *testing.T) {
	tool, err := exec.LookPath("debugfs")
	if err != nil {
		if tool, err = exec.LookPath("/sbin/debugfs"); err != nil {
			t.Skip("no debugfs to judge the merged device")
		}
	}
	d := stack(t, openUpstream(t, "layer1.overlaybd", Options{}), openUpstream(t, "layer2.overlaybd", Options{}))
	image := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(d.Size()); err != nil {
		t.Skip("no room for a sparse file of 64 GiB:", err)
	}
	p := make([]byte, MaxLength*SectorSize)
	for _, s := range d.Segments() {
		part := p[:int(s.Length)*SectorSize]
		if _, err := d.ReadAt(part, int64(s.Start)*SectorSize); err != nil {
			t.Fatal(err)
		}
		for k := 0; k < len(part); k += 4096 { // leave holes
			if page := part[k:min(k+4096, len(part))]; !bytes.Equal(page, zeros[:len(page)]) {
				if _, err := f.WriteAt(page, int64(s.Start)*SectorSize+int64(k)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	low, top := members(t, "layer1.tar"), members(t, "layer2.tar")
	for path, want := range map[string]string{
		"usr/lib/a": top["usr/lib/a"], "opq/z": top["opq/z"], "newdir/sub/f": top["newdir/sub/f"], "big": low["big"], "hl": low["usr/lib/a"],
		"wo": "", "wodir/f": "", "opq/x": "", // removed
	} {
		out, err := exec.Command(tool, "-R", "cat "+path, image).Output()
		if err != nil || string(out) != want {
			t.Errorf("%s: %d bytes, %v; want %d", path, len(out), err, len(want))
		}
	}
}

// members returns the contents of a tar's files.
func members(t *testing.T, name string) map[string]string {
	t.Helper()
	out := map[string]string{}
	r := tar.NewReader(bytes.NewReader(vectors.Layer(t, name)))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(b)
	}
}

var zeros [4096]byte
