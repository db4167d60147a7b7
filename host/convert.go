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
