package badinput

import (
	"archive/tar"
	"fmt"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph/graphtest"
)

// onto has a case converted to overlaybd with these options, "NAME=VALUE".
func (w *world) onto(options ...string) {
	w.format, w.options = "overlaybd", map[string]string{}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		w.options[name] = value
	}
}

// overlaybds are the cases of layers that are right and that the file system of overlaybd cannot hold.
var overlaybds = []bad{
	{"nothing (works)", func(w *world) {
		w.onto("vsize=1")
		w.plain(some)
		w.names = []string{"etc/motd"}
	}},
	{"a file larger than the device, with `vsize=4M`", func(w *world) {
		w.onto("vsize=4M")
		w.plain(packed(file("large", strings.Repeat("x", 5<<20))))
		w.fails(abi.ErrLimit, "layer 0", `"large"`, "vsize")
	}},
	{"more files than the device has inodes, with `vsize=16M`", func(w *world) {
		w.onto("vsize=16M")
		var all []member
		for i := range 2000 {
			all = append(all, other(tar.TypeFifo, fmt.Sprintf("f%04d", i), ""))
		}
		w.plain(packed(all...))
		w.fails(abi.ErrLimit, "layer 0", "inode-ratio")
	}},
	{"9 000 bytes of extended attributes on a file", func(w *world) {
		w.onto()
		m := file("etc/motd", "hello")
		m.PAXRecords = map[string]string{"SCHILY.xattr.user.large": strings.Repeat("v", 9000)}
		w.plain(packed(file("a", ""), m))
		w.fails(abi.ErrUnsupported, "layer 0", `"etc/motd"`, "extended attributes")
	}},
	{"`vsize=0`", func(w *world) {
		w.onto("vsize=0")
		w.plain(some)
		w.fails(abi.ErrInvalid, "vsize=0")
	}},
	{"`fstype=erofs`", func(w *world) {
		w.onto("fstype=erofs")
		w.plain(some)
		w.fails(abi.ErrInvalid, "fstype=erofs", "ext4")
	}},
	{"256 layers", func(w *world) {
		w.onto("vsize=64M")
		w.many(256)
		w.fails(abi.ErrLimit, "layer 255", "at most 255", "squash")
	}},
}

// many makes an image of n layers that hold a file each.
func (w *world) many(n int) {
	var all []graphtest.Layer
	for i := range n {
		all = append(all, w.Layer(map[string]string{fmt.Sprintf("f%d", i): "x"}))
	}
	w.image(all...)
}

// What is wrong with a layer is wrong in every format.
func TestLayersInOverlaybd(t *testing.T) {
	for _, c := range layers {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, bad{c.what, func(w *world) {
				c.build(w)
				w.onto()
			}})
			w.throughHost()
		})
	}
}
