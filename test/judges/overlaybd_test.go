package judges

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/test/judge"
	"github.com/convhost/convhost/test/kitchen"
	"github.com/convhost/convhost/test/ocidir"
	"github.com/convhost/convhost/test/rawobd"
)

// chain is a converted overlaybd image beside its source, taken apart without our reader.
type chain struct {
	source []sourceLayer
	blobs  []string // files with the layers, lowest first; one more than sources if there is a base layer
}

func convertChain(t testing.TB, h *host.Host, ref, platform string, options map[string]string) *chain {
	t.Helper()
	c := &chain{source: sourceLayers(t, ref, platform)}
	d := ocidir.Open(t, convertTo(t, h, "overlaybd", ref, platform, options))
	for _, l := range d.Manifest("out", platform).Layers {
		d.Read(l) // has the right digest
		c.blobs = append(c.blobs, d.Blob(l.Digest))
	}
	if n := len(c.blobs) - len(c.source); n != 0 && n != 1 {
		t.Fatalf("%d layers became %d", len(c.source), len(c.blobs))
	}
	return c
}

// base is the number of layers that have no source.
func (c *chain) base() int { return len(c.blobs) - len(c.source) }

// each builds the device layer by layer and judges it after each: tree is what the source's layers make up to there.
func (c *chain) each(t *testing.T, verdict func(t *testing.T, dev *rawobd.Device, tree *flatten.Tree)) {
	dev, tree := newDevice(t), flatten.New(flatten.Options{})
	for i, b := range c.blobs {
		dev.Apply(rawobd.LSMT(read(t, b)), nil)
		if i >= c.base() {
			c.source[i-c.base()].apply(t, tree)
		}
		t.Run(strconv.Itoa(i), func(t *testing.T) { verdict(t, dev, tree) })
	}
}

func newDevice(t testing.TB) *rawobd.Device {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "device"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return rawobd.New(f)
}

// ext4Source is source with what ext4 can hold: extended attributes of one file take a block at most.
func ext4Source(t testing.TB, tag string) string {
	t.Helper()
	base, less := kitchen.Base(), kitchen.BaseWith(3800)
	var tars [][]byte
	for _, tar := range images[tag] {
		if bytes.Equal(tar, base) {
			tar = less
		}
		tars = append(tars, tar)
	}
	return sourceOf(t, tag, tars...)
}

// chainCases are what the readers of ext4 judge: images with every layer kind, and options that change the file system.
func chainCases(t *testing.T, verdict func(t *testing.T, dev *rawobd.Device, tree *flatten.Tree)) {
	h := newHost(t)
	run := func(name, ref, platform string, o map[string]string) {
		t.Run(name, func(t *testing.T) { convertChain(t, h, ref, platform, o).each(t, verdict) })
	}
	for tag := range images {
		run(tag, ext4Source(t, tag), "", nil)
	}
	for name, o := range map[string]map[string]string{
		"base":      {"mkfs": "false"},
		"checksums": {"checksums": "true"},
		"zeros":     {"disable-sparse": "true"},
		"small":     {"vsize": "256M", "inode-ratio": "4K"},
		"large":     {"vsize": "256"},
		"zstd":      {"compression": "zstd", "block-size": "32K"},
	} {
		run("kitchen-"+name, ext4Source(t, "kitchen"), "", o)
	}
	for _, p := range []string{"linux/amd64", "linux/arm64"} {
		run("demo/"+filepath.Base(p), demo+":demo", p, nil)
	}
	t.Run("debian", func(t *testing.T) { convertChain(t, h, debian(t), "", nil).each(t, verdict) })
}

// e2fsck finds nothing on the device of layers 0 to i, for every i; dumpe2fs and debugfs see a file system of the device's size
// with the names of the source in its root.
func TestE2fsck(t *testing.T) { chainCases(t, e2fsckVerdict(t)) }

// e2fsckVerdict judges a device by e2fsprogs.
func e2fsckVerdict(t *testing.T) func(t *testing.T, dev *rawobd.Device, tree *flatten.Tree) {
	fsck, dump, debug := judge.Tool(t, "e2fsck"), judge.Tool(t, "dumpe2fs"), judge.Tool(t, "debugfs")
	return func(t *testing.T, dev *rawobd.Device, tree *flatten.Tree) {
		file := dev.File.Name()
		fsckClean(t, judge.Run(t, fsck, "-fn", file))
		head := map[string]string{}
		for l := range strings.Lines(judge.Run(t, dump, "-h", file)) {
			k, v, _ := strings.Cut(l, ":")
			head[k] = strings.TrimSpace(v)
		}
		if want := strconv.FormatInt(dev.Size/4096, 10); head["Block count"] != want || head["Filesystem state"] != "clean" {
			t.Errorf("dumpe2fs: %s blocks, state %s; want %s, clean", head["Block count"], head["Filesystem state"], want)
		}
		var want []string
		for r := range tree.Records() {
			if r.Path != "" && !strings.Contains(r.Path, "/") {
				want = append(want, r.Path)
			}
		}
		got := rootNames(judge.Run(t, debug, "-R", "ls -p /", file))
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("debugfs lists %q, want %q", got, want)
		}
	}
}

// fsckClean fails the test if e2fsck found something. allowed are parts of lines that do not count.
func fsckClean(t testing.TB, out string, allowed ...string) {
	t.Helper()
	for l := range strings.Lines(out) {
		l = strings.TrimSpace(l)
		ok := l == "" || strings.HasPrefix(l, "e2fsck ") || strings.HasPrefix(l, "Pass ") || strings.Contains(l, " files (")
		if !ok && !slices.ContainsFunc(allowed, func(a string) bool { return strings.Contains(l, a) }) {
			t.Errorf("e2fsck: %s", l)
		}
	}
}

// rootNames reads lines like /12/040755/0/0/etc//; inode 0 means that an entry is free.
func rootNames(out string) (names []string) {
	for l := range strings.Lines(out) {
		f := strings.Split(l, "/")
		if len(f) > 6 && f[1] != "0" && !slices.Contains([]string{".", "..", "lost+found"}, f[5]) {
			names = append(names, f[5])
		}
	}
	slices.Sort(names)
	return names
}

// e2fsck and the comparison have teeth: one changed bit of a bitmap and one of an inode are found.
func TestE2fsckFinds(t *testing.T) {
	fsck := judge.Tool(t, "e2fsck")
	c := convertChain(t, newHost(t), source(t, "nodata"), "", nil)
	dev := newDevice(t)
	dev.Apply(rawobd.LSMT(read(t, c.blobs[0])), nil)
	fsckClean(t, judge.Run(t, fsck, "-fn", dev.File.Name()))
	group := make([]byte, 12) // the first descriptor: where block bitmap, inode bitmap and inode table are
	if _, err := dev.ReadAt(group, 4096); err != nil {
		t.Fatal(err)
	}
	for i, what := range []string{"block bitmap", "inode bitmap", "inode table"} {
		at := int64(group[4*i]) | int64(group[4*i+1])<<8 | int64(group[4*i+2])<<16
		at = at*4096 + 256 // for the table: mode of the root directory, inode 2
		var old [2]byte
		if _, err := dev.ReadAt(old[:], at); err != nil {
			t.Fatal(err)
		}
		if _, err := dev.File.WriteAt([]byte{old[0], old[1] ^ 0x60}, at); err != nil {
			t.Fatal(err)
		}
		if out, err := judge.Try("", fsck, "-fn", dev.File.Name()); err == nil {
			t.Errorf("e2fsck does not find a damaged %s:\n%s", what, out)
		}
		if _, err := dev.File.WriteAt(old[:], at); err != nil {
			t.Fatal(err)
		}
	}
}
