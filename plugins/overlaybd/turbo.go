package overlaybd

import (
	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

// NewTurbo returns the plugin for TurboOCI images: overlaybd images whose layers hold the file system's metadata alone. The data of
// files stays in the original layers, which must be in the same repository or layout.
//
// The original layer is read once: while it is decompressed and parsed, the index with which it is read at random later
// comes into being. Layers compressed with gzip, as one member, and plain tars can be indexed; others are
// [abi.ErrUnsupported].
func NewTurbo() sdk.Plugin { return turboPlugin{} }

// turboPlugin reads, checks and merges as overlaybd does: its images may have layers of both sorts.
type turboPlugin struct{ plugin }

// TurboVersion is part of every cache key: it changes when the bytes of an image would.
const TurboVersion = "0.1.0"

const (
	ociGzip    = "application/vnd.oci.image.layer.v1.tar+gzip"
	dockerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"

	annotationTargetType = "containerd.io/snapshot/overlaybd/turbo-oci/target-media-type"
	turboLayerVersion    = "0.1.0-turbo.ociv1"
	turboArtifactType    = "application/vnd.containerd.overlaybd.turbo.v1+json"
)

// Describe implements sdk.Plugin.
func (turboPlugin) Describe() abi.Description {
	d := abi.Description{
		Name:         "turboci",
		Version:      TurboVersion,
		Summary:      "TurboOCI images: overlaybd metadata beside the original layers, which keep the data",
		Input:        abi.RoleLayerStored,
		Chained:      true,
		Needs:        []string{"filter/gzip"},
		ArtifactType: turboArtifactType,
		Dicts:        true,
		Refs:         targetKeys,
		Memory:       256 << 20,
	}
	for _, key := range targetKeys {
		d.Markers = append(d.Markers, abi.Marker{Annotation: key})
	}
	for _, o := range options() {
		if o.Name == "fstype" {
			o.Values = append(o.Values, "erofs")
			o.Help += "; erofs is not supported yet"
		}
		d.Options = append(d.Options, o)
	}
	return d
}

// turboType is the type of a converted layer, and with the compression of the original its own type: of the family that the
// source's is of.
func turboType(source string, gzip bool) string {
	switch docker := layerType(source) == dockerLayer; {
	case docker && gzip:
		return dockerGzip
	case gzip:
		return ociGzip
	}
	return layerType(source)
}
