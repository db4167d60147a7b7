package host

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
)

// outLayer is one layer of a converted manifest.
type outLayer struct {
	desc      ocispec.Descriptor
	diffID    digest.Digest
	source    int // index of the source layer whose history item it keeps, or -1
	createdBy string
	comment   string
}

// finished is what a converted image consists of.
type finished struct {
	layers []outLayer
	resp   abi.MergeResponse
	reused bool // by an earlier conversion
}

// finish turns the converted layers of one manifest into the layers of the converted one: by the plugin's merge step, or
// one after the other if it has none.
func (c *conversion) finish(ctx context.Context, layers []*converted, infos []abi.LayerInfo, req abi.MergeRequest) (*finished, error) {
	if !slices.Contains(c.plugin.info.Description.Ops, abi.OpMergeLayers) {
		return inOrder(layers)
	}
	var parts []part
	for i, l := range layers {
		m := abi.MergeLayer{Layer: infos[i], State: l.state}
		for _, p := range l.parts {
			m.Parts = append(m.Parts, int32(len(parts)))
			p.layer = i
			parts = append(parts, p)
		}
		req.Layers = append(req.Layers, m)
	}
	infosOfParts, granted, done, err := c.openParts(ctx, parts)
	if err != nil {
		return nil, err
	}
	defer done()
	req.Parts = infosOfParts
	out := &outputs{ctx: ctx, store: c.store}
	answer, err := c.plugin.run.run(ctx, abi.OpMergeLayers, abi.Marshal(&req), session.Config{
		Pool: c.host.pool, Parts: granted, Dicts: c.dicts.parts, OpenSink: out.open, Limits: c.host.sessionLimits(), Log: c.log,
	})
	if err != nil {
		return nil, err
	}
	f := &finished{}
	if err := abi.Unmarshal(answer, &f.resp); err != nil {
		return nil, err
	}
	for _, l := range f.resp.Layers {
		made, err := resolve(l, parts, out, len(layers))
		if err != nil {
			return nil, err
		}
		f.layers = append(f.layers, made)
	}
	if len(f.layers) == 0 {
		return nil, abi.Errorf(abi.ErrPlugin, "plugin made an image without layers")
	}
	return f, out.allTaken()
}

// resolve finds the bytes that an OutLayer speaks of.
func resolve(l abi.OutLayer, parts []part, out *outputs, sources int) (outLayer, error) {
	var p part
	switch {
	case l.Part >= len(parts):
		return outLayer{}, abi.Errorf(abi.ErrPlugin, "plugin names part %d of %d", l.Part, len(parts))
	case l.Part >= 0:
		p = parts[l.Part]
	default:
		made, err := out.take(l.New)
		if err != nil {
			return outLayer{}, err
		}
		p = made
	}
	if l.Source >= sources || l.Source < -1 {
		return outLayer{}, abi.Errorf(abi.ErrPlugin, "plugin names source layer %d of %d", l.Source, sources)
	}
	if p.desc.MediaType == "" {
		return outLayer{}, abi.Errorf(abi.ErrPlugin, "plugin makes a layer of a part without a media type")
	}
	if l.Annotations != nil {
		p.desc.Annotations = l.Annotations
	}
	return outLayer{desc: p.desc, diffID: p.diffID, source: l.Source, createdBy: l.CreatedBy, comment: l.Comment}, nil
}

// inOrder makes an image of all parts that are layers.
func inOrder(layers []*converted) (*finished, error) {
	f := &finished{}
	for i, l := range layers {
		n := 0
		for _, p := range l.parts {
			if p.Aux {
				continue
			}
			o := outLayer{desc: p.desc, diffID: p.diffID, source: i}
			if n > 0 {
				o.source = -1
			}
			f.layers = append(f.layers, o)
			n++
		}
		if n == 0 {
			return nil, abi.Errorf(abi.ErrPlugin, "plugin made no layer of layer %d and has no merge step", i)
		}
	}
	return f, nil
}
