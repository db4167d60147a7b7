package graph

import (
	"fmt"

	"github.com/convhost/convhost/abi"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// gcPrefix begins the labels by which containerd's garbage collector finds the children of a blob.
const gcPrefix = "containerd.io/gc.ref.content."

// Children returns the descriptors that a document refers to: entries of an index; config and layers of a manifest.
// Blobs of other media types have none. The subject is not a child. raw is parsed and checked as Load does it.
func Children(mediaType string, raw []byte) ([]ocispec.Descriptor, error) {
	lim := Limits{}.withDefaults()
	switch KindOf(mediaType) {
	case KindIndex:
		ix, err := parseIndex(raw, mediaType, lim)
		if err != nil {
			return nil, err
		}
		return ix.Manifests, nil
	case KindManifest:
		m, err := parseManifest(raw, mediaType, lim)
		if err != nil {
			return nil, err
		}
		return append([]ocispec.Descriptor{m.Config}, m.Layers...), nil
	case KindSchema1:
		return nil, abi.Errorf(abi.ErrUnsupported, "docker schema 1 documents are not supported")
	}
	return nil, nil
}

// ChildLabels returns the labels that a document's blob needs in a containerd store so that its children live as long as it
// does: all children, whether a conversion changed them or not. Set them by an update after the document is written,
// not only with the write: a write of an existing digest drops its labels. Names are those that containerd gives:
// "…config", "…l.0" for layers, "…m.0" for manifests, "….0" for anything else (also indexes).
func ChildLabels(mediaType string, raw []byte) (map[string]string, error) {
	children, err := Children(mediaType, raw)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{}
	counts := map[string]int{}
	for _, d := range children {
		prefix := gcPrefix
		switch k := KindOf(d.MediaType); {
		case k == KindConfig:
			prefix += "config"
		case k.IsLayer():
			prefix += "l."
		case k == KindManifest:
			prefix += "m."
		}
		key := fmt.Sprintf("%s%d", prefix, counts[prefix])
		if KindOf(d.MediaType) == KindConfig && counts[prefix] == 0 {
			key = prefix
		}
		counts[prefix]++
		labels[key] = d.Digest.String()
	}
	return labels, nil
}
