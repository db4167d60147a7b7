package judges

import (
	"encoding/json"
	"testing"

	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/test/judge"
	"github.com/convhost/convhost/test/rawobd"
)

// The kernel mounts the device of TurboOCI layers 0 to i, for every i, and every attribute of every name is that of the flattened
// source.
func TestTurboKernelExt4(t *testing.T) {
	judge.Root(t)
	kernelHas(t, "ext4")
	turboCases(t, kernelVerdict)
}

// turboLower is a layer as upstream's configuration names it: data comes from the original, decompressed through the gzip index.
type turboLower struct {
	File       string `json:"file"`
	TargetFile string `json:"targetFile,omitempty"`
	GzipIndex  string `json:"gzipIndex,omitempty"`
}

// turboDevice writes a configuration of our layers.
func (u *obdTools) turboDevice(layers []turboLayer, upper map[string]string) string {
	u.t.Helper()
	doc := map[string]any{"resultFile": u.file("result")}
	lowers := []turboLower{}
	for _, l := range layers {
		c := turboLower{File: u.write("ext4.fs.meta", l.members["ext4.fs.meta"]), TargetFile: l.source.file}
		if index := l.members["gzip.meta"]; index != nil {
			c.GzipIndex = u.write("gzip.meta", index)
		}
		lowers = append(lowers, c)
	}
	doc["lowers"] = lowers
	if upper != nil {
		doc["upper"] = upper
	}
	b, err := json.Marshal(doc)
	if err != nil {
		u.t.Fatal(err)
	}
	return u.write("config.json", b)
}

// Upstream merges every chain of ours, reading data through our gzip index, into the device that ours makes; and it applies each
// layer upon ours of the layers below it.
func TestTurboTools(t *testing.T) {
	newOBDTools(t)
	judge.Root(t)
	fsck := judge.Tool(t, "e2fsck")
	h := newHost(t)
	run := func(name, ref, platform string) {
		t.Run(name, func(t *testing.T) {
			u := newOBDTools(t)
			layers, tree := convertTurbo(t, h, ref, platform, nil), flatten.New(flatten.Options{})
			dev := newDevice(t)
			for i, l := range layers {
				if i > 0 {
					u.onOurs(fsck, layers[:i], l, tree)
				} else {
					l.source.apply(t, tree)
				}
				l.apply(t, dev)
				out := u.file("merged")
				u.run("overlaybd-merge", u.turboDevice(layers[:i+1], nil), out)
				merged := newDevice(t)
				merged.Size = dev.Size // what it merges of metadata layers says nothing of it
				merged.Apply(rawobd.LSMT(read(t, out)), nil)
				sameDevices(t, merged, dev)
			}
		})
	}
	for _, tag := range []string{"kitchen", "special", "nodata"} {
		run(tag, ext4Source(t, tag), "")
	}
	run("demo", demo+":demo", "linux/amd64")
	t.Run("debian", func(t *testing.T) { run("", debian(t), "") })
}

// onOurs lets upstream's turboOCI-apply put a layer upon ours, and compares what is on the device then.
func (u *obdTools) onOurs(fsck string, lower []turboLayer, top turboLayer, tree *flatten.Tree) {
	u.t.Helper()
	data, index, meta, gz := u.file("data"), u.file("index"), u.file("ext4.fs.meta"), u.file("gzip.meta")
	u.run("overlaybd-create", data, index, "-s", "64", "--turboOCI")
	u.run("turboOCI-apply", top.source.file, u.turboDevice(lower, map[string]string{"data": data, "index": index, "target": top.source.file}), "--gz_index_path", gz)
	u.run("overlaybd-commit", data, index, meta, "-z", "--fastoci")
	dev := newDevice(u.t)
	for _, l := range lower {
		l.apply(u.t, dev)
	}
	theirs := turboLayer{members: map[string][]byte{"ext4.fs.meta": read(u.t, meta)}, tar: top.tar}
	theirs.apply(u.t, dev)
	fsckClean(u.t, judge.Run(u.t, fsck, "-fn", dev.File.Name()))
	top.source.apply(u.t, tree)
	sameTrees(u.t, dev, tree)
}
