// Command estargz is a convhost plugin for eStargz: a tar.gz layer that runtimes can also read file by file.
//
//	gzip member: tar headers        one or more, up to the next file body
//	gzip member: a chunk of a body  one for each chunk-size bytes; every chunk starts a member
//	…
//	gzip member: stargz.index.json  the table of contents (TOC), the last tar entry
//	gzip member, empty: the footer  51 bytes; its extra field holds the offset of the TOC
//
// The members together are an ordinary layer for everybody who does not know the format. Who knows it reads the footer, then
// the TOC, whose digest is an annotation of the layer, and fetches chunks of files when they are needed; each has its
// SHA-256 in the TOC. The format is described in docs/estargz.md of github.com/containerd/stargz-snapshotter.
//
// The plugin shows how a format is written against convhost's SDK: main.go says what it is, convert.go makes layers,
// toc.go knows the bytes, unpack.go reads layers back and checks them. No byte of a file passes through it: bodies are
// jobs of a plan, compressed and digested by the host on all cores.
package main

import (
	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

func main() { sdk.Main(plugin{}) }

type plugin struct{}

// version is part of cache keys: it changes when the bytes of a layer would.
const version = "0.1.0"

// Media types and annotations of the field.
const (
	mediaTypeOCI     = "application/vnd.oci.image.layer.v1.tar+gzip"
	mediaTypeDocker  = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	annotationDigest = "containerd.io/snapshot/stargz/toc.digest"
	annotationSize   = "io.containers.estargz.uncompressed-size"
)

// Describe implements sdk.Plugin.
func (plugin) Describe() abi.Description {
	return abi.Description{
		Name:    "estargz",
		Version: version,
		Summary: "eStargz layers: ordinary tar.gz that stargz-snapshotter loads lazily",
		Input:   abi.RoleLayerEntries,
		Options: []abi.OptionSpec{
			{Name: "chunk-size", Default: "4M", Help: "bytes of a chunk, 4K to 16M"},
			{Name: "level", Default: "6", Help: "gzip level, 1 to 9"},
		},
		Markers: []abi.Marker{{Annotation: annotationDigest}},
		Needs:   []string{"entries", "codec/gzip", "digest/sha256", "rawsum/shared", "decode", "decode/prefix"},
		Memory:  64 << 20,
	}
}

type settings struct {
	chunk int
	level int
}

func parseOptions(o map[string]string) (settings, error) {
	size, err := sdk.Size(o, "chunk-size", 4<<20)
	if err != nil {
		return settings{}, err
	}
	if size < abi.MinChunkSize || size > abi.MaxChunkSize {
		return settings{}, abi.Errorf(abi.ErrInvalid, "option chunk-size=%s: want 4K to 16M", o["chunk-size"])
	}
	level, err := sdk.Int(o, "level", 6, 1, 9)
	return settings{int(size), level}, err
}
