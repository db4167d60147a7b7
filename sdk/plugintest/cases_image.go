package plugintest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/internal/session"
)

// applyLayer applies the tar of one layer by itself. For a format that keeps each layer as such a whiteout is a file of its name,
// whose attributes mean nothing. A chained format keeps what a layer does to those below it, and here there are none.
func (k *kit) applyLayer(t *flatten.Tree, raw []byte) error {
	t.BeginLayer()
	r := layer.NewReader(bytes.NewReader(raw), layer.Limits{})
	for {
		var e abi.Entry
		if err := r.Next(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		h := sha256.New()
		if k.desc.Chained {
			if _, err := io.Copy(h, r); e.Kind == abi.KindRegular && err != nil {
				return err
			}
		} else if e.Flags&(abi.EntryWhiteout|abi.EntryOpaque) != 0 {
			e = abi.Entry{Kind: abi.KindRegular, Path: e.Path}
		} else if _, err := io.Copy(h, r); e.Kind == abi.KindRegular && err != nil {
			return err
		}
		if err := t.Apply(&e, [32]byte(h.Sum(nil))); err != nil {
			return err
		}
	}
}

// differences compares trees as convhost verify does.
func differences(want, got *flatten.Tree) error {
	opt := flatten.CompareOptions{WholeSeconds: true, ImpliedUnspecified: true, Max: 10}
	var lines []string
	for _, d := range flatten.Compare(want.Records(), got.Records(), opt) {
		lines = append(lines, d.String())
	}
	if lines == nil {
		return nil
	}
	return errors.New("first: what went in, second: what came out\n" + strings.Join(lines, "\n"))
}

// unpack asks for a tar.
func (k *kit) unpack(parts []artifact, index int) ([]byte, error) {
	infos, grants := k.grantImage(parts)
	outs := &outputs{}
	req := &abi.UnpackRequest{Layer: index, Parts: infos, Options: k.cfg.Options, Features: abi.Features()}
	t := k.run(k.ctx, conditions{}, abi.OpUnpack, req, session.Config{Parts: grants}, outs)
	if t.err != nil {
		return nil, fmt.Errorf("unpack: %w", t.err)
	}
	if out := outs.all[0]; out != nil && out.closed && len(outs.all) == 1 {
		return out.bytes.Bytes(), nil
	}
	return nil, errors.New("unpack: want a tar in output 0, and nothing else")
}

func (k *kit) unpackLayer() error {
	if !k.has(abi.OpUnpack) {
		return notApplicable("the plugin has no Unpack")
	}
	return k.each(func(s *source, t *trial) error {
		parts, _, err := t.layerParts()
		if err != nil {
			return err
		}
		parts = slices.DeleteFunc(parts, func(p artifact) bool { return p.info.MediaType == "" })
		raw, err := k.unpack(parts, 0)
		if err != nil {
			return err
		}
		want, got := flatten.New(flatten.Options{}), flatten.New(flatten.Options{})
		if err := errors.Join(k.applyLayer(want, s.tar), k.applyLayer(got, raw)); err != nil {
			return err
		}
		return differences(want, got)
	})
}

// convertImage converts and merges layers, and returns those of the new image.
func (k *kit) convertImage(layers []*source) ([]artifact, error) {
	req := &abi.MergeRequest{
		Platform: "linux/amd64", Options: k.cfg.Options, ManifestMediaType: "application/vnd.oci.image.manifest.v1+json",
		Config: []byte(`{"architecture":"amd64","os":"linux"}`), Features: abi.Features(),
	}
	var parts, stack []artifact
	for i, s := range layers {
		info := k.layerInfo(s)
		conv := &abi.ConvertRequest{Layer: info, Options: k.cfg.Options, Features: req.Features}
		grants := session.Config{Layer: layerGrant(s), Input: k.desc.Input}
		if k.desc.Chained {
			conv.Layer.Index, conv.Layer.Count, conv.Layer.ChainID = i, len(layers), ""
			conv.Parents, grants.Parents = grantParts(parts)
		}
		t := k.run(k.ctx, conditions{}, abi.OpConvertLayer, conv, grants, &outputs{})
		if t.err != nil {
			return nil, fmt.Errorf("convert layer %q: %w", s.name, t.err)
		}
		made, resp, err := t.layerParts()
		if err != nil {
			return nil, err
		}
		m := abi.MergeLayer{Layer: info, State: resp.State}
		for j, p := range made {
			p.info.Layer = i
			m.Parts = append(m.Parts, int32(len(parts)))
			parts = append(parts, p)
			if !resp.Parts[j].Aux {
				stack = append(stack, p)
			}
		}
		req.Layers = append(req.Layers, m)
	}
	if !k.has(abi.OpMergeLayers) {
		return stack, nil
	}
	return k.merge(req, parts)
}

// merge finishes an image, twice, and holds the answer against the rules.
func (k *kit) merge(req *abi.MergeRequest, parts []artifact) ([]artifact, error) {
	infos, grants := grantParts(parts)
	req.Parts = infos
	t := k.run(k.ctx, conditions{}, abi.OpMergeLayers, req, session.Config{Parts: grants}, &outputs{})
	if t.err != nil {
		return nil, fmt.Errorf("merge: %w", t.err)
	}
	if err := t.same(k.run(k.ctx, conditions{}, abi.OpMergeLayers, req, session.Config{Parts: grants}, &outputs{})); err != nil {
		return nil, fmt.Errorf("merge, done twice: %w", err)
	}
	var resp abi.MergeResponse
	if err := abi.Unmarshal(t.resp, &resp); err != nil {
		return nil, fmt.Errorf("the response is not a MergeResponse: %w", err)
	}
	var fresh []abi.Part
	for _, l := range resp.Layers {
		if l.Part < 0 {
			fresh = append(fresh, l.New)
		}
	}
	news, err := t.outs.claims(fresh)
	if err != nil {
		return nil, fmt.Errorf("merge: %w", err)
	}
	var image []artifact
	last := -1
	for i, l := range resp.Layers {
		if l.Part >= len(parts) || l.Source >= len(req.Layers) || l.Source < -1 {
			return nil, fmt.Errorf("merge: layer %d names part %d of %d, source %d of %d", i, l.Part, len(parts), l.Source, len(req.Layers))
		}
		if l.Source >= 0 {
			if l.Source <= last {
				return nil, fmt.Errorf("merge: layer %d stands for source layer %d, after one for %d", i, l.Source, last)
			}
			last = l.Source
		}
		var a artifact
		if l.Part >= 0 {
			a = parts[l.Part]
		} else {
			a, news = news[0], news[1:]
		}
		if l.Annotations != nil {
			a.info.Annotations = l.Annotations
		}
		a.info.Layer = i
		image = append(image, a)
	}
	return image, nil
}

// stacks are images of two or more layers that change each other.
func (k *kit) stacks() [][]*source {
	lower := makeLayer("lower", everything()...)
	upper := makeLayer("upper", append(whiteouts(), file("bin/tool", words(9, 7000)), other(tar.TypeDir, "old/", ""), file("old/below", []byte("a directory now")))...)
	links := makeLayer("links", hardLinks()...)
	empty := makeLayer("empty")
	return [][]*source{{&lower}, {&lower, &upper}, {&upper, &lower}, {&empty, &links, &lower, &upper, &empty, &links}}
}

func (k *kit) image() error {
	var errs []error
	tried := 0
	for _, stack := range k.stacks() {
		parts, err := k.convertImage(stack)
		if abi.ClassOf(err) == abi.ErrUnsupported {
			continue
		}
		tried++
		if err == nil && k.has(abi.OpUnpack) {
			err = k.compareImage(stack, parts)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("image of layers %s: %w", names(stack), err))
		}
	}
	if tried == 0 {
		return notApplicable("the format holds none of the kit's images")
	}
	return errors.Join(errs...)
}

func names(stack []*source) string {
	var out []string
	for _, s := range stack {
		out = append(out, s.name)
	}
	return strings.Join(out, ", ")
}

func (k *kit) compareImage(stack []*source, parts []artifact) error {
	raw, err := k.unpack(parts, -1)
	if err != nil {
		return err
	}
	want, got := flatten.New(flatten.Options{}), flatten.New(flatten.Options{})
	for _, s := range stack {
		if _, err := want.ApplyTar(k.ctx, layer.NewReader(bytes.NewReader(s.tar), layer.Limits{})); err != nil {
			return err
		}
	}
	if _, err := got.ApplyTar(k.ctx, layer.NewReader(bytes.NewReader(raw), layer.Limits{})); err != nil {
		return fmt.Errorf("what Unpack wrote is not a tar: %w", err)
	}
	return differences(want, got)
}

func (k *kit) check() error {
	if !k.has(abi.OpCheck) {
		return notApplicable("the plugin has no Check")
	}
	parts, err := k.convertImage(k.stacks()[1])
	if err != nil {
		return err
	}
	examine := func(parts []artifact) ([]abi.ErrorDetail, error) {
		infos, grants := k.grantImage(parts)
		req := &abi.CheckRequest{Parts: infos, Options: k.cfg.Options, Deep: true}
		t := k.run(k.ctx, conditions{}, abi.OpCheck, req, session.Config{Parts: grants}, nil)
		var resp abi.CheckResponse
		if t.err == nil {
			t.err = abi.Unmarshal(t.resp, &resp)
		}
		return resp.Problems, t.err
	}
	if problems, err := examine(parts); err != nil || len(problems) > 0 {
		return fmt.Errorf("a good image: %d problems, %v %w", len(problems), problems, err)
	}
	var errs []error
	for i := range parts {
		cut := slices.Clone(parts)
		cut[i].bytes = cut[i].bytes[:len(cut[i].bytes)/2]
		cut[i].info.Size = int64(len(cut[i].bytes))
		if problems, err := examine(cut); len(problems) == 0 && !errors.Is(err, abi.ErrCorrupt) {
			errs = append(errs, fmt.Errorf("half of layer %d: no problem was found (%v)", i, err))
		}
	}
	return errors.Join(errs...)
}
