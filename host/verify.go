package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/internal/layer/inflate"
	"github.com/convhost/convhost/internal/session"
)

const defaultDifferences = 100

// Verify compares two images, or the images of two indexes platform by platform: every path with type, mode, owner,
// time, size, link target, hard links, device, extended attributes and content, and what the configs say beside the layers.
// Each side is read independently: an ordinary image by applying its layers, a converted one through its plugin's
// Unpack. Differences are results; an error means that the comparison could not be made. If there is any difference
// the error is ErrMismatch, beside the results.
func (h *Host) Verify(ctx context.Context, req VerifyRequest) ([]VerifyResult, error) {
	ctx, done, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var out []VerifyResult
	err = h.withSource(ctx, req.Source, func(a *source) error {
		return h.withSource(ctx, req.Converted, func(b *source) error {
			pairs, err := pairImages(a.graph, b.graph, req.Select)
			if err != nil {
				return err
			}
			for _, p := range pairs {
				r, err := h.verifyPair(ctx, a, b, p, req)
				if err != nil {
					return err
				}
				out = append(out, *r)
			}
			return nil
		})
	})
	if err == nil {
		err = mismatch(out)
	}
	return out, err
}

func mismatch(results []VerifyResult) error {
	for _, r := range results {
		if n := int64(len(r.Differences)) + r.More; n > 0 {
			return &Error{Op: "verify", Manifest: r.Converted, Platform: r.Platform, Layer: -1,
				Err: abi.Errorf(abi.ErrMismatch, "%d differences from %s; the first: %s", n, r.Source.Digest, r.Differences[0])}
		}
	}
	return nil
}

// pair is two images that should be equal.
type pair struct{ a, b *graph.Node }

// pairImages finds for each image of the source the converted one, by platform.
func pairImages(a, b *graph.Graph, sel Selection) ([]pair, error) {
	sel.All = sel.All || len(sel.Platforms) == 0
	left, err := pickImages(a, sel, false)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	right, err := pickImages(b, sel, false)
	if err != nil {
		return nil, fmt.Errorf("converted: %w", err)
	}
	if len(left) == 1 && len(right) == 1 {
		return []pair{{left[0], right[0]}}, nil
	}
	var out []pair
	for _, l := range left {
		i := slices.IndexFunc(right, func(r *graph.Node) bool { return platformOf(r) == platformOf(l) })
		if i < 0 {
			return nil, abi.Errorf(abi.ErrMismatch, "the converted index has no image for %s (%s); it has: %s", platformOf(l), l.Desc.Digest, platformList(right))
		}
		out = append(out, pair{l, right[i]})
		right = slices.Delete(right, i, i+1)
	}
	if len(right) > 0 {
		return nil, abi.Errorf(abi.ErrMismatch, "the converted index has images that the source does not have: %s", platformList(right))
	}
	return out, nil
}

func (h *Host) verifyPair(ctx context.Context, a, b *source, p pair, req VerifyRequest) (*VerifyResult, error) {
	left, err := h.treeOf(ctx, a, p.a, req.Format, req.Runtime)
	if err != nil {
		return nil, err
	}
	right, err := h.treeOf(ctx, b, p.b, req.Format, req.Runtime)
	if err != nil {
		return nil, err
	}
	r, err := compareImages(ctx, left, right, req.Max)
	if err != nil {
		return nil, err
	}
	r.Platform, r.Source, r.Converted = platformOf(p.a), p.a.Desc, p.b.Desc
	r.Differences = append(r.Differences, configDifferences(p.a.ConfigNode().Raw, p.b.ConfigNode().Raw)...)
	return r, nil
}

// treeFunc reads one side of a comparison.
type treeFunc func(ctx context.Context) (*flatten.Tree, int64, error)

func (h *Host) treeOf(ctx context.Context, s *source, n *graph.Node, format string, rt Runtime) (treeFunc, error) {
	p, err := h.pluginFor(ctx, n, format, rt)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return func(ctx context.Context) (*flatten.Tree, int64, error) { return h.layersTree(ctx, s, n) }, nil
	}
	return func(ctx context.Context) (*flatten.Tree, int64, error) {
		return h.unpackedTree(ctx, func(ctx context.Context, sink session.Sink) error {
			_, err := h.unpackTo(ctx, s, n, p, -1, sink)
			if err != nil {
				err = &Error{Op: "verify", Format: p.info.Name, Manifest: n.Desc, Platform: platformOf(n), Layer: -1, Err: err}
			}
			return err
		})
	}, nil
}

// compareImages reads both sides at the same time and compares them.
func compareImages(ctx context.Context, left, right treeFunc, most int) (*VerifyResult, error) {
	if most <= 0 {
		most = defaultDifferences
	}
	var trees [2]*flatten.Tree
	var bytes [2]int64
	g, gctx := errgroup.WithContext(ctx)
	for i, f := range []treeFunc{left, right} {
		g.Go(func() (err error) {
			trees[i], bytes[i], err = f(gctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	diffs := flatten.Compare(trees[0].Records(), trees[1].Records(), flatten.CompareOptions{WholeSeconds: true, ImpliedUnspecified: true})
	r := &VerifyResult{Files: trees[0].Len(), Bytes: bytes[0], Differences: diffs}
	if len(diffs) > most {
		r.Differences, r.More = diffs[:most:most], int64(len(diffs)-most)
	}
	if r.Differences == nil {
		r.Differences = []flatten.Difference{}
	}
	return r, nil
}

// layersTree applies the layers of an ordinary image.
func (h *Host) layersTree(ctx context.Context, s *source, n *graph.Node) (*flatten.Tree, int64, error) {
	tree := flatten.New(flatten.Options{})
	var total int64
	diffIDs := n.ConfigNode().Config.RootFS.DiffIDs
	for i, l := range n.Layers() {
		raw, err := h.applyLayer(ctx, s, tree, l.Desc, string(diffIDs[i]))
		if err != nil {
			return nil, 0, &Error{Op: "verify", Manifest: n.Desc, Platform: platformOf(n), Layer: i, Blob: l.Desc, Err: err}
		}
		total += raw
	}
	return tree, total, nil
}

func (h *Host) applyLayer(ctx context.Context, s *source, tree *flatten.Tree, desc ocispec.Descriptor, diffID string) (int64, error) {
	r, err := s.reader(ctx, desc)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	lim := h.sessionLimits()
	raw, err := inflate.Open(ctx, r, inflate.Options{
		MediaType: desc.MediaType, StoredDigest: desc.Digest, StoredSize: desc.Size, DiffID: digestOf(diffID), Limits: lim.Inflate,
	})
	if err != nil {
		return 0, err
	}
	defer raw.Close()
	if _, err := tree.ApplyTar(ctx, layer.NewReader(raw, lim.Layer)); err != nil {
		return 0, err
	}
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return 0, err
	}
	res, _ := raw.Result()
	return res.RawSize, nil
}

// unpackedTree reads the tar that unpack writes.
func (h *Host) unpackedTree(ctx context.Context, unpack func(context.Context, session.Sink) error) (*flatten.Tree, int64, error) {
	pr, pw := io.Pipe()
	g, gctx := errgroup.WithContext(ctx)
	out := &tarOutput{w: pw}
	g.Go(func() error {
		err := unpack(gctx, out)
		pw.CloseWithError(err)
		return err
	})
	tree := flatten.New(flatten.Options{})
	g.Go(func() error {
		_, err := tree.ApplyTar(gctx, layer.NewReader(pr, h.cfg.limits.Layer))
		if err == nil {
			_, err = io.Copy(io.Discard, pr)
		}
		if err != nil {
			pr.CloseWithError(err)
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, 0, err
	}
	return tree, out.n, nil
}

// verify compares what was converted with its source before it is published.
func (c *conversion) verify(ctx context.Context) error {
	for _, m := range c.rewritten.Converted {
		res := c.manifests[m.Source.Desc.Digest]
		if res == nil {
			continue
		}
		left := func(ctx context.Context) (*flatten.Tree, int64, error) {
			return c.host.layersTree(ctx, c.src, m.Source)
		}
		right := func(ctx context.Context) (*flatten.Tree, int64, error) {
			return c.host.unpackedTree(ctx, func(ctx context.Context, sink session.Sink) error {
				return c.unpack(ctx, m.Source, res, sink)
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

// ofLayers are the parts of an image config that a conversion may change.
var ofLayers = []string{"rootfs", "history", "os.features", "config.Image", "container_config"}

// configDifferences compares what two image configs say beside the layers.
func configDifferences(a, b []byte) []flatten.Difference {
	left, errA := configFields(a)
	right, errB := configFields(b)
	if err := errors.Join(errA, errB); err != nil {
		return []flatten.Difference{{Field: "config", A: "unreadable", B: err.Error()}}
	}
	keys := map[string]bool{}
	for k := range left {
		keys[k] = true
	}
	for k := range right {
		keys[k] = true
	}
	var out []flatten.Difference
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if !slices.Contains(ofLayers, k) && !reflect.DeepEqual(left[k], right[k]) {
			out = append(out, flatten.Difference{Field: "config " + k, A: fmt.Sprint(left[k]), B: fmt.Sprint(right[k])})
		}
	}
	return out
}

// configFields flattens a config's top level and its object "config".
func configFields(raw []byte) (map[string]any, error) {
	var top map[string]any
	if err := json.Unmarshal(raw, &top); err != nil {
		return nil, abi.Errorf(abi.ErrCorrupt, "image config: %w", err)
	}
	if sub, ok := top["config"].(map[string]any); ok {
		delete(top, "config")
		for k, v := range sub {
			top["config."+k] = v
		}
	}
	return top, nil
}
