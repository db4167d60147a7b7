package host

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/transport"
)

// mountLent lets the target's registry take a blob of the source from another of its repositories: the source's, or one
// that an earlier conversion put it into. A lazy format may refer to all layers of its source, and these need not travel
// twice.
func (c *conversion) mountLent(ctx context.Context, t transport.Target, desc ocispec.Descriptor) bool {
	m, ok := t.(transport.Mounter)
	if !ok {
		return false
	}
	from := []dedup.Place{}
	if src, err := transport.ParseReference(c.src.ref); err == nil {
		if p, ok := dedup.PlaceOf(src); ok {
			from = append(from, p)
		}
	}
	if c.reuse != nil && c.reuse.look > lookNowhere {
		from = append(from, c.reuse.places.known(ctx, desc.Digest)...)
	}
	for _, p := range from {
		if p.Local() || p.Host != c.ref.Host || p.Path == c.ref.Repo {
			continue
		}
		done, err := m.Mount(ctx, desc, p.Path)
		if done && err == nil {
			return true
		}
		c.log.Info("a blob could not be mounted", "blob", desc.Digest, "from", p, "error", err)
	}
	return false
}
