package ext4_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
)

// upstreamDevice stacks layers made by upstream.
func upstreamDevice(t *testing.T, names ...string) *lsmt.Device {
	t.Helper()
	var layers []*lsmt.Layer
	for _, name := range names {
		b := vectors.Layer(t, name)[1536:] // behind the headers of the tar around it
		b = b[:binary.LittleEndian.Uint64(b[40:])+4*binary.LittleEndian.Uint64(b[48:])+zfile.HeaderSize]
		f, err := zfile.Open(bytes.NewReader(b), int64(len(b)), zfile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := lsmt.Open(f, f.Size(), lsmt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	dev, err := lsmt.Stack(layers...)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func flattened(t testing.TB, tars ...[]byte) *flatten.Tree {
	t.Helper()
	tree := flatten.New(flatten.Options{})
	for _, b := range tars {
		if _, err := tree.ApplyTar(context.Background(), layer.NewReader(bytes.NewReader(b), layer.Limits{})); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// applyTar applies a tar and commits.
func applyTar(t testing.TB, ap *ext4.Applier, src io.Reader) ext4.Stats {
	t.Helper()
	r := layer.NewReader(src, layer.Limits{})
	var e abi.Entry
	for {
		err := r.Next(&e)
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ap.Apply(context.Background(), &e, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	st, err := ap.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// asUpstream changes what upstream does not keep of a record: parts of times, the text of links, the mode of a link.
func asUpstream(recs []flatten.Record) []flatten.Record {
	for i := range recs {
		r := &recs[i]
		r.MtimeNs = 0
		if r.Implied {
			r.MtimeSec, r.Implied = 0, false
		}
		if r.Kind == abi.KindSymlink {
			if r.Link = path.Clean(r.Link); r.Link == "x/y/z" {
				r.Link = "y/z"
			}
		}
		if r.Path == "uid70000" {
			r.UID, r.GID = 0, 0 // large numbers stand in pax records, which upstream ignores
		}
	}
	return recs
}

func TestUpstreamLayers(t *testing.T) {
	one, two := vectors.Layer(t, "layer1.tar"), vectors.Layer(t, "layer2.tar")
	for _, c := range []struct {
		layers []string
		tars   [][]byte
	}{{[]string{"layer1.overlaybd"}, [][]byte{one}}, {[]string{"layer1.overlaybd", "layer2.overlaybd"}, [][]byte{one, two}}} {
		dev := upstreamDevice(t, c.layers...)
		got := asUpstream(records(t, dev, dev.Size()))
		want := asUpstream(slices.Collect(flattened(t, c.tars...).Records()))
		opt := flatten.CompareOptions{IgnoreRoot: true}
		for _, d := range flatten.Compare(slices.Values(got), slices.Values(want), opt) {
			t.Errorf("%v: upstream first, flatten second: %v", c.layers, d)
		}
	}
}

// Our layer goes on upstream's, and e2fsck has nothing to say about it that it does not say about upstream's.
func TestOnUpstream(t *testing.T) {
	base := upstreamDevice(t, "layer1.overlaybd")
	dev := ext4.NewOverlay(base, base.Size(), nil)
	ap, err := ext4.NewApplier(dev, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	st := applyTar(t, ap, bytes.NewReader(vectors.Layer(t, "layer2.tar")))
	t.Logf("%d blocks changed: %+v", dev.Changed(), st)
	if dev.Changed() > 20 {
		t.Errorf("%d blocks changed, want few", dev.Changed())
	}
	got := asUpstream(records(t, dev, dev.Size()))
	want := asUpstream(slices.Collect(flattened(t, vectors.Layer(t, "layer1.tar"), vectors.Layer(t, "layer2.tar")).Records()))
	for _, d := range flatten.Compare(slices.Values(got), slices.Values(want), flatten.CompareOptions{IgnoreRoot: true}) {
		t.Errorf("ours on upstream's first, flatten second: %v", d)
	}
	tool := find("e2fsck")
	if tool == "" {
		missing(t, "e2fsck")
		return
	}
	var runs []ext4.Run
	for _, s := range base.Segments() {
		first, last := uint64(s.Start)/8, (uint64(s.Start)+uint64(s.Length)-1)/8
		runs = append(runs, ext4.Run{Block: first, Count: last - first + 1})
	}
	for _, l := range complaints(t, tool, sparse(t, dev, dev.Size(), append(runs, dev.Changes()...))) {
		// upstream's own mkfs leaves a block of lost+found out of its index
		if l != "" && !strings.HasPrefix(l, "Pass ") && !strings.Contains(l, "HTREE directory inode 11") {
			t.Errorf("e2fsck: %s", l)
		}
	}
}

// complaints are e2fsck's lines about an image, without its statistics.
func complaints(t *testing.T, tool, image string) []string {
	t.Helper()
	out, _ := exec.Command(tool, "-fn", image).CombinedOutput()
	var keep []string
	for _, l := range strings.Split(string(out), "\n") {
		if !strings.Contains(l, "/image") && !strings.HasPrefix(l, "e2fsck") {
			keep = append(keep, l)
		}
	}
	return keep
}
