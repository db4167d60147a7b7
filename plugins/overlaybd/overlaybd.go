// Package overlaybd is the plugin for overlaybd images: layers that are block diffs of an ext4 file system, which
// accelerated-container-image's snapshotter presents as a device.
//
// One layer becomes one blob, and each shell has a package of its own below this one:
//
//	tarshell: overlaybd.commit in a tar   zfile: compressed blocks   lsmt: changed blocks   ext4: the file system
//
// A layer is applied to the device of those below it, so the format is chained: the plugin opens the lower layers' blobs, puts
// the entries of the layer on their file system, and stores the blocks that changed. Nothing is mounted; no tool, device
// or root is needed.
//
// Media types, annotations, UUIDs and diff IDs are those of accelerated-container-image's convertor, whose images this
// plugin also reads: their layers can be unpacked, checked, attached and stacked on. What differs on purpose (semantics of
// entries, what is stored) is told in package ext4 and in docs/rationale.md.
//
// [NewTurbo] is the plugin of the sister format TurboOCI, whose layers hold the metadata of the file system alone and leave the data of
// files in the original layers (packages turbo and gzindex). Either plugin reads images with layers of both sorts.
//
// It runs natively or in process. What it needs besides its inputs is scratch space in the system's temporary directory: the
// compressed layer, because its size stands before it, and metadata of very large layers.
package overlaybd

import (
	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

// New returns the plugin for overlaybd images.
func New() sdk.Plugin { return plugin{} }

type plugin struct{}

// Version is part of every cache key: it changes when the bytes of an image would.
const Version = "0.1.0"

// Media types and annotations of the field (accelerated-container-image pkg/label, cmd/convertor/builder).
const (
	ociLayer    = "application/vnd.oci.image.layer.v1.tar"
	dockerLayer = "application/vnd.docker.image.rootfs.diff.tar"

	annotationVersion      = "containerd.io/snapshot/overlaybd/version"
	annotationDigest       = "containerd.io/snapshot/overlaybd/blob-digest"
	annotationSize         = "containerd.io/snapshot/overlaybd/blob-size"
	annotationAcceleration = "containerd.io/snapshot/overlaybd/acceleration-layer"
	artifactType           = "application/vnd.containerd.overlaybd.native.v1+json"
	layerVersion           = "0.1.0" // of what the annotation speaks: the layer format

	baseName  = "base"  // part: the file system without files, below the first layer
	layerName = "layer" // part: a layer
)

// Describe implements sdk.Plugin.
func (plugin) Describe() abi.Description {
	return abi.Description{
		Name:    "overlaybd",
		Version: Version,
		Summary: "overlaybd images: ext4 as block diffs, for accelerated-container-image's snapshotter",
		Input:   abi.RoleLayerEntries,
		Chained: true,
		Options: options(),
		Markers: []abi.Marker{{MediaType: ociLayer, Annotation: annotationDigest}, {MediaType: dockerLayer, Annotation: annotationDigest}},
		Needs:   []string{"entries"},
		Refs:    targetKeys, // of images that have layers of both sorts
		Memory:  256 << 20,

		ArtifactType: artifactType,
		Dicts:        true, // a base layer, with mkfs=false
	}
}
