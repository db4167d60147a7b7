package graph

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types (schema 2), and the retired schema 1.
const (
	DockerManifest      = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList          = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig        = "application/vnd.docker.container.image.v1+json"
	DockerLayer         = "application/vnd.docker.image.rootfs.diff.tar" // may in truth be compressed: look at the bytes
	DockerLayerGzip     = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	DockerLayerZstd     = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	DockerForeign       = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	DockerForeignGzip   = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	DockerSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	DockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	InToto              = "application/vnd.in-toto+json"
)

// Kind is what a media type promises about a blob.
type Kind string

// The kinds. Only indexes, manifests and configs of runnable images are read by this package.
const (
	KindIndex       Kind = "index"       // OCI index, Docker manifest list
	KindManifest    Kind = "manifest"    // OCI manifest, Docker schema 2
	KindConfig      Kind = "config"      // image config, OCI or Docker
	KindLayer       Kind = "layer"       // a tar, maybe compressed
	KindForeign     Kind = "foreign"     // a layer that may only be available elsewhere (nondistributable); passed on as it is
	KindEncrypted   Kind = "encrypted"   // a layer that needs a key
	KindOpaque      Kind = "opaque"      // a layer of an image, but not a tar (nydus, EROFS, suffixes not known yet)
	KindAttestation Kind = "attestation" // in-toto statement
	KindCheckpoint  Kind = "checkpoint"  // parts of a containerd checkpoint
	KindEmpty       Kind = "empty"       // the OCI empty JSON value, config of artifacts
	KindSchema1     Kind = "schema1"     // Docker schema 1: refused
	KindUnknown     Kind = "unknown"     // anything else: a leaf that is passed on, never an error
)

// Document tells whether blobs of this kind have children of their own.
func (k Kind) Document() bool { return k == KindIndex || k == KindManifest }

// IsLayer tells whether the kind stands for a layer of a root file system.
func (k Kind) IsLayer() bool {
	return k == KindLayer || k == KindForeign || k == KindEncrypted || k == KindOpaque
}

// Compression is what a layer's media type says about its bytes.
type Compression string

// The compressions of tar layers.
const (
	Uncompressed Compression = "none"
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"
	// Sniff means that the media type does not tell (Docker's bare "diff.tar"): look at the first bytes.
	Sniff Compression = "unknown"
)

type typeInfo struct {
	kind        Kind
	compression Compression
	oci         string // the OCI type with the same meaning
}

var mediaTypes = map[string]typeInfo{
	ocispec.MediaTypeImageIndex:    {KindIndex, "", ocispec.MediaTypeImageIndex},
	ocispec.MediaTypeImageManifest: {KindManifest, "", ocispec.MediaTypeImageManifest},
	ocispec.MediaTypeImageConfig:   {KindConfig, "", ocispec.MediaTypeImageConfig},
	DockerList:                     {KindIndex, "", ocispec.MediaTypeImageIndex},
	DockerManifest:                 {KindManifest, "", ocispec.MediaTypeImageManifest},
	DockerConfig:                   {KindConfig, "", ocispec.MediaTypeImageConfig},

	ocispec.MediaTypeImageLayer:     {KindLayer, Uncompressed, ocispec.MediaTypeImageLayer},
	ocispec.MediaTypeImageLayerGzip: {KindLayer, Gzip, ocispec.MediaTypeImageLayerGzip},
	ocispec.MediaTypeImageLayerZstd: {KindLayer, Zstd, ocispec.MediaTypeImageLayerZstd},
	DockerLayer:                     {KindLayer, Sniff, ocispec.MediaTypeImageLayer},
	DockerLayerGzip:                 {KindLayer, Gzip, ocispec.MediaTypeImageLayerGzip},
	DockerLayerZstd:                 {KindLayer, Zstd, ocispec.MediaTypeImageLayerZstd},

	foreignPrefix + "tar":      {KindForeign, Uncompressed, foreignPrefix + "tar"},
	foreignPrefix + "tar+gzip": {KindForeign, Gzip, foreignPrefix + "tar+gzip"},
	foreignPrefix + "tar+zstd": {KindForeign, Zstd, foreignPrefix + "tar+zstd"},
	DockerForeign:              {KindForeign, Sniff, foreignPrefix + "tar"},
	DockerForeignGzip:          {KindForeign, Gzip, foreignPrefix + "tar+gzip"},

	InToto:                     {KindAttestation, "", InToto},
	ocispec.MediaTypeEmptyJSON: {KindEmpty, "", ocispec.MediaTypeEmptyJSON},
	DockerSchema1:              {KindSchema1, "", ""},
	DockerSchema1Signed:        {KindSchema1, "", ""},
}

const (
	layerPrefix   = "application/vnd.oci.image.layer."
	foreignPrefix = "application/vnd.oci.image.layer.nondistributable.v1."
	erofsLayer    = "application/vnd.erofs.layer.v1"
	checkpoint    = "application/vnd.containerd.container."
)

// KindOf returns the kind of a media type; KindUnknown for those that nobody here has heard of.
func KindOf(mediaType string) Kind {
	if t, ok := mediaTypes[mediaType]; ok {
		return t.kind
	}
	switch {
	case strings.HasPrefix(mediaType, layerPrefix) && strings.HasSuffix(mediaType, "+encrypted"):
		return KindEncrypted
	case strings.HasPrefix(mediaType, layerPrefix), strings.HasPrefix(mediaType, erofsLayer):
		return KindOpaque
	case strings.HasPrefix(mediaType, checkpoint):
		return KindCheckpoint
	}
	return KindUnknown
}

// CompressionOf returns what the media type of a tar layer promises; ok is false for anything that is not a tar.
func CompressionOf(mediaType string) (c Compression, ok bool) {
	t, ok := mediaTypes[mediaType]
	return t.compression, ok && t.compression != ""
}

// ToOCI maps Docker's schema 2 types to the OCI types of the same meaning and leaves all others as they are.
// Docker's bare tar becomes the uncompressed OCI tar: whoever knows that the bytes are compressed must say so.
func ToOCI(mediaType string) string {
	if t, ok := mediaTypes[mediaType]; ok && t.oci != "" {
		return t.oci
	}
	return mediaType
}

// ToDocker is the way back from ToOCI; ok is false where Docker has no type of that meaning.
func ToDocker(mediaType string) (docker string, ok bool) {
	switch mediaType {
	case ocispec.MediaTypeImageLayer:
		return DockerLayer, true
	case foreignPrefix + "tar":
		return DockerForeign, true
	}
	if IsDocker(mediaType) {
		return mediaType, true
	}
	for _, d := range []string{DockerList, DockerManifest, DockerConfig, DockerLayerGzip, DockerLayerZstd, DockerForeignGzip} {
		if mediaTypes[d].oci == mediaType {
			return d, true
		}
	}
	return mediaType, false
}

// IsDocker tells whether a type is one of Docker's.
func IsDocker(mediaType string) bool { return strings.HasPrefix(mediaType, "application/vnd.docker.") }
