package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/graph"
)

// WithDedup lets conversions take over what earlier ones made: layers and whole images with the same source, plugin,
// options and parents are not converted again. The host keeps what it converts there, too. The result has the same bytes
// as without. The store stays the caller's to close, after the host. Default: nothing is remembered.
//
// A store that fails makes no conversion fail: EventWarning tells, and layers are converted.
func WithDedup(s dedup.Store) Option { return func(c *config) { c.dedup = s } }

// storeTime is how long one question to the dedup store may take: longer, and converting is the better way.
var storeTime = 20 * time.Second

// look says what an attempt takes over; the next one takes less.
type look int

const (
	lookNowhere look = iota
	lookLayers       // but not whole images
	lookAll
)

// reuse is what one conversion takes from earlier ones and leaves to later ones. A nil reuse does neither.
type reuse struct {
	c      *conversion
	store  dedup.Store
	engine dedup.Engine
	look   look

	places places

	mu     sync.Mutex
	off    bool                           // the store failed: it is not asked again
	used   map[dedup.Key][]digest.Digest  // records that were taken, and their blobs
	layers map[dedup.Key]*converted       // that were converted
	images map[digest.Digest]*madeImage   // that were converted, by digest of the source
	expect map[digest.Digest]dedup.Target // that were taken, by digest of the source
	told   map[digest.Digest]bool         // source layers that were reported
}

// madeImage is an image that was converted here.
type madeImage struct {
	key    dedup.Key
	node   *graph.Node
	layers []*converted
	f      *finished
}

// newReuse returns nil without a store, or if nobody can say what code runs.
func (c *conversion) newReuse(look look) *reuse {
	h := c.host
	if h.cfg.dedup == nil {
		return nil
	}
	engine, err := h.engineOf(&c.plugin.info)
	if err != nil {
		h.emit(Event{Kind: EventWarning, Format: c.plugin.info.Name, Dest: c.target.Dest, Message: fmt.Sprintf("nothing is reused or remembered: %v", err)})
		return nil
	}
	u := &reuse{c: c, store: h.cfg.dedup, engine: engine, look: look, used: map[dedup.Key][]digest.Digest{},
		layers: map[dedup.Key]*converted{}, images: map[digest.Digest]*madeImage{},
		expect: map[digest.Digest]dedup.Target{}, told: map[digest.Digest]bool{}}
	u.places.init(u)
	return u
}

// ask runs one question to the store. It reports false after a failure, which is told once: then the conversion goes on
// as if there were no store. ErrNotFound and ErrCorrupt are answers.
func (u *reuse) ask(ctx context.Context, what string, fn func(context.Context) error) (ok bool, err error) {
	u.mu.Lock()
	off := u.off
	u.mu.Unlock()
	if off {
		return false, nil
	}
	sctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	err = fn(sctx)
	if err == nil || errors.Is(err, abi.ErrNotFound) || errors.Is(err, abi.ErrCorrupt) || errors.Is(err, abi.ErrLimit) {
		return true, err
	}
	if ctx.Err() != nil {
		return false, err
	}
	u.mu.Lock()
	first := !u.off
	u.off = true
	u.mu.Unlock()
	if first {
		u.c.emit(Event{Kind: EventWarning, Message: fmt.Sprintf("dedup store: cannot %s, so it is left alone: %v", what, err)})
	}
	return false, err
}

// get returns a record, nil if there is none that can be used.
func (u *reuse) get(ctx context.Context, key dedup.Key) *dedup.Record {
	var rec *dedup.Record
	ok, err := u.ask(ctx, "look up "+key.String(), func(ctx context.Context) (err error) {
		rec, err = u.store.Get(ctx, key)
		return err
	})
	if ok && errors.Is(err, abi.ErrCorrupt) {
		u.c.emit(Event{Kind: EventWarning, Message: fmt.Sprintf("dedup store: %v; it is dropped", err)})
		u.drop(ctx, key)
	}
	if err != nil || !ok {
		return nil
	}
	return rec
}

func (u *reuse) drop(ctx context.Context, key dedup.Key) {
	_, _ = u.ask(ctx, "drop "+key.String(), func(ctx context.Context) error { return u.store.Drop(ctx, key) }) // ask tells of failures
}

// layer returns what an earlier conversion made of a layer, nil if there is nothing or its bytes are nowhere.
func (u *reuse) layer(ctx context.Context, desc ocispec.Descriptor, req *abi.ConvertRequest) *converted {
	if u == nil || u.look < lookLayers {
		return nil
	}
	key := u.layerKey(req)
	rec := u.get(ctx, key)
	if rec == nil || rec.Layer == nil {
		return nil
	}
	res := &converted{source: desc, state: rec.Layer.State, warnings: rec.Layer.Warnings, reused: true}
	for _, p := range rec.Layer.Parts {
		res.parts = append(res.parts, partOf(p))
	}
	var blobs []ocispec.Descriptor
	for _, p := range res.parts {
		blobs = append(blobs, p.desc)
	}
	if missing := u.places.findAll(ctx, blobs); missing != nil {
		u.forget(ctx, key, *missing)
		return nil
	}
	u.take(key, rec)
	u.tell(desc, res.size())
	return res
}

// forget drops a record whose blob is at no place that is known. Places that cannot be asked from here keep it.
func (u *reuse) forget(ctx context.Context, key dedup.Key, blob ocispec.Descriptor) {
	u.c.log.Info("a blob of an earlier conversion was not found", "record", key, "blob", blob.Digest)
	if len(u.places.known(ctx, blob.Digest)) == 0 {
		u.drop(ctx, key)
	}
}

func (u *reuse) take(key dedup.Key, rec *dedup.Record) {
	u.mu.Lock()
	u.used[key] = rec.Blobs()
	if rec.Manifest != nil {
		u.expect[rec.Source] = rec.Manifest.Converted
	}
	u.mu.Unlock()
}

// confirm holds the manifests that were made of records against what was published then.
func (u *reuse) confirm(converted []graph.Mapped) error {
	if u == nil {
		return nil
	}
	for _, m := range converted {
		if want, ok := u.expect[m.Source.Desc.Digest]; ok && want.Digest != m.Target.Digest {
			return &staleError{abi.Errorf(abi.ErrDigest, "manifest %s became %s, what was recorded of it makes %s", m.Source.Desc.Digest, want.Digest, m.Target.Digest), lookLayers}
		}
	}
	return nil
}

// tell reports a layer that need not be converted, once.
func (u *reuse) tell(desc ocispec.Descriptor, output int64) {
	u.mu.Lock()
	first := !u.told[desc.Digest]
	u.told[desc.Digest] = true
	u.mu.Unlock()
	if first {
		u.c.emit(Event{Kind: EventLayerReused, Descriptor: desc, Total: desc.Size, Output: output})
	}
}

// image returns what an earlier conversion made of a whole image, nil if there is nothing or its bytes are nowhere.
func (u *reuse) image(ctx context.Context, n *graph.Node) *graph.Conversion {
	if u == nil || u.look < lookAll {
		return nil
	}
	key := u.manifestKey(n)
	rec := u.get(ctx, key)
	if rec == nil || rec.Manifest == nil {
		return nil
	}
	layers, f, err := imageOf(n, rec.Manifest)
	if err == nil {
		var blobs []ocispec.Descriptor
		for _, l := range f.layers {
			blobs = append(blobs, l.desc)
		}
		if missing := u.places.findAll(ctx, blobs); missing != nil {
			u.forget(ctx, key, *missing)
			return nil
		}
		var conv *graph.Conversion
		if conv, err = u.c.assemble(n, layers, f); err == nil {
			u.take(key, rec)
			u.tellImage(n, f)
			return conv
		}
	}
	u.c.emit(Event{Kind: EventWarning, Message: fmt.Sprintf("dedup store: record %s makes no image of %s, it is dropped: %v", key, n.Desc.Digest, err)})
	u.drop(ctx, key)
	return nil
}

func (u *reuse) tellImage(n *graph.Node, f *finished) {
	for i, l := range n.Layers() {
		var size int64
		for _, o := range f.layers {
			if o.source == i {
				size += o.desc.Size
			}
		}
		u.tell(l.Desc, size)
	}
}

// made notes a layer that was converted, for record.
func (u *reuse) made(req *abi.ConvertRequest, res *converted) {
	if u == nil {
		return
	}
	u.mu.Lock()
	u.layers[u.layerKey(req)] = res
	u.mu.Unlock()
}

// madeImage notes an image that was converted, for record.
func (u *reuse) madeImage(n *graph.Node, layers []*converted, f *finished) {
	if u == nil {
		return
	}
	u.mu.Lock()
	u.images[n.Desc.Digest] = &madeImage{key: u.manifestKey(n), node: n, layers: layers, f: f}
	u.mu.Unlock()
}

// any says whether something was taken over.
func (u *reuse) any() bool {
	if u == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.used) > 0
}

// gone drops all records that speak of a blob: it was found, and then it could not be read.
func (u *reuse) gone(ctx context.Context, blob digest.Digest) {
	u.mu.Lock()
	var keys []dedup.Key
	for key, blobs := range u.used {
		if slices.Contains(blobs, blob) {
			keys = append(keys, key)
		}
	}
	u.mu.Unlock()
	for _, key := range keys {
		u.drop(ctx, key)
	}
}

// staleError says that a record or blob of an earlier conversion could not be used after all, and what still can.
type staleError struct {
	err  error
	next look
}

func (e *staleError) Error() string { return e.err.Error() }
func (e *staleError) Unwrap() error { return e.err }

// suspect says whether a failure may be the fault of what was taken over, and what the next attempt may take: the last one
// takes nothing, and if that fails as well, its error is the true one.
func suspect(ctx context.Context, err error, convs []*conversion) (next look, again bool) {
	if err == nil || ctx.Err() != nil || !slices.ContainsFunc(convs, func(c *conversion) bool { return c.reuse.any() }) {
		return 0, false
	}
	var stale *staleError
	if errors.As(err, &stale) {
		return stale.next, true
	}
	switch abi.ClassOf(err) {
	case abi.ErrCorrupt, abi.ErrTruncated, abi.ErrDigest, abi.ErrPlugin, abi.ErrMismatch, abi.ErrInvalid, abi.ErrInternal:
		return lookNowhere, true
	}
	return 0, false
}
