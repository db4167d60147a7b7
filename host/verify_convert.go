package host

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/internal/session"
)

// verify compares what was converted with its source before it is published.
func (c *conversion) verify(ctx context.Context) error {
	made, err := c.made(ctx)
	if err != nil {
		return err
	}
	open := c.openStored
	for _, m := range c.rewritten.Converted {
		res, target := c.manifests[m.Source.Desc.Digest], made[m.Target.Digest]
		if res == nil {
			continue
		}
		left := func(ctx context.Context) (*flatten.Tree, int64, error) {
			return c.host.layersTree(ctx, c.src.reader, m.Source)
		}
		right := func(ctx context.Context) (*flatten.Tree, int64, error) {
			if target != nil && c.plain(target.Manifest) {
				return c.host.layersTree(ctx, open, target)
			}
			return c.host.unpackedTree(ctx, func(ctx context.Context, sink session.Sink) error {
				return c.unpack(ctx, m.Source, res, sink)
			}, func(ctx context.Context) error {
				if target == nil { // an artifact, of which only the plugin knows what the config says
					return nil
				}
				return c.host.checkDiffIDs(ctx, open, target)
			})
		}
		r, err := compareImages(ctx, left, right, 0)
		if err != nil {
			return err
		}
		r.Platform, r.Source, r.Converted = res.Platform, m.Source.Desc, m.Target
		if err := mismatch([]VerifyResult{*r}); err != nil {
			return err
		}
	}
	return nil
}

// made returns the images that were made, by digest.
func (c *conversion) made(ctx context.Context) (map[digest.Digest]*graph.Node, error) {
	g, err := c.documents(ctx)
	if err != nil {
		return nil, err
	}
	out := map[digest.Digest]*graph.Node{}
	for _, n := range g.Root.Manifests() {
		if n.Runnable {
			out[n.Desc.Digest] = n
		}
	}
	return out, nil
}

// plain tells whether the result of a plugin that cannot unpack is an ordinary image, which needs no plugin to be read.
func (c *conversion) plain(m *ocispec.Manifest) bool {
	d := &c.plugin.info.Description
	return !slices.Contains(d.Ops, abi.OpUnpack) && !marked(d, m) && !slices.ContainsFunc(m.Layers, func(l ocispec.Descriptor) bool {
		return graph.KindOf(l.MediaType) != graph.KindLayer
	})
}

// unpack runs the plugin's Unpack on layers that are still in the store.
func (c *conversion) unpack(ctx context.Context, n *graph.Node, res *ManifestResult, sink session.Sink) error {
	if !slices.Contains(c.plugin.info.Description.Ops, abi.OpUnpack) {
		return abi.Errorf(abi.ErrUnsupported, "plugin %s cannot unpack, so its images cannot be verified", c.plugin.info.Name)
	}
	var parts []part
	for i, l := range res.Layers {
		parts = append(parts, part{layer: i, Part: abi.Part{MediaType: l.Converted.MediaType, Annotations: l.Converted.Annotations}, desc: l.Converted})
	}
	infos, granted, done, err := c.openParts(ctx, parts)
	if err != nil {
		return err
	}
	defer done()
	refs, err := c.refsOf(n, res)
	if err != nil {
		return err
	}
	v := &view{parts: infos, grants: granted, done: func() {}}
	defer func() { v.done() }()
	err = c.src.eachRef(ctx, refs, func(desc ocispec.Descriptor, info abi.PartInfo) error { return v.open(ctx, c.src, desc, info) })
	if err != nil {
		return err
	}
	req := abi.UnpackRequest{Layer: -1, Parts: v.parts, Config: n.ConfigNode().Raw, Features: abi.Features()}
	limits := c.host.sessionLimits()
	limits.OutputBase, limits.OutputFactor = c.host.cfg.limits.LayerBytes, c.host.cfg.limits.LayerRatio
	_, err = c.plugin.run.run(ctx, abi.OpUnpack, abi.Marshal(&req), session.Config{
		Pool: c.host.pool, Parts: v.grants, Limits: limits, Log: c.log,
		OpenSink: func(int) (session.Sink, error) { return sink, nil },
	})
	return err
}
