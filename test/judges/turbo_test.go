package judges

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/test/ocidir"
	"github.com/convhost/convhost/test/rawobd"
)

const targetDigest = "containerd.io/snapshot/overlaybd/turbo-oci/target-digest"

// turboLayer is a layer of a converted TurboOCI image, taken apart without our reader.
type turboLayer struct {
	blob    string            // file
	members map[string][]byte // nil for a base layer
	source  sourceLayer
	tar     string // file with the source's tar
}

// convertTurbo converts an image, whose original layers must have come along.
func convertTurbo(t testing.TB, h *host.Host, ref, platform string, options map[string]string) (out []turboLayer) {
	t.Helper()
	source := sourceLayers(t, ref, platform)
	d := ocidir.Open(t, convertTo(t, h, "turboci", ref, platform, options))
	for _, l := range d.Manifest("out", platform).Layers {
		d.Read(l) // has the right digest
		c := turboLayer{blob: d.Blob(l.Digest)}
		if target := l.Annotations[targetDigest]; target != "" {
			c.source, source = source[0], source[1:]
			if target != c.source.Digest.String() {
				t.Fatalf("the original of layer %d is %s, want %s", len(out), target, c.source.Digest)
			}
			d.Read(descriptor{Digest: c.source.Digest, Size: c.source.Size})
			c.members = rawobd.Members(read(t, c.blob))
			c.tar = writeTar(t, c.source)
		}
		out = append(out, c)
	}
	if len(source) > 0 {
		t.Fatalf("%d source layers were not converted", len(source))
	}
	return out
}

// writeTar writes the tar of a layer to a file.
func writeTar(t testing.TB, l sourceLayer) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "layer.tar")
	l.tar(t, func(r io.Reader) error {
		f, err := os.Create(name)
		if err == nil {
			_, err = io.Copy(f, r)
			f.Close()
		}
		return err
	})
	return name
}

// apply puts a layer upon a device.
func (l *turboLayer) apply(t testing.TB, dev *rawobd.Device) {
	t.Helper()
	if l.members == nil {
		dev.Apply(rawobd.LSMT(read(t, l.blob)), nil)
		return
	}
	tar, err := os.Open(l.tar)
	if err != nil {
		t.Fatal(err)
	}
	defer tar.Close()
	dev.Apply(rawobd.LSMT(l.members["ext4.fs.meta"]), tar)
}

// turboCases are what the readers of ext4 judge: the device after each layer.
func turboCases(t *testing.T, verdict func(t *testing.T, dev *rawobd.Device, tree *flatten.Tree)) {
	h := newHost(t)
	run := func(name, ref, platform string, o map[string]string) {
		t.Run(name, func(t *testing.T) {
			dev, tree := newDevice(t), flatten.New(flatten.Options{})
			for i, l := range convertTurbo(t, h, ref, platform, o) {
				if l.apply(t, dev); l.members != nil {
					l.source.apply(t, tree)
				}
				t.Run(strconv.Itoa(i), func(t *testing.T) { verdict(t, dev, tree) })
			}
		})
	}
	for tag := range images {
		run(tag, ext4Source(t, tag), "", nil)
	}
	for name, o := range map[string]map[string]string{
		"base": {"mkfs": "false"}, "checksums": {"checksums": "true"}, "small": {"vsize": "256M", "inode-ratio": "4K"}, "large": {"vsize": "256"},
	} {
		run("kitchen-"+name, ext4Source(t, "kitchen"), "", o)
	}
	for _, p := range []string{"linux/amd64", "linux/arm64"} {
		run("demo/"+filepath.Base(p), demo+":demo", p, nil)
	}
	for seed := range 3 {
		run(fmt.Sprint("wear", seed), wearSource(t, seed), "", map[string]string{"vsize": "128M", "inode-ratio": "4K"})
	}
	t.Run("debian", func(t *testing.T) { run("", debian(t), "", nil) })
}

// e2fsck finds nothing on the device of TurboOCI layers 0 to i, for every i.
func TestTurboE2fsck(t *testing.T) { turboCases(t, e2fsckVerdict(t)) }
