package ext4_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/convhost/convhost/internal/layer/inflate"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// realLayers returns the decompressed layers of the amd64 Debian image in the shared test data.
func realLayers(t testing.TB) (tars [][]byte) {
	t.Helper()
	dir := os.Getenv("CONVHOST_TESTDATA")
	if dir == "" {
		t.Skip("CONVHOST_TESTDATA is not set: no real images here")
	}
	dir = filepath.Join(dir, "images", "debian-multi")
	blob := func(d digest.Digest) []byte {
		b, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", d.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	var manifest ocispec.Manifest
	if err := json.Unmarshal(b, &index); err != nil {
		t.Fatal(err)
	}
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == "amd64" {
			if err := json.Unmarshal(blob(d.Digest), &manifest); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, l := range manifest.Layers {
		s, err := inflate.Open(t.Context(), bytes.NewReader(blob(l.Digest)), inflate.Options{})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(s)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		tars = append(tars, raw)
	}
	if len(tars) == 0 {
		t.Fatal("no layers in the amd64 image")
	}
	return tars
}

// spillFile is a temporary file for changed blocks.
func spillFile(t testing.TB) *os.File {
	f, err := os.Create(filepath.Join(t.TempDir(), "spill"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestRealImage(t *testing.T) {
	tars := realLayers(t)
	tree := flattened(t, tars...)
	dev := ext4.NewOverlay(nil, 64<<30, spillFile(t))
	for i, b := range tars {
		var ap *ext4.Applier
		var err error
		if i == 0 {
			ap, err = ext4.Format(dev, ext4.MkfsOptions{}, ext4.Options{})
		} else {
			ap, err = ext4.NewApplier(dev, ext4.Options{})
		}
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		before := dev.Changed()
		st := applyTar(t, ap, bytes.NewReader(b))
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("layer %d: %d bytes in %v, %d blocks more, %+v", i, len(b), time.Since(start).Round(time.Millisecond), dev.Changed()-before, st)
	}
	judged(t, dev, tree)
	mounted(t, dev, tree)
}

// The heaviest layer for metadata: small files.
func BenchmarkSmallFiles(b *testing.B) {
	body := strings.Repeat("x", 5000)
	for b.Loop() {
		dev := ext4.NewOverlay(nil, 64<<30, spillFile(b))
		ap, err := ext4.Format(dev, ext4.MkfsOptions{}, ext4.Options{})
		if err != nil {
			b.Fatal(err)
		}
		for i := range 60_000 {
			m := smallFile(i, body)
			if err := ap.Apply(b.Context(), &m.Entry, strings.NewReader(m.body)); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := ap.Commit(); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(60_000 * 5000)
	}
}
