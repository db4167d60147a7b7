package host

import (
	"context"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/transport"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MediaTypes says whose media types converted documents have. What a conversion does not change keeps its own.
type MediaTypes string

// The choices.
const (
	MediaTypesSource MediaTypes = "source" // default: those of the source, and OCI's where Docker's cannot say it
	MediaTypesOCI    MediaTypes = "oci"    // OCI's
	MediaTypesDocker MediaTypes = "docker" // Docker's; ErrUnsupported for formats whose layers have no name there
)

// check refuses what cannot be meant.
func (t *Target) check() error {
	switch t.MediaTypes {
	case "", MediaTypesSource, MediaTypesOCI:
	case MediaTypesDocker:
		if t.Referrers {
			return abi.Errorf(abi.ErrInvalid, "referrers and docker media types exclude each other: a docker document has no subject")
		}
	default:
		return abi.Errorf(abi.ErrInvalid, "media types %q: want source, oci or docker", t.MediaTypes)
	}
	return nil
}

// dest returns where the result goes. In a dry run that may be nowhere.
func (t *Target) dest(dry bool) (transport.Reference, error) {
	if dry && t.Dest == "" {
		return transport.Reference{}, nil
	}
	return transport.ParseReference(t.Dest)
}

// suits tells whether a plugin can do what the target asks for.
func (t *Target) suits(d *abi.Description) error {
	if err := checkOptions(d, t.Options); err != nil {
		return err
	}
	if t.Referrers && d.ArtifactType == "" {
		return abi.Errorf(abi.ErrUnsupported, "plugin %s has no artifact type, so its images cannot refer to their source", d.Name)
	}
	if len(t.Dicts) > 0 && !d.Dicts {
		return abi.Errorf(abi.ErrUnsupported, "plugin %s takes no dictionaries", d.Name)
	}
	return nil
}

// rewriting says how the documents of a conversion are made.
func (c *conversion) rewriting() graph.RewriteOptions {
	o := graph.RewriteOptions{Parallel: c.host.cfg.limits.Manifests}
	switch c.target.MediaTypes {
	case MediaTypesOCI:
		o.OCI = true
	case MediaTypesDocker:
		o.Docker = true
	}
	if c.target.Referrers {
		o.ArtifactType = c.plugin.info.Description.ArtifactType
	}
	return o
}

// manifestType is what the plugin learns of the manifest that will be written.
func (c *conversion) manifestType(n *graph.Node) string {
	switch o := c.rewriting(); {
	case o.Docker:
		return graph.DockerManifest
	case o.OCI, o.ArtifactType != "":
		return ocispec.MediaTypeImageManifest
	}
	return n.Desc.MediaType
}

// written makes the results say what stands in the manifests: the family of media types is decided there.
func (c *conversion) written() error {
	raw := map[string][]byte{}
	for _, d := range c.rewritten.Documents {
		raw[string(d.Desc.Digest)] = d.Raw
	}
	for _, m := range c.rewritten.Converted {
		res, doc := c.manifests[m.Source.Desc.Digest], raw[string(m.Target.Digest)]
		if res == nil || doc == nil {
			continue
		}
		children, err := graph.Children(m.Target.MediaType, doc)
		if err != nil {
			return err
		}
		for i, d := range children[1:] {
			res.Layers[i].Converted = d
		}
	}
	return nil
}

// keepWork lets the working directory outlive the operation, and tells where it is.
func (h *Host) keepWork(_ context.Context, s *source) {
	if k, ok := s.store.(interface{ Keep() string }); ok {
		h.emit(Event{Kind: EventWorkKept, Message: k.Keep()})
	}
}
