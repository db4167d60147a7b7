package judges

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/internal/session"
	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/sdk"
	"github.com/convhost/convhost/test/judge"
	"github.com/convhost/convhost/test/rawobd"
)

// obdTools are upstream's programs, in the directory that CONVHOST_OVERLAYBD_TOOLS names. They are not packaged anywhere and
// not part of CI.
type obdTools struct {
	t        testing.TB
	bin, dir string
	n        int
}

func newOBDTools(t testing.TB) *obdTools {
	t.Helper()
	bin := os.Getenv("CONVHOST_OVERLAYBD_TOOLS")
	if bin == "" {
		t.Skip("skipped: CONVHOST_OVERLAYBD_TOOLS names no directory with overlaybd-create, -apply, -commit, -merge, -zfile and turboOCI-apply")
	}
	const config = "/etc/overlaybd/overlaybd.json"
	if _, err := os.Stat(config); err != nil {
		t.Skipf("skipped: overlaybd's tools need a configuration: %v", err)
	}
	return &obdTools{t: t, bin: bin, dir: t.TempDir()}
}

func (u *obdTools) run(name string, args ...string) {
	u.t.Helper()
	judge.Run(u.t, filepath.Join(u.bin, name), args...)
}

// file returns the name of a file to be.
func (u *obdTools) file(name string) string {
	u.n++
	return filepath.Join(u.dir, fmt.Sprintf("%d-%s", u.n, name))
}

// device writes a configuration of layers, lowest first, and of what is written upon them.
func (u *obdTools) device(lowers []string, upper map[string]string) string {
	u.t.Helper()
	type lower struct {
		File string `json:"file"`
	}
	all := []lower{}
	for _, l := range lowers {
		all = append(all, lower{l})
	}
	doc := map[string]any{"lowers": all, "resultFile": u.file("result")}
	if upper != nil {
		doc["upper"] = upper
	}
	b, err := json.Marshal(doc)
	if err != nil {
		u.t.Fatal(err)
	}
	return u.write("config.json", b)
}

func (u *obdTools) write(name string, b []byte) string {
	u.t.Helper()
	name = u.file(name)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		u.t.Fatal(err)
	}
	return name
}

// layer lets them make a layer of a tar upon others, as their convertor does.
func (u *obdTools) layer(tar string, lowers ...string) string {
	u.t.Helper()
	data, index, out := u.file("data"), u.file("index"), u.file("layer")
	create := []string{data, index, "64", "-s", "--mkfs"}
	if len(lowers) > 0 {
		create = []string{data, index, "0", "-s"}
	}
	u.run("overlaybd-create", create...)
	u.run("overlaybd-apply", tar, u.device(lowers, map[string]string{"data": data, "index": index}))
	u.run("overlaybd-commit", data, index, out, "-z", "-t")
	return out
}

// merge lets them flatten layers into one.
func (u *obdTools) merge(layers []string) []byte {
	u.t.Helper()
	out := u.file("merged")
	u.run("overlaybd-merge", u.device(layers, nil), out)
	return read(u.t, out)
}

// tarOf writes the tar of a layer to a file.
func (u *obdTools) tarOf(l sourceLayer) string {
	u.t.Helper()
	name := u.file("layer.tar")
	l.tar(u.t, func(r io.Reader) error {
		f, err := os.Create(name)
		if err == nil {
			_, err = io.Copy(f, r)
			f.Close()
		}
		return err
	})
	return name
}

// stacked is the device of layers.
func stacked(t testing.TB, layers ...string) *rawobd.Device {
	t.Helper()
	dev := newDevice(t)
	for _, l := range layers {
		dev.Apply(rawobd.LSMT(read(t, l)), nil)
	}
	return dev
}

// obdCases are images that both sides can convert.
func obdCases(t *testing.T, verdict func(t *testing.T, u *obdTools, c *chain)) {
	newOBDTools(t)
	judge.Root(t)
	h := newHost(t)
	for _, tag := range []string{"kitchen", "special", "nodata"} {
		t.Run(tag, func(t *testing.T) { verdict(t, newOBDTools(t), convertChain(t, h, ext4Source(t, tag), "", nil)) })
	}
	t.Run("demo", func(t *testing.T) { verdict(t, newOBDTools(t), convertChain(t, h, demo+":demo", "linux/amd64", nil)) })
	t.Run("debian", func(t *testing.T) { verdict(t, newOBDTools(t), convertChain(t, h, debian(t), "", nil)) })
}

// Upstream verifies and extracts every layer, and its merge of every chain is the device that ours makes.
func TestOverlaybdTools(t *testing.T) {
	obdCases(t, func(t *testing.T, u *obdTools, c *chain) {
		for i, b := range c.blobs {
			u.run("overlaybd-zfile", "--verify", b)
			out := u.file("lsmt")
			u.run("overlaybd-zfile", "-x", "-t", b, out)
			if !bytes.Equal(read(t, out), rawobd.LSMT(read(t, b))) {
				t.Errorf("layer %d: overlaybd-zfile extracts something else", i)
			}
			merged := newDevice(t)
			merged.Apply(rawobd.LSMT(u.merge(c.blobs[:i+1])), nil)
			sameDevices(t, merged, stacked(t, c.blobs[:i+1]...))
		}
	})
}

func sameDevices(t testing.TB, a, b *rawobd.Device) {
	t.Helper()
	if d := rawobd.Differ(a, b); len(d) > 0 || a.Size != b.Size {
		t.Errorf("%d and %d bytes, %d blocks differ, the first at %#x", a.Size, b.Size, len(d), d[:min(len(d), 5)])
	}
}

// Upstream applies each layer upon ours of the layers below it: e2fsck finds nothing, and the tree is that of the source, but
// for what upstream does not keep.
func TestOverlaybdToolsOnOurs(t *testing.T) {
	obdCases(t, onOurs)
	h := newHost(t)
	// On devices of up to 8 GiB, and where a layer has an entry for a large root directory, upstream breaks its own, too: stale
	// counters in the superblock, and a second ".".
	for seed := range 4 {
		t.Run(fmt.Sprint("wear", seed), func(t *testing.T) {
			w := newWear(uint64(100 + seed))
			w.rootless = true
			ref := sourceOf(t, "wear", w.layer(), w.layer(), w.layer(), w.layer())
			onOurs(t, newOBDTools(t), convertChain(t, h, ref, "", map[string]string{"vsize": "16"}))
		})
	}
}

func onOurs(t *testing.T, u *obdTools, c *chain) {
	fsck := judge.Tool(t, "e2fsck")
	tree := flatten.New(flatten.Options{})
	for i, l := range c.source {
		if l.apply(t, tree); i == 0 {
			continue
		}
		top := u.layer(u.tarOf(l), c.blobs[:i]...)
		dev := stacked(t, append(slices.Clone(c.blobs[:i]), top)...)
		fsckClean(t, judge.Run(t, fsck, "-fn", dev.File.Name()))
		sameTrees(t, dev, tree)
		t.Logf("layer %d: ours %d bytes, upstream's on ours %d", i, size(t, c.blobs[i]), size(t, top))
	}
}

func size(t testing.TB, file string) int64 {
	t.Helper()
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// We apply each layer upon upstream's of the layers below it, and upstream reads the result.
func TestOverlaybdOnTools(t *testing.T) {
	fsck := judge.Tool(t, "e2fsck")
	obdCases(t, func(t *testing.T, u *obdTools, c *chain) {
		tree := flatten.New(flatten.Options{})
		var theirs []string
		for i, l := range c.source {
			l.apply(t, tree)
			tar := u.tarOf(l)
			if i > 0 {
				ours := u.write("ours", convertOn(t, tar, theirs))
				all := append(slices.Clone(theirs), ours)
				dev := stacked(t, all...)
				out, _ := judge.Try("", fsck, "-fn", dev.File.Name())
				fsckClean(t, out, ownFaults...)
				sameTrees(t, dev, tree)
				merged := newDevice(t)
				merged.Apply(rawobd.LSMT(u.merge(all)), nil)
				sameDevices(t, merged, dev)
				t.Logf("layer %d: ours on upstream's %d bytes", i, size(t, ours))
			}
			theirs = append(theirs, u.layer(tar, theirs...))
		}
	})
}

// ownFaults are what e2fsck says about upstream's own mkfs: a block of lost+found is not in its index.
var ownFaults = []string{"HTREE directory inode 11", "WARNING: Filesystem still has errors"}

// outFile is an output in memory.
type outFile struct{ bytes.Buffer }

func (*outFile) Close(abi.StreamInfo) error { return nil }
func (*outFile) Abort()                     {}

// convertOn makes a layer upon layers that the host did not convert.
func convertOn(t testing.TB, tar string, lowers []string) []byte {
	t.Helper()
	body := read(t, tar)
	sum := digest.FromBytes(body).String()
	info := abi.LayerInfo{Index: len(lowers), MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: sum, Size: int64(len(body)), DiffID: sum, ChainID: sum}
	req := &abi.ConvertRequest{Layer: info, Features: abi.Features()}
	var out outFile
	cfg := session.Config{
		Pool: accel.NewPool(2, 16<<20), Input: abi.RoleLayerEntries, OpenSink: func(int) (session.Sink, error) { return &out, nil },
		Layer: &session.Layer{Open: func(context.Context) (io.ReadCloser, error) { return os.Open(tar) }, MediaType: info.MediaType, Digest: sum, Size: info.Size, DiffID: sum},
	}
	defer cfg.Pool.Close()
	for i, l := range lowers {
		b := read(t, l)
		req.Parents = append(req.Parents, abi.PartInfo{MediaType: info.MediaType, Layer: i, Digest: digest.FromBytes(b).String(), Size: int64(len(b))})
		cfg.Parents = append(cfg.Parents, session.Part{At: bytes.NewReader(b), Size: int64(len(b))})
	}
	s := session.New(t.Context(), cfg)
	defer s.Abort()
	_, err := sdk.InProcess(overlaybd.New()).Call(t.Context(), abi.OpConvertLayer, abi.Marshal(req), s)
	if err == nil {
		err = s.Finish()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// sameTrees compares the file system on a device with a tree, but for what upstream does not keep: numbers that stand in pax
// records, parts of seconds, links as they are written, and the times of directories that no entry describes.
func sameTrees(t testing.TB, dev *rawobd.Device, tree *flatten.Tree) {
	t.Helper()
	got := kernelRecords(t, dev)
	opt := flatten.CompareOptions{WholeSeconds: true, ImpliedUnspecified: true, IgnoreRoot: true}
	report(t, flatten.Compare(asUpstream(tree.Records()), asUpstream(slices.Values(got)), opt))
}

func asUpstream(all iter.Seq[flatten.Record]) iter.Seq[flatten.Record] {
	return func(yield func(flatten.Record) bool) {
		for r := range all {
			if r.UID > 0o7777777 {
				r.UID = 0
			}
			if r.GID > 0o7777777 {
				r.GID = 0
			}
			if r.MtimeSec < 0 || r.MtimeSec > 1<<32 {
				r.MtimeSec = 0
			}
			if r.Kind == abi.KindSymlink {
				r.Link = path.Clean(r.Link)
			}
			if !yield(r) {
				return
			}
		}
	}
}
