package host

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/transport"
)

// pushParallel is the number of blobs on their way at a time: registries answer slowly, disks do not gain from more.
const pushParallel = 4

// pushItem is one blob of the converted graph.
type pushItem struct {
	desc ocispec.Descriptor
	open func() (io.ReadCloser, error)
	lent bool // it is one of the source's
}

// push stores everything that the converted graph consists of: blobs first, side by side, then documents, children before
// parents.
func (c *conversion) push(ctx context.Context, t transport.Target) error {
	blobs, docs, err := c.items(ctx)
	if err != nil {
		return err
	}
	var total, done atomic.Int64
	for _, it := range append(append([]pushItem{}, blobs...), docs...) {
		total.Add(it.desc.Size)
	}
	c.emit(Event{Kind: EventPushStarted, Total: total.Load()})
	one := func(ctx context.Context, it pushItem) error {
		has, err := t.Has(ctx, it.desc)
		if err == nil && !has && !(it.lent && c.mountLent(ctx, t, it.desc)) {
			err = t.Push(ctx, it.desc, it.open)
		}
		if err != nil {
			return &Error{Op: "push " + c.target.Dest, Layer: -1, Manifest: it.desc, Err: err}
		}
		c.emit(Event{Kind: EventPushProgress, Descriptor: it.desc, Done: done.Add(it.desc.Size), Total: total.Load()})
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(pushParallel)
	for _, it := range blobs {
		g.Go(func() error { return one(gctx, it) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, it := range docs {
		if err := one(ctx, it); err != nil {
			return err
		}
	}
	return nil
}

// items lists the blobs and the documents of the converted graph.
func (c *conversion) items(ctx context.Context) (blobs, docs []pushItem, err error) {
	seen := map[digest.Digest]bool{}
	put := func(to *[]pushItem, it pushItem) {
		if !seen[it.desc.Digest] {
			seen[it.desc.Digest] = true
			*to = append(*to, it)
		}
	}
	add := func(to *[]pushItem, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) {
		put(to, pushItem{desc: desc, open: open})
	}
	lend := func(desc ocispec.Descriptor, open func() (io.ReadCloser, error)) {
		put(&blobs, pushItem{desc: desc, open: open, lent: true})
	}
	fromStore := func(desc ocispec.Descriptor) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return c.openStored(ctx, desc) }
	}
	for _, n := range c.rewritten.Kept { // from the source, as they are
		for _, child := range kept(n) {
			desc := child.Desc
			switch {
			case child.Kind.Document():
				add(&docs, desc, func() (io.ReadCloser, error) { return c.src.t.Fetch(ctx, desc) })
			case child.Kind == graph.KindForeign && len(desc.URLs) > 0:
			default:
				lend(desc, func() (io.ReadCloser, error) { return c.src.t.Fetch(ctx, desc) })
			}
		}
	}
	for _, m := range c.rewritten.Converted {
		if r := c.manifests[m.Source.Desc.Digest]; r != nil {
			for _, l := range r.Layers {
				add(&blobs, l.Converted, fromStore(l.Converted))
			}
			refs, err := c.refsOf(m.Source, r)
			if err != nil {
				return nil, nil, err
			}
			for _, ref := range refs {
				lend(ref.desc, c.fromSource(ctx, ref.desc))
			}
		}
	}
	for _, d := range c.rewritten.Documents {
		if graph.KindOf(d.Desc.MediaType).Document() {
			add(&docs, d.Desc, fromStore(d.Desc))
		} else {
			add(&blobs, d.Desc, fromStore(d.Desc)) // configs
		}
	}
	return blobs, docs, nil
}

// kept returns n and everything below it, children before parents.
func kept(n *graph.Node) (out []*graph.Node) {
	for _, c := range n.Children {
		out = append(out, kept(c)...)
	}
	return append(out, n)
}

// openStored opens a converted blob for pushing.
func (c *conversion) openStored(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	at, err := c.openConverted(ctx, desc)
	return stored(at, desc, err)
}

func openBlob(ctx context.Context, store cas.Store, desc ocispec.Descriptor) (io.ReadCloser, error) {
	at, err := store.Open(ctx, desc)
	return stored(at, desc, err)
}

// stored makes a stream of a blob that was opened, unless it was not, or with another size.
func stored(at cas.ReaderAt, desc ocispec.Descriptor, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, err
	}
	if at.Size() != desc.Size {
		at.Close()
		return nil, abi.Errorf(abi.ErrInternal, "blob %s has %d bytes in the store, want %d", desc.Digest, at.Size(), desc.Size)
	}
	return transport.StoredBlob(at), nil // the target may take over its file
}
