package badinput

import (
	"compress/gzip"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
)

// turbos are the cases of layers that are right and that TurboOCI cannot refer to.
var turbos = []bad{
	{"nothing (works)", func(w *world) {
		w.format = "turboci"
		w.stored(ocispec.MediaTypeImageLayerGzip, zip(some, gzip.BestSpeed), digest.FromBytes(some))
		w.names = []string{"etc/motd"}
	}},
	{"a plain tar (works)", func(w *world) {
		w.format = "turboci"
		w.plain(some)
		w.names = []string{"etc/motd"}
	}},
	{"a layer of two gzip members", func(w *world) {
		w.format = "turboci"
		first := zip(some[:1000], gzip.NoCompression)
		w.stored(ocispec.MediaTypeImageLayerGzip, append(first, zip(some[1000:], gzip.NoCompression)...), digest.FromBytes(some))
		w.fails(abi.ErrUnsupported, "layer 0", "gzip at 0x", "as one member", "overlaybd")
	}},
	{"a zstd layer", func(w *world) {
		w.format = "turboci"
		z, err := zstd.NewWriter(nil)
		w.must(err)
		w.stored(ocispec.MediaTypeImageLayerZstd, z.EncodeAll(some, nil), digest.FromBytes(some))
		w.fails(abi.ErrUnsupported, "layer 0", "zstd", "format overlaybd")
	}},
	{"more than `--limit-layer-size=1MiB` in one gzip member", func(w *world) {
		w.format = "turboci"
		w.stored(ocispec.MediaTypeImageLayerGzip, zip(make([]byte, 4<<20), gzip.BestSpeed), digest.FromBytes(make([]byte, 4<<20)))
		w.limits.LayerBytes = 1 << 20
		w.fails(abi.ErrLimit, "layer 0", "gzip at 0x", "at most 1048576")
	}},
	{"`fstype=erofs`", func(w *world) {
		w.format, w.options = "turboci", map[string]string{"fstype": "erofs"}
		w.plain(some)
		w.fails(abi.ErrUnsupported, "fstype=erofs")
	}},
}

// What is wrong with a layer is wrong in this format, too, which decompresses and parses layers itself.
func TestLayersInTurbo(t *testing.T) {
	for _, c := range layers {
		if strings.Contains(c.what, "zstd") && !strings.HasPrefix(c.what, "gzip") || strings.HasPrefix(c.what, "a second gzip member") || strings.HasPrefix(c.what, "a gzip bomb") {
			continue // not what this format takes: zstd, and several members
		}
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, bad{c.what, func(w *world) {
				c.build(w)
				w.format, w.options = "turboci", map[string]string{}
			}})
			w.throughHost()
		})
	}
}
