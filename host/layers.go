package host

import (
	"context"
	"encoding/hex"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
	"github.com/convhost/convhost/internal/layer/inflate"
	"github.com/convhost/convhost/internal/session"
)

// part is one artifact that a plugin made, at rest in the store.
type part struct {
	abi.Part
	desc   ocispec.Descriptor // as it would stand in a manifest
	diffID digest.Digest
	layer  int // index of the layer it belongs to
}

// converted is what became of one source layer.
type converted struct {
	source   ocispec.Descriptor
	parts    []part
	state    []byte
	warnings []string
	reused   bool // an earlier conversion made it: the parts may not be in the store
}

func (c *converted) size() (n int64) {
	for _, p := range c.parts {
		n += p.desc.Size
	}
	return n
}

// layerKey says which layers are equal: all that the plugin learns of them is. The parents count only for chained formats,
// in which the result depends on them.
type layerKey digest.Digest

// keysOf returns the keys of the layers of an image. Dictionaries count by their bytes.
func keysOf(infos []abi.LayerInfo, chained bool, dicts []abi.PartInfo) []layerKey {
	keys := make([]layerKey, len(infos))
	for i, info := range infos {
		keys[i] = layerKey(digest.FromBytes(abi.Marshal(&abi.ConvertRequest{Layer: info, Dicts: dicts})))
		if chained && i > 0 {
			keys[i] = layerKey(digest.FromString(string(keys[i-1]) + " " + string(keys[i])))
		}
	}
	return keys
}

// once converts each distinct layer of a target one time, however often the graph refers to it.
type once struct {
	mu   sync.Mutex
	jobs map[layerKey]*onceJob
}

type onceJob struct {
	done   chan struct{}
	res    *converted
	err    error
	gaveUp bool // its caller ended: err says nothing to others
}

// do returns the result for key, made by fn in the first caller. A caller whose context ends stops waiting; if it was
// the one that fn ran for, the next caller runs its own.
func (o *once) do(ctx context.Context, key layerKey, fn func() (*converted, error)) (*converted, error) {
	for {
		o.mu.Lock()
		j := o.jobs[key]
		if j == nil {
			j = &onceJob{done: make(chan struct{})}
			o.jobs[key] = j
			o.mu.Unlock()
			j.res, j.err = fn()
			if j.err != nil && ctx.Err() != nil {
				j.gaveUp = true
				o.mu.Lock()
				delete(o.jobs, key)
				o.mu.Unlock()
			}
			close(j.done)
			return j.res, j.err
		}
		o.mu.Unlock()
		select {
		case <-j.done:
			if !j.gaveUp {
				return j.res, j.err
			}
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return nil, canceled(ctx)
		}
	}
}

// canceled returns the error of a context that has ended. Why it ended is told by whoever ended it.
func canceled(ctx context.Context) error {
	return abi.Errorf(abi.ClassOf(ctx.Err()), "%v", ctx.Err())
}

// sessionLimits are the allowances of one plugin operation.
func (h *Host) sessionLimits() session.Limits {
	l := h.cfg.limits
	return session.Limits{
		Layer: l.Layer, OutputBase: l.OutputBase, OutputFactor: l.OutputFactor,
		Inflate: inflate.Limits{Raw: l.LayerBytes, Ratio: l.LayerRatio},
	}
}

// layerRequest is what the plugin is asked for a layer. All that its answer depends on stands in it, or behind digests in it.
func (c *conversion) layerRequest(info abi.LayerInfo, parents []abi.PartInfo) abi.ConvertRequest {
	return abi.ConvertRequest{Layer: info, Options: c.target.Options, Parents: parents, Dicts: c.dicts.infos, Features: abi.Features()}
}

// convertLayer runs the plugin on one layer.
func (c *conversion) convertLayer(ctx context.Context, desc ocispec.Descriptor, info abi.LayerInfo, parents []part) (*converted, error) {
	c.emit(Event{Kind: EventLayerStarted, Descriptor: desc, Total: desc.Size})
	at, err := c.src.readerAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	grants := session.Config{
		Pool: c.host.pool, Input: c.plugin.info.Description.Input, Limits: c.host.sessionLimits(), Log: c.log,
		Layer: &session.Layer{Open: sequential(at), At: at, MediaType: desc.MediaType, Digest: string(desc.Digest), Size: desc.Size, DiffID: info.DiffID},
		Read:  c.progress(desc),
	}
	infos, granted, closeParents, err := c.openParts(ctx, parents)
	if err != nil {
		return nil, err
	}
	defer closeParents()
	grants.Parents, grants.Dicts = granted, c.dicts.parts
	out := &outputs{ctx: ctx, store: c.store}
	grants.OpenSink = out.open
	req := c.layerRequest(info, infos)
	answer, err := c.plugin.run.run(ctx, abi.OpConvertLayer, abi.Marshal(&req), grants)
	if err != nil {
		return nil, err
	}
	var resp abi.ConvertResponse
	if err := abi.Unmarshal(answer, &resp); err != nil {
		return nil, err
	}
	res := &converted{source: desc, state: resp.State, warnings: resp.Warnings}
	for _, p := range resp.Parts {
		made, err := out.take(p)
		if err != nil {
			return nil, err
		}
		res.parts = append(res.parts, made)
	}
	if err := out.allTaken(); err != nil {
		return nil, err
	}
	c.emit(Event{Kind: EventLayerDone, Descriptor: desc, Done: desc.Size, Total: desc.Size, Output: res.size()})
	return res, nil
}

// sequential reads random-access bytes from the start.
func sequential(at cas.ReaderAt) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(at, 0, at.Size())), nil
	}
}

// openParts opens artifacts in the store for a request.
func (c *conversion) openParts(ctx context.Context, parts []part) (infos []abi.PartInfo, granted []session.Part, done func(), err error) {
	var open []cas.ReaderAt
	done = func() {
		for _, r := range open {
			r.Close()
		}
	}
	for _, p := range parts {
		r, err := c.openConverted(ctx, p.desc)
		if err != nil {
			done()
			return nil, nil, nil, err
		}
		open = append(open, r)
		granted = append(granted, session.Part{At: r, Size: p.desc.Size})
	}
	return partInfos(parts), granted, done, nil
}

// partInfos tells a plugin of artifacts.
func partInfos(parts []part) (infos []abi.PartInfo) {
	for _, p := range parts {
		infos = append(infos, abi.PartInfo{Name: p.Name, Layer: p.layer, MediaType: p.MediaType, Digest: string(p.desc.Digest), Size: p.desc.Size, Annotations: p.Annotations})
	}
	return infos
}

// outputs are the sinks of one operation, each an ingest of the store.
type outputs struct {
	ctx   context.Context
	store cas.Store
	sinks map[int]*output
}

// output is one sink.
type output struct {
	o     *outputs
	w     cas.Writer
	info  abi.StreamInfo
	desc  ocispec.Descriptor
	done  bool
	taken bool
}

func (o *outputs) open(index int) (session.Sink, error) {
	w, err := o.store.Ingest(o.ctx, "")
	if err != nil {
		return nil, err
	}
	if o.sinks == nil {
		o.sinks = map[int]*output{}
	}
	k := &output{o: o, w: w}
	o.sinks[index] = k
	return k, nil
}

// Write implements session.Sink.
func (k *output) Write(p []byte) (int, error) { return k.w.Write(p) }

// Sum implements session.Summer.
func (k *output) Sum() (sum [32]byte) {
	_, _ = hex.Decode(sum[:], []byte(k.w.Digest().Encoded())) // a sha256 digest, by contract
	return sum
}

// Close implements session.Sink.
func (k *output) Close(info abi.StreamInfo) error {
	k.info = info
	k.desc = ocispec.Descriptor{Digest: digest.NewDigestFromBytes(digest.SHA256, info.SHA256[:]), Size: info.Size}
	_, err := k.w.Commit(k.o.ctx, info.Size, k.desc.Digest, nil)
	k.done = err == nil
	k.w.Close()
	return err
}

// Abort implements session.Sink.
func (k *output) Abort() { k.w.Close() }

// take turns what a plugin says of an output into a part, if it is true.
func (o *outputs) take(p abi.Part) (part, error) {
	k := o.sinks[p.Sink]
	switch {
	case k == nil || !k.done:
		return part{}, abi.Errorf(abi.ErrPlugin, "plugin names output %d, which it did not complete", p.Sink)
	case k.taken:
		return part{}, abi.Errorf(abi.ErrPlugin, "plugin names output %d twice", p.Sink)
	case p.MediaType == "" && !p.Aux:
		return part{}, abi.Errorf(abi.ErrPlugin, "plugin gives no media type for output %d", p.Sink)
	case p.Digest != "" && p.Digest != string(k.desc.Digest):
		return part{}, abi.Errorf(abi.ErrPlugin, "plugin says that output %d is %s, its bytes are %s", p.Sink, p.Digest, k.desc.Digest)
	case p.Digest != "" && p.Size != k.desc.Size:
		return part{}, abi.Errorf(abi.ErrPlugin, "plugin says that output %d has %d bytes, it has %d", p.Sink, p.Size, k.desc.Size)
	}
	k.taken = true
	made := part{Part: p, desc: k.desc, diffID: k.desc.Digest}
	made.desc.MediaType, made.desc.Annotations = p.MediaType, p.Annotations
	if p.DiffID != "" {
		d, err := digest.Parse(p.DiffID)
		if err != nil {
			return part{}, abi.Errorf(abi.ErrPlugin, "plugin gives output %d the diff ID %q: %w", p.Sink, p.DiffID, err)
		}
		made.diffID = d
		codec, known := inflate.Promised(p.MediaType)
		filtered := k.info.RawSHA256 != k.info.SHA256
		if raw := digest.NewDigestFromBytes(digest.SHA256, k.info.RawSHA256[:]); (filtered || known && codec == inflate.Plain) && d != raw {
			return part{}, abi.Errorf(abi.ErrPlugin, "plugin gives output %d the diff ID %s, its bytes before compression are %s", p.Sink, d, raw)
		}
	}
	return made, nil
}

func (o *outputs) allTaken() error {
	for _, i := range slices.Sorted(maps.Keys(o.sinks)) {
		if !o.sinks[i].taken {
			return abi.Errorf(abi.ErrPlugin, "plugin wrote output %d and does not name it", i)
		}
	}
	return nil
}
