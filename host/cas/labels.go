package cas

import (
	"strconv"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Labels with a meaning for the store.
const (
	LabelGCRoot       = "containerd.io/gc.root"        // any value: GC keeps this blob and what it refers to
	LabelGCRef        = "containerd.io/gc.ref.content" // prefix of edges; see RefLabels
	LabelUncompressed = "containerd.io/uncompressed"   // diff ID of a compressed layer
)

// RefLabels returns the labels that make GC keep children as long as their parent is kept. They belong on every
// manifest and index, for all children, also for those that are not in the store.
func RefLabels(children []ocispec.Descriptor) map[string]string {
	labels := make(map[string]string, len(children))
	count := map[string]int{}
	for _, c := range children {
		group := "r"
		switch {
		case images.IsConfigType(c.MediaType):
			group = "config"
		case images.IsManifestType(c.MediaType) || images.IsIndexType(c.MediaType):
			group = "m"
		case images.IsLayerType(c.MediaType):
			group = "l"
		}
		key := LabelGCRef + "." + group
		if n := count[group]; n > 0 || group != "config" {
			key += "." + strconv.Itoa(n)
		}
		count[group]++
		labels[key] = c.Digest.String()
	}
	return labels
}
