package host

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/transport"
)

// Convert converts one source to all targets. Nothing becomes visible at any target before all conversions have
// succeeded; then each target's name is set last, in one step.
//
// ErrInvalid for requests that cannot be meant, ErrNotFound for sources and plugins that do not exist, and whatever
// graph.Load, the plugins and the transports return, wrapped in *Error where it happened at an image or a layer.
func (h *Host) Convert(ctx context.Context, req ConvertRequest) ([]Result, error) {
	dests, err := checkTargets(req)
	if err != nil {
		return nil, err
	}
	ctx, done, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var results []Result
	err = h.withSource(ctx, req.Source, func(src *source) error {
		if req.KeepWork {
			h.keepWork(ctx, src)
		}
		h.emit(Event{Kind: EventResolved, Descriptor: src.root})
		sel, err := selectImages(src.graph, req)
		if err != nil {
			return err
		}
		for look := lookAll; ; {
			convs, err := h.conversions(ctx, src, req, dests, look)
			if err == nil {
				results, err = h.attempt(ctx, convs, sel, req)
			}
			h.closeAll(convs)
			next, again := suspect(ctx, err, convs)
			if len(results) > 0 || !again {
				return err
			}
			look = next
			h.emit(Event{Kind: EventWarning, Message: fmt.Sprintf("what earlier conversions left is of no use, it is converted anew: %v", err)})
		}
	})
	return results, err
}

// attempt converts to all targets and publishes. The results are those that were published, also beside an error.
func (h *Host) attempt(ctx context.Context, convs []*conversion, sel *graph.Selection, req ConvertRequest) ([]Result, error) {
	g, gctx := errgroup.WithContext(ctx)
	for _, c := range convs {
		g.Go(func() error { return c.run(gctx, sel) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return h.complete(ctx, convs, req)
}

// closeAll closes what conversions opened. What publish closed is closed.
func (h *Host) closeAll(convs []*conversion) {
	for _, c := range convs {
		c.dicts.close()
		c.reuse.close()
		_ = c.closeTarget() // logged
	}
}

func checkTargets(req ConvertRequest) ([]transport.Reference, error) {
	if len(req.Targets) == 0 {
		return nil, abi.Errorf(abi.ErrInvalid, "no target: name a format and where the result goes")
	}
	switch req.Attestations {
	case "", AttestationsDrop, AttestationsKeep:
	default:
		return nil, abi.Errorf(abi.ErrInvalid, "attestations %q: want drop or keep", req.Attestations)
	}
	var refs []transport.Reference
	for i, t := range req.Targets {
		r, err := t.dest(req.DryRun)
		if err == nil {
			err = t.check()
		}
		if err != nil {
			return nil, err
		}
		for j := range i {
			if req.Targets[j].Dest == t.Dest && t.Dest != "" {
				return nil, abi.Errorf(abi.ErrInvalid, "two targets go to %s", t.Dest)
			}
		}
		refs = append(refs, r)
	}
	return refs, nil
}

// selectImages decides what is converted: everything that runs, or the platforms that were named.
func selectImages(g *graph.Graph, req ConvertRequest) (*graph.Selection, error) {
	o := graph.SelectOptions{All: req.Select.All || len(req.Select.Platforms) == 0}
	if req.Attestations == AttestationsKeep {
		o.Attestations = graph.KeepAttestations
	}
	for _, s := range req.Select.Platforms {
		p, err := platforms.Parse(s)
		if err != nil {
			return nil, abi.Errorf(abi.ErrInvalid, "platform %q: %w", s, err)
		}
		o.Platforms = append(o.Platforms, p)
	}
	return graph.Select(g, o)
}

// conversion is one target of a Convert.
type conversion struct {
	host   *Host
	plugin *plugin
	target Target
	dicts  *dicts
	ref    transport.Reference
	src    *source
	store  cas.Store
	log    *slog.Logger
	once   once
	slots  chan struct{} // layers at a time
	reuse  *reuse        // nil: of and for nothing

	mu        sync.Mutex
	opened    transport.Target
	manifests map[digest.Digest]*ManifestResult // by digest of the source
	rewritten *graph.Rewritten
}

func (h *Host) conversions(ctx context.Context, src *source, req ConvertRequest, refs []transport.Reference, look look) ([]*conversion, error) {
	layers := h.cfg.limits.Layers
	if layers <= 0 {
		layers = max(h.cfg.jobs, 1)
	}
	slots := make(chan struct{}, layers)
	var convs []*conversion
	for i, t := range req.Targets {
		p, err := h.plugins.get(ctx, t.Format, t.Runtime)
		if err == nil {
			err = t.suits(&p.info.Description)
		}
		var d *dicts
		if err == nil {
			d, err = openDicts(ctx, t.Dicts)
		}
		if err != nil {
			return convs, err
		}
		c := &conversion{
			host: h, plugin: p, target: t, dicts: d, ref: refs[i], src: src, store: src.store, slots: slots,
			log: h.cfg.log.With("format", p.info.Name), once: once{jobs: map[layerKey]*onceJob{}},
			manifests: map[digest.Digest]*ManifestResult{},
		}
		if !req.DryRun {
			c.reuse = c.newReuse(look)
		}
		convs = append(convs, c)
	}
	return convs, nil
}

// checkOptions refuses options that the plugin does not have.
func checkOptions(d *abi.Description, options map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		i := slices.IndexFunc(d.Options, func(o abi.OptionSpec) bool { return o.Name == name })
		if i < 0 {
			var names []string
			for _, o := range d.Options {
				names = append(names, o.Name)
			}
			return abi.Errorf(abi.ErrInvalid, "plugin %s has no option %q; there are: %s", d.Name, name, strings.Join(names, ", "))
		}
		if v := d.Options[i].Values; len(v) > 0 && !slices.Contains(v, options[name]) {
			return abi.Errorf(abi.ErrInvalid, "option %s=%s: want one of %s", name, options[name], strings.Join(v, ", "))
		}
	}
	return nil
}

func (c *conversion) emit(e Event) {
	e.Format, e.Dest = c.plugin.info.Name, c.target.Dest
	c.host.emit(e)
}

// progress returns a function that reports the stored bytes of a layer as they are read.
func (c *conversion) progress(desc ocispec.Descriptor) func(n int) {
	var done, told atomic.Int64
	step := max(desc.Size/100, 1)
	return func(n int) {
		d := done.Add(int64(n))
		if t := told.Load(); d-t >= step && told.CompareAndSwap(t, d) {
			c.emit(Event{Kind: EventLayerProgress, Descriptor: desc, Done: d, Total: desc.Size})
		}
	}
}

// run converts everything that was selected; results are in the store.
func (c *conversion) run(ctx context.Context, sel *graph.Selection) (err error) {
	c.rewritten, err = graph.Rewrite(ctx, c.src.graph, sel, c.manifest, storeWriter{c.store}, c.rewriting())
	if cerr := c.dicts.unchanged(); cerr != nil && ctx.Err() == nil {
		return cerr // whatever the plugin made of it
	}
	if err == nil {
		err = c.written()
	}
	if err != nil {
		return err
	}
	if err := c.reuse.confirm(c.rewritten.Converted); err != nil {
		return err
	}
	for _, m := range c.rewritten.Converted {
		c.emit(Event{Kind: EventManifestDone, Descriptor: m.Target, Platform: platformOf(m.Source)})
	}
	for _, d := range c.rewritten.Dropped {
		c.emit(Event{Kind: EventDropped, Descriptor: d.Node.Desc, Message: d.Reason})
	}
	for _, n := range c.rewritten.Notes {
		c.emit(Event{Kind: EventWarning, Message: n})
	}
	return nil
}

// storeWriter puts new documents into the store.
type storeWriter struct{ store cas.Store }

// WriteDocument implements graph.Writer.
func (w storeWriter) WriteDocument(ctx context.Context, desc ocispec.Descriptor, raw []byte) error {
	children, err := graph.Children(desc.MediaType, raw)
	if err != nil {
		return err
	}
	_, err = cas.WriteDocument(ctx, w.store, desc.MediaType, raw, cas.RefLabels(children))
	return err
}

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
	g, gctx := errgroup.WithContext(ctx)
	for i := range nodes {
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

// result is what a caller learns of a target.
func (c *conversion) result() Result {
	r := Result{Format: c.plugin.info.Name, Dest: c.target.Dest, Source: c.src.root, Root: c.rewritten.Root, Plugin: c.plugin.info}
	for _, m := range c.rewritten.Converted {
		res := c.manifests[m.Source.Desc.Digest]
		if res == nil { // it was of this format already
			res = &ManifestResult{Platform: platformOf(m.Source), Source: m.Source.Desc, Already: true}
		}
		res.Converted = m.Target
		r.Manifests = append(r.Manifests, *res)
	}
	for _, d := range c.rewritten.Dropped {
		r.Dropped = append(r.Dropped, Dropped{Descriptor: d.Node.Desc, Reason: d.Reason})
	}
	return r
}

// complete verifies, dumps and publishes what was converted, as far as the request asks for it.
func (h *Host) complete(ctx context.Context, convs []*conversion, req ConvertRequest) (results []Result, err error) {
	for _, c := range convs {
		if req.Verify {
			if err := c.verify(ctx); err != nil {
				return nil, err
			}
		}
	}
	if req.DumpDir != "" {
		d, derr := stageDump(ctx, req.DumpDir, convs)
		if derr != nil {
			return nil, derr
		}
		defer func() {
			if err == nil {
				err = d.appear()
			}
			d.drop()
		}()
	}
	if !req.DryRun {
		return h.publish(ctx, convs)
	}
	for _, c := range convs {
		r := c.result()
		r.DryRun = true
		results = append(results, r)
	}
	return results, nil
}

// openTarget opens where the result goes, once.
func (c *conversion) openTarget(ctx context.Context) (transport.Target, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened != nil {
		return c.opened, nil
	}
	t, err := transport.OpenTarget(ctx, c.ref, c.host.cfg.transport)
	if err == nil {
		c.opened = t
	}
	return t, err
}

// closeTarget may be called again.
func (c *conversion) closeTarget() error {
	c.mu.Lock()
	t := c.opened
	c.opened = nil
	c.mu.Unlock()
	if t == nil {
		return nil
	}
	err := t.Close()
	if err != nil {
		c.log.Warn("a target could not be closed", "dest", c.target.Dest, "error", err)
	}
	return err
}

// publish pushes all results, then makes their names visible. The results are those that were published, also beside an
// error.
func (h *Host) publish(ctx context.Context, convs []*conversion) (results []Result, err error) {
	var targets []transport.Target
	defer func() {
		for _, c := range convs {
			if cerr := c.closeTarget(); err == nil {
				err = cerr
			}
		}
	}()
	for _, c := range convs {
		t, err := c.openTarget(ctx)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
		if err := c.push(ctx, t); err != nil {
			return nil, err
		}
	}
	for i, c := range convs {
		c.reuse.close()
		if err := targets[i].Publish(ctx, c.rewritten.Root); err != nil {
			return results, err
		}
		c.emit(Event{Kind: EventPublished, Descriptor: c.rewritten.Root})
		results = append(results, c.result())
		c.reuse.record(ctx)
	}
	return results, nil
}
