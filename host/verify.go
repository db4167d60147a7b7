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
		return func(ctx context.Context) (*flatten.Tree, int64, error) { return h.layersTree(ctx, s.reader, n) }, nil
	}
	return func(ctx context.Context) (*flatten.Tree, int64, error) {
		return h.unpackedTree(ctx, func(ctx context.Context, sink session.Sink) error {
			_, err := h.unpackTo(ctx, s, n, p, -1, sink)
			if err != nil {
				err = &Error{Op: "verify", Format: p.info.Name, Manifest: n.Desc, Platform: platformOf(n), Layer: -1, Err: err}
			}
			return err
		}, func(ctx context.Context) error { return h.checkDiffIDs(ctx, s.reader, n) })
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

// opener opens a blob from its start.
type opener func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)

// layersTree applies the layers of an ordinary image.
func (h *Host) layersTree(ctx context.Context, open opener, n *graph.Node) (*flatten.Tree, int64, error) {
	tree := flatten.New(flatten.Options{})
	var total int64
	diffIDs := n.ConfigNode().Config.RootFS.DiffIDs
	for i, l := range n.Layers() {
		raw, err := h.applyLayer(ctx, open, tree, l.Desc, string(diffIDs[i]))
		if err != nil {
			return nil, 0, &Error{Op: "verify", Manifest: n.Desc, Platform: platformOf(n), Layer: i, Blob: l.Desc, Err: err}
		}
		total += raw
	}
	return tree, total, nil
}

func (h *Host) applyLayer(ctx context.Context, open opener, tree *flatten.Tree, desc ocispec.Descriptor, diffID string) (int64, error) {
	return h.readLayer(ctx, open, desc, diffID, func(raw io.Reader) error {
		_, err := tree.ApplyTar(ctx, layer.NewReader(raw, h.cfg.limits.Layer))
		return err
	})
}

// readLayer decompresses a layer for fn, if there is one, and holds it against its digest, size and diff ID to the end.
func (h *Host) readLayer(ctx context.Context, open opener, desc ocispec.Descriptor, diffID string, fn func(io.Reader) error) (int64, error) {
	r, err := open(ctx, desc)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	raw, err := inflate.Open(ctx, r, inflate.Options{
		MediaType: desc.MediaType, StoredDigest: desc.Digest, StoredSize: desc.Size, DiffID: digestOf(diffID), Limits: h.sessionLimits().Inflate,
	})
	if err != nil {
		return 0, err
	}
	defer raw.Close()
	if fn != nil {
		err = fn(raw)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, raw)
	}
	res, _ := raw.Result()
	return res.RawSize, err
}

// checkDiffIDs holds the layers of a converted image that are tars of a known compression against the config's diff IDs:
// who pulls such an image does the same, whatever the format makes of the layers. Those of a format's own types have
// no diff ID that anybody but the format knows the meaning of.
func (h *Host) checkDiffIDs(ctx context.Context, open opener, n *graph.Node) error {
	diffIDs := n.ConfigNode().Config.RootFS.DiffIDs
	for i, l := range n.Layers() {
		if l.Kind != graph.KindLayer {
			continue
		}
		if _, err := h.readLayer(ctx, open, l.Desc, string(diffIDs[i]), nil); err != nil {
			return &Error{Op: "verify", Manifest: n.Desc, Platform: platformOf(n), Layer: i, Blob: l.Desc, Err: err}
		}
	}
	return nil
}

// unpackedTree reads the tar that unpack writes, while others examine the same image.
func (h *Host) unpackedTree(ctx context.Context, unpack func(context.Context, session.Sink) error, others ...func(context.Context) error) (*flatten.Tree, int64, error) {
	pr, pw := io.Pipe()
	g, gctx := errgroup.WithContext(ctx)
	out := &tarOutput{w: pw}
	g.Go(func() error {
		err := unpack(gctx, out)
		pw.CloseWithError(err)
		return err
	})
	for _, other := range others {
		g.Go(func() error { return other(gctx) })
	}
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
