package host

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
)

// manifest converts one image; it is a graph.ConvertFunc.
func (c *conversion) manifest(ctx context.Context, n *graph.Node) (*graph.Conversion, error) {
	if marked(&c.plugin.info.Description, n.Manifest) {
		return nil, nil // it is of this format already
	}
	if conv := c.reuse.image(ctx, n); conv != nil {
		return conv, nil
	}
	layers, err := c.layers(ctx, n, layerInfos(n, c.plugin.info.Description.Chained, false))
	if err != nil {
		return nil, err
	}
	f, err := c.finish(ctx, layers, layerInfos(n, true, true), c.mergeRequest(n))
	if err != nil {
		return nil, &Error{Op: "convert", Format: c.plugin.info.Name, Manifest: n.Desc, Platform: platformOf(n), Layer: -1, Err: err}
	}
	c.reuse.madeImage(n, layers, f)
	return c.assemble(n, layers, f)
}

// mergeRequest is what the plugin is told of an image when it finishes it, but for layers and parts.
func (c *conversion) mergeRequest(n *graph.Node) abi.MergeRequest {
	return abi.MergeRequest{
		Platform: platformOf(n), ManifestMediaType: c.manifestType(n), Config: n.ConfigNode().Raw,
		Options: c.target.Options, Dicts: c.dicts.infos, Features: abi.Features(),
	}
}

// layerInfos describes the layers of an image to a plugin. What an independent format may know of a layer is what
// belongs to the layer alone, and a chained one what belongs to it and those below: equal layers are converted once,
// whichever image comes first. Only who finishes an image knows how many layers it has.
func layerInfos(n *graph.Node, chained, whole bool) []abi.LayerInfo {
	var out []abi.LayerInfo
	var chain digest.Digest
	diffIDs := n.ConfigNode().Config.RootFS.DiffIDs
	for i, l := range n.Layers() {
		info := abi.LayerInfo{
			MediaType: l.Desc.MediaType, Digest: string(l.Desc.Digest), Size: l.Desc.Size,
			DiffID: string(diffIDs[i]), Annotations: l.Desc.Annotations,
		}
		if chain == "" {
			chain = diffIDs[i]
		} else {
			chain = digest.FromString(chain.String() + " " + diffIDs[i].String())
		}
		if chained {
			info.Index, info.ChainID = i, string(chain)
		}
		if whole {
			info.Count = len(n.Layers())
		}
		out = append(out, info)
	}
	return out
}

// layers converts the layers of one image: side by side, or each upon its parents if the format is chained.
func (c *conversion) layers(ctx context.Context, n *graph.Node, infos []abi.LayerInfo) ([]*converted, error) {
	nodes := n.Layers()
	keys := keysOf(infos, c.plugin.info.Description.Chained, c.dicts.infos)
	out := make([]*converted, len(nodes))
	one := func(ctx context.Context, i int, parents []part) error {
		desc := nodes[i].Desc
		fail := func(err error) error {
			return &Error{Op: "convert", Format: c.plugin.info.Name, Manifest: n.Desc, Platform: platformOf(n), Layer: i, Blob: desc, Err: err}
		}
		switch graph.KindOf(desc.MediaType) {
		case graph.KindEncrypted:
			return fail(abi.Errorf(abi.ErrUnsupported, "layer of type %s is encrypted: decrypt the image first", desc.MediaType))
		case graph.KindForeign:
			return fail(abi.Errorf(abi.ErrUnsupported, "layer of type %s may not be distributed, so it cannot be converted", desc.MediaType))
		}
		res, err := c.once.do(ctx, keys[i], func() (*converted, error) {
			req := c.layerRequest(infos[i], partInfos(parents))
			if res := c.reuse.layer(ctx, desc, &req); res != nil {
				return res, nil
			}
			select {
			case c.slots <- struct{}{}:
				defer func() { <-c.slots }()
			case <-ctx.Done():
				return nil, canceled(ctx)
			}
			res, err := c.convertLayer(ctx, desc, infos[i], parents)
			if err == nil {
				c.reuse.made(&req, res)
			}
			return res, err
		})
		if err != nil {
			return fail(err)
		}
		out[i] = res
		return nil
	}
	if c.plugin.info.Description.Chained {
		var parents []part
		for i := range nodes {
			if err := one(ctx, i, parents); err != nil {
				return nil, err
			}
			for _, p := range out[i].parts {
				p.layer = i
				parents = append(parents, p)
			}
		}
		return out, nil
	}
	order := make([]int, len(nodes)) // largest first: what is begun last is waited for alone
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(nodes[b].Desc.Size, nodes[a].Desc.Size) })
	g, gctx := errgroup.WithContext(ctx)
	for _, i := range order {
		g.Go(func() error { return one(gctx, i, nil) })
	}
	return out, g.Wait()
}

// assemble says what changes in the manifest and the config.
func (c *conversion) assemble(n *graph.Node, layers []*converted, f *finished) (*graph.Conversion, error) {
	conv := &graph.Conversion{OSFeatures: f.resp.OSFeatures, ConfigMediaType: f.resp.ConfigMediaType}
	res := &ManifestResult{Platform: platformOf(n), Source: n.Desc, Warnings: f.resp.Warnings}
	kept := map[int]bool{}
	for _, l := range f.layers {
		conv.Manifest.Layers = append(conv.Manifest.Layers, l.desc)
		conv.Config.DiffIDs = append(conv.Config.DiffIDs, l.diffID)
		r := LayerResult{Converted: l.desc, Reused: f.reused}
		if l.source >= 0 {
			if kept[l.source] {
				return nil, abi.Errorf(abi.ErrPlugin, "plugin lets two layers stand for source layer %d", l.source)
			}
			kept[l.source] = true
			r.Source, r.Reused = &layers[l.source].source, layers[l.source].reused
		} else {
			conv.Config.History.Append = append(conv.Config.History.Append, ocispec.History{CreatedBy: l.createdBy, Comment: l.comment})
		}
		res.Layers = append(res.Layers, r)
	}
	for i := range layers {
		if !kept[i] {
			conv.Config.History.Drop = append(conv.Config.History.Drop, i)
		}
		for _, w := range layers[i].warnings {
			res.Warnings = append(res.Warnings, fmt.Sprintf("layer %d: %s", i, w))
		}
	}
	conv.Manifest.Annotations, conv.Manifest.ArtifactType = f.resp.Annotations, f.resp.ArtifactType
	c.mu.Lock()
	c.manifests[n.Desc.Digest] = res
	c.mu.Unlock()
	return conv, nil
}
