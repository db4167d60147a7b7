package host

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/transport"
)

// blobRef is a blob that a layer of a converted image refers to and that is no layer of it.
type blobRef struct {
	layer int
	key   string             // the annotation
	desc  ocispec.Descriptor // Size -1: not known
}

// refsOf lists what layers refer to by the annotations that a format has for that. A layer that says the same with two
// annotations refers to it once.
func refsOf(d *abi.Description, layers []ocispec.Descriptor) (out []blobRef) {
	for i, l := range layers {
		seen := map[string]bool{}
		for _, key := range d.Refs {
			if v := l.Annotations[key]; v != "" && !seen[v] {
				seen[v] = true
				out = append(out, blobRef{i, key, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.Digest(v), Size: -1}})
			}
		}
	}
	return out
}

// refsOf lists what the converted layers of image n refer to: blobs of its own layers, nothing else.
func (c *conversion) refsOf(n *graph.Node, res *ManifestResult) ([]blobRef, error) {
	var layers []ocispec.Descriptor
	for _, l := range res.Layers {
		layers = append(layers, l.Converted)
	}
	refs := refsOf(&c.plugin.info.Description, layers)
	for i, r := range refs {
		found := false
		for _, l := range n.Layers() {
			if l.Desc.Digest == r.desc.Digest {
				refs[i].desc, found = bare(l.Desc), true
			}
		}
		if !found {
			return nil, abi.Errorf(abi.ErrPlugin, "plugin lets layer %d refer to %q (%s), which is no layer of the source", r.layer, r.desc.Digest, r.key)
		}
	}
	return refs, nil
}

// bare is what identifies a blob.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// fromSource returns how a blob of the source is opened for pushing: from the store if it was pulled already.
func (c *conversion) fromSource(ctx context.Context, desc ocispec.Descriptor) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		rc, err := openBlob(ctx, c.store, desc)
		if err == nil || !errors.Is(err, abi.ErrNotFound) {
			return rc, err
		}
		return c.src.t.Fetch(ctx, desc)
	}
}

// eachRef calls open for blobs that layers refer to. What the source does not have is left out: the plugin knows whether it
// can do without.
func (s *source) eachRef(ctx context.Context, refs []blobRef, open func(ocispec.Descriptor, abi.PartInfo) error) error {
	for _, r := range refs {
		if r.desc.Size < 0 {
			if err := r.desc.Digest.Validate(); err != nil {
				return abi.Errorf(abi.ErrCorrupt, "layer %d has the annotation %s=%q, want a digest: %w", r.layer, r.key, string(r.desc.Digest), err)
			}
			size, err := transport.BlobSize(ctx, s.t, r.desc.Digest)
			if errors.Is(err, abi.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			r.desc.Size = size
		}
		err := open(r.desc, abi.PartInfo{Layer: r.layer, MediaType: r.desc.MediaType, Ref: r.key})
		if err != nil && !errors.Is(err, abi.ErrNotFound) {
			return err
		}
	}
	return nil
}
