// Package nydus is the plugin for nydus images: RAFS v6, as nydusd, nydus-snapshotter and the kernel's EROFS read it.
//
// One layer becomes one blob, complete in itself:
//
//	chunk data | chunk-info array | header | digests | bootstrap | table of contents
//
// and an image becomes its blobs plus one bootstrap layer, a tar.gz with the merged file system tree. The bytes are those
// of nydus-image 2.2 and later (type tar-rafs with inlined bootstrap and ToC) but for the compressor's; package rafs6
// holds the format. Media types, annotations, diff IDs and history are those of nydus-snapshotter's converter, so that
// its tools, nydusify and nydusd take our images for theirs.
//
// What we do otherwise than upstream, on purpose: directories that a layer implies but does not list leave those of lower
// layers alone; whiteouts of the lowest layer disappear; attributes are written in order of their names; symbolic links
// that lead to a parent are followed; hostile entries are errors. docs/rationale.md says why.
//
// The plugin does the layout. File bodies pass through a plan of the host (chunk, digest, CRC, compress, deduplicate)
// and never enter its memory.
package nydus

import (
	"strings"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/nydus/rafs6"
	"github.com/convhost/convhost/sdk"
)

// New returns the plugin.
func New() sdk.Plugin { return plugin{} }

type plugin struct{}

// Version is part of every cache key: it changes when the bytes of an image would.
const Version = "0.3.0"

// Media types and annotations of the field (nydus-snapshotter pkg/converter/constant.go).
const (
	blobMediaType      = "application/vnd.oci.image.layer.nydus.blob.v1"
	bootMediaType      = "application/vnd.oci.image.layer.v1.tar+gzip" // the blobs' type makes every image an OCI image
	annotationBlob     = "containerd.io/snapshot/nydus-blob"
	annotationBoot     = "containerd.io/snapshot/nydus-bootstrap"
	annotationVersion  = "containerd.io/snapshot/nydus-fs-version"
	osFeature          = "nydus.remoteimage.v1"
	artifactType       = "application/vnd.nydus.image.manifest.v1+json"
	historyCreatedBy   = "Nydus Converter"
	historyComment     = "Nydus Bootstrap Layer"
	bootFile           = "image/image.boot"
	legacyBootFile     = "image.boot"
	bootstrapLayerName = "bootstrap"
)

// Describe implements sdk.Plugin.
func (plugin) Describe() abi.Description {
	return abi.Description{
		Name:    "nydus",
		Version: Version,
		Summary: "nydus images (RAFS v6): lazy loading with nydusd, nydus-snapshotter or the kernel's EROFS",
		Input:   abi.RoleLayerEntries,
		Options: []abi.OptionSpec{
			{Name: "compressor", Default: "zstd", Values: []string{"zstd", "lz4_block", "none"}, Help: "how chunks are compressed"},
			{Name: "level", Help: "compression level of zstd, 1 to 19; if not set, as small as 2 and faster"},
			{Name: "chunk-size", Default: "0x100000", Help: "bytes of a chunk: a power of two from 0x1000 to 0x1000000"},
			{Name: "digester", Default: "blake3", Values: []string{"blake3", "sha256"}, Help: "digest of the chunks"},
			{Name: "prefetch", Default: "/", Help: "absolute paths that a mount reads first, separated by commas or new lines; \"none\" for none"},
			{Name: "xattrs", Default: "strict", Values: []string{"strict", "drop"}, Help: "what to do with attributes that RAFS cannot hold: fail, or leave them out"},
			{Name: "fs-version", Default: "6", Values: []string{"6"}, Help: "version of RAFS"},
		},
		Markers: []abi.Marker{{Annotation: annotationBlob}, {Annotation: annotationBoot}},
		Needs:   []string{"entries", "digest/blake3", "digest/sha256", "crc32c", "codec/zstd", "codec/lz4_block", "filter/gzip", "decode", "dedup/plan"},
		Memory:  64 << 20,

		ArtifactType: artifactType,
	}
}

// settings are the options of one request.
type settings struct {
	rafs6.Options
	level    int
	prefetch []string
}

var (
	codecs  = map[string]abi.Codec{"zstd": abi.CodecZstd, "lz4_block": abi.CodecLZ4Block, "none": abi.CodecNone}
	digests = map[string]abi.Digest{"blake3": abi.DigestBLAKE3, "sha256": abi.DigestSHA256}
)

func parseOptions(o map[string]string) (s settings, err error) {
	if s.Codec, err = sdk.Choice(o, "compressor", "zstd", codecs); err != nil {
		return s, err
	}
	if s.Digest, err = sdk.Choice(o, "digester", "blake3", digests); err != nil {
		return s, err
	}
	if s.DropUnknownXattrs, err = sdk.Choice(o, "xattrs", "strict", map[string]bool{"strict": false, "drop": true}); err != nil {
		return s, err
	}
	if _, err = sdk.Choice(o, "fs-version", "6", map[string]bool{"6": true}); err != nil {
		return s, err
	}
	size, err := sdk.Size(o, "chunk-size", 1<<20)
	if err != nil {
		return s, err
	}
	if size < 0x1000 || size > 0x1000000 || size&(size-1) != 0 {
		return s, abi.Errorf(abi.ErrInvalid, "option chunk-size=%s: want a power of two from 0x1000 to 0x1000000", o["chunk-size"])
	}
	s.ChunkSize = int(size)
	if s.level, err = sdk.Int(o, "level", 0, 1, 19); err != nil {
		return s, err
	}
	if s.level != 0 && s.Codec != abi.CodecZstd {
		return s, abi.Errorf(abi.ErrInvalid, "option level is for compressor=zstd only")
	}
	s.prefetch, err = prefetchPaths(o)
	return s, err
}

// prefetchPaths reads the option prefetch; "/" is everything.
func prefetchPaths(o map[string]string) ([]string, error) {
	v, ok := o["prefetch"]
	if !ok || v == "" {
		v = "/"
	}
	if v == "none" {
		return nil, nil
	}
	var paths []string
	for _, p := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == '\n' }) {
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		if !strings.HasPrefix(p, "/") {
			return nil, abi.Errorf(abi.ErrInvalid, "option prefetch: %q is not an absolute path", p)
		}
		paths = append(paths, p)
	}
	return paths, nil
}
