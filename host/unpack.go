package host

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/internal/session"
)

// withSource opens a reference and a private store for what must be pulled, for the time of fn.
func (h *Host) withSource(ctx context.Context, ref string, fn func(*source) error) error {
	store, err := cas.OpenEphemeral(ctx, h.cfg.workDir)
	if err != nil {
		return err
	}
	defer store.Close()
	ctx, release, err := store.Lease(ctx)
	if err != nil {
		return err
	}
	defer release()
	s, err := h.openSource(ctx, ref, store)
	if err != nil {
		return err
	}
	defer s.close()
	return fn(s)
}

// Unpack writes the tar of one layer of a converted image, or of its whole file system, to req.Out. It writes while
// it reads: on an error, what was written is incomplete and must be dropped.
func (h *Host) Unpack(ctx context.Context, req UnpackRequest) (*UnpackResult, error) {
	ctx, done, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var res *UnpackResult
	err = h.withSource(ctx, req.Image, func(s *source) error {
		nodes, err := pickImages(s.graph, req.Select, true)
		if err != nil {
			return err
		}
		n := nodes[0]
		p, err := h.pluginFor(ctx, n, req.Format, req.Runtime)
		if err != nil {
			return err
		}
		if p == nil {
			return abi.Errorf(abi.ErrUnsupported, "%s is not of a format that a plugin here knows: nothing to unpack", req.Image)
		}
		out := &tarOutput{w: req.Out}
		answer, err := h.unpackTo(ctx, s, n, p, req.Layer, out)
		if err != nil {
			e := &Error{Op: "unpack", Format: p.info.Name, Manifest: n.Desc, Platform: platformOf(n), Layer: req.Layer, Err: err}
			if i := req.Layer; i >= 0 && i < len(n.Manifest.Layers) {
				e.Blob = n.Manifest.Layers[i]
			}
			return e
		}
		res = &UnpackResult{Manifest: n.Desc, Platform: platformOf(n), Entries: answer.Entries, Bytes: out.n}
		return nil
	})
	return res, err
}

// unpackTo runs the plugin's Unpack on image n with its output going to sink.
func (h *Host) unpackTo(ctx context.Context, s *source, n *graph.Node, p *plugin, layer int, sink session.Sink) (*abi.UnpackResponse, error) {
	if !slices.Contains(p.info.Description.Ops, abi.OpUnpack) {
		return nil, abi.Errorf(abi.ErrUnsupported, "plugin %s cannot unpack", p.info.Name)
	}
	if layers := len(n.Manifest.Layers); layer < -1 || layer >= layers {
		return nil, abi.Errorf(abi.ErrInvalid, "layer %d: the image has layers 0 to %d", layer, layers-1)
	}
	v, err := s.openView(ctx, n, p)
	if err != nil {
		return nil, err
	}
	defer v.done()
	req := abi.UnpackRequest{Layer: layer, Parts: v.parts, Config: n.ConfigNode().Raw, Features: abi.Features()}
	limits := h.sessionLimits()
	limits.OutputBase, limits.OutputFactor = h.cfg.limits.LayerBytes, h.cfg.limits.LayerRatio // output is the larger side here
	answer, err := p.run.run(ctx, abi.OpUnpack, abi.Marshal(&req), session.Config{
		Pool: h.pool, Parts: v.grants, Limits: limits, Log: h.cfg.log,
		OpenSink: func(index int) (session.Sink, error) {
			if index != 0 {
				return nil, abi.Errorf(abi.ErrDenied, "output %d was not granted: a tar goes to output 0", index)
			}
			return sink, nil
		},
	})
	if err != nil {
		return nil, err
	}
	resp := &abi.UnpackResponse{}
	return resp, abi.Unmarshal(answer, resp)
}

// tarOutput passes a sink on to a writer.
type tarOutput struct {
	w io.Writer
	n int64
}

// Write implements session.Sink.
func (t *tarOutput) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.n += int64(n)
	if err != nil && abi.ClassOf(err) == abi.ErrInternal {
		err = abi.Errorf(abi.ErrIO, "write tar: %w", err)
	}
	return n, err
}

// Close implements session.Sink.
func (t *tarOutput) Close(abi.StreamInfo) error { return nil }

// Abort implements session.Sink.
func (t *tarOutput) Abort() {}

// Check lets the plugin of each selected image examine it.
func (h *Host) Check(ctx context.Context, req CheckRequest) ([]CheckResult, error) {
	ctx, done, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var out []CheckResult
	err = h.withSource(ctx, req.Image, func(s *source) error {
		nodes, err := pickImages(s.graph, req.Select, false)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			r, err := h.check(ctx, s, n, req)
			if err != nil {
				return err
			}
			out = append(out, *r)
		}
		return nil
	})
	return out, err
}

func (h *Host) check(ctx context.Context, s *source, n *graph.Node, req CheckRequest) (*CheckResult, error) {
	p, err := h.pluginFor(ctx, n, req.Format, req.Runtime)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, abi.Errorf(abi.ErrUnsupported, "%s %s is not of a format that a plugin here knows", req.Image, platformOf(n))
	}
	fail := func(err error) error {
		return &Error{Op: "check", Format: p.info.Name, Manifest: n.Desc, Platform: platformOf(n), Layer: -1, Err: err}
	}
	if !slices.Contains(p.info.Description.Ops, abi.OpCheck) {
		return nil, fail(abi.Errorf(abi.ErrUnsupported, "plugin %s cannot check", p.info.Name))
	}
	v, err := s.openView(ctx, n, p)
	if err != nil {
		return nil, fail(err)
	}
	defer v.done()
	q := abi.CheckRequest{Parts: v.parts, Deep: req.Deep, Config: n.ConfigNode().Raw}
	answer, err := p.run.run(ctx, abi.OpCheck, abi.Marshal(&q), session.Config{
		Pool: h.pool, Parts: v.grants, Limits: h.sessionLimits(), Log: h.cfg.log,
	})
	if errors.Is(err, abi.ErrCorrupt) { // a body that cannot be decoded ends the operation: it is what a check looks for
		return &CheckResult{Format: p.info.Name, Manifest: n.Desc, Platform: platformOf(n), Problems: []abi.ErrorDetail{abi.DetailOf(err)}}, nil
	}
	if err != nil {
		return nil, fail(err)
	}
	var resp abi.CheckResponse
	if err := abi.Unmarshal(answer, &resp); err != nil {
		return nil, fail(err)
	}
	return &CheckResult{Format: p.info.Name, Manifest: n.Desc, Platform: platformOf(n), Problems: resp.Problems, Facts: resp.Facts}, nil
}
