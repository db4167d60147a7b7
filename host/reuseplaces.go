package host

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/transport"
)

// findParallel is how many blobs are looked for at a time: registries answer slowly, layouts are hashed.
const findParallel = 8

// places finds the blobs of earlier conversions. Of registries only those are asked that the request itself names: a
// store cannot make the host talk to others, or show them credentials.
type places struct {
	u     *reuse
	own   dedup.Place // of the target
	slots chan struct{}
	hosts []string
	pulls pulls // into the run's store

	mu      sync.Mutex
	at      map[digest.Digest]dedup.Place // where blobs were found
	sources map[dedup.Place]transport.Source
}

func (p *places) init(u *reuse) {
	p.slots = make(chan struct{}, findParallel)
	p.u, p.at, p.sources = u, map[digest.Digest]dedup.Place{}, map[dedup.Place]transport.Source{}
	p.own, _ = dedup.PlaceOf(u.c.ref)
	p.hosts = []string{u.c.ref.Host}
	if src, err := transport.ParseReference(u.c.src.ref); err == nil {
		p.hosts = append(p.hosts, src.Host)
	}
	p.pulls.copy = p.copy
}

// known returns the places of a blob that the store tells.
func (p *places) known(ctx context.Context, blob digest.Digest) (list []dedup.Place) {
	_, _ = p.u.ask(ctx, "ask for places of "+blob.String(), func(ctx context.Context) (err error) {
		list, err = p.u.store.Places(ctx, blob)
		return err
	})
	return list
}

func (p *places) drop(ctx context.Context, place dedup.Place, blob digest.Digest) {
	_, _ = p.u.ask(ctx, "drop a place", func(ctx context.Context) error { return p.u.store.DropPlace(ctx, place, blob) })
}

// find makes sure that a blob can be had: it is in the target, or can be put there from where it is.
func (p *places) find(ctx context.Context, desc ocispec.Descriptor) bool {
	p.mu.Lock()
	_, found := p.at[desc.Digest]
	p.mu.Unlock()
	if found {
		return true
	}
	if ok, err := p.u.c.store.Exists(ctx, desc.Digest); ok && err == nil {
		return true // another layer became the same
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return false
	}
	place, ok := p.search(ctx, desc)
	if ok {
		p.mu.Lock()
		p.at[desc.Digest] = place
		p.mu.Unlock()
	}
	return ok
}

// findAll finds several blobs, side by side. It returns one that cannot be had, if there is any.
func (p *places) findAll(ctx context.Context, descs []ocispec.Descriptor) (missing *ocispec.Descriptor) {
	found := make([]bool, len(descs))
	var wg sync.WaitGroup
	for i, d := range descs {
		wg.Go(func() { found[i] = p.find(ctx, d) })
	}
	wg.Wait()
	for i := range descs {
		if !found[i] {
			return &descs[i]
		}
	}
	return nil
}

func (p *places) search(ctx context.Context, desc ocispec.Descriptor) (dedup.Place, bool) {
	t, err := p.u.c.openTarget(ctx)
	if err != nil {
		return dedup.Place{}, false // the conversion will fail of it, and tell
	}
	there, err := t.Has(ctx, desc)
	if there && err == nil && p.own.Validate() == nil {
		return p.own, true
	}
	for _, place := range p.known(ctx, desc.Digest) {
		if ctx.Err() != nil {
			return dedup.Place{}, false
		}
		if place == p.own && err == nil && place.Transport != transport.OCIArchive { // of an archive, Has knows the new one
			p.drop(ctx, place, desc.Digest)
			continue
		}
		if p.mount(ctx, t, place, desc) {
			return p.own, true
		}
		switch err := p.has(ctx, place, desc); {
		case err == nil:
			return place, true
		case errors.Is(err, abi.ErrNotFound), errors.Is(err, abi.ErrDigest):
			p.drop(ctx, place, desc.Digest)
		default:
			p.u.c.log.Info("a place of blobs was not asked", "place", place, "blob", desc.Digest, "error", err)
		}
	}
	return dedup.Place{}, false
}

// mount takes a blob over from another repository of the target's registry.
func (p *places) mount(ctx context.Context, t transport.Target, from dedup.Place, desc ocispec.Descriptor) bool {
	m, ok := t.(transport.Mounter)
	if !ok || from.Local() || from.Host != p.own.Host || from == p.own {
		return false
	}
	done, err := m.Mount(ctx, desc, from.Path)
	if err != nil {
		p.u.c.log.Info("a blob could not be mounted", "blob", desc.Digest, "from", from, "error", err)
	}
	return done && err == nil
}

// has looks for a blob at a place; ErrNotFound if it is not there, other errors if nobody can say.
func (p *places) has(ctx context.Context, place dedup.Place, desc ocispec.Descriptor) error {
	if !place.Local() {
		if !slices.Contains(p.hosts, place.Host) {
			return abi.Errorf(abi.ErrDenied, "registry %s has no part in this conversion", place.Host)
		}
		t, err := transport.OpenTarget(ctx, place.Reference(), p.u.c.host.cfg.transport)
		if err != nil {
			return err
		}
		defer t.Close()
		ok, err := t.Has(ctx, desc)
		if err == nil && !ok {
			err = abi.Errorf(abi.ErrNotFound, "blob %s is not at %s", desc.Digest, place)
		}
		return err
	}
	s, err := p.open(ctx, place)
	if err != nil {
		return err
	}
	r, err := s.ReaderAt(ctx, desc)
	if err == nil {
		err = r.Close()
	}
	return err
}

// open opens a place for reading, once.
func (p *places) open(ctx context.Context, place dedup.Place) (transport.Source, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.sources[place]; s != nil {
		return s, nil
	}
	s, err := transport.OpenSource(ctx, place.Reference(), p.u.c.host.cfg.transport)
	if err == nil {
		p.sources[place] = s
	}
	return s, err
}

// close closes everything that was opened for reading: nothing may hold what Publish replaces.
func (u *reuse) close() {
	if u == nil {
		return
	}
	u.places.mu.Lock()
	defer u.places.mu.Unlock()
	for place, s := range u.places.sources {
		if err := s.Close(); err != nil {
			u.c.log.Warn("a place of blobs could not be closed", "place", place, "error", err)
		}
		delete(u.places.sources, place)
	}
}

// openConverted opens a converted blob in the run's store, and brings it there first if it comes from an earlier conversion.
func (c *conversion) openConverted(ctx context.Context, desc ocispec.Descriptor) (cas.ReaderAt, error) {
	r, err := c.store.Open(ctx, desc)
	if err == nil || c.reuse == nil || !errors.Is(err, abi.ErrNotFound) {
		return r, err
	}
	if err := c.reuse.places.pulls.get(ctx, desc); err != nil {
		if ctx.Err() == nil {
			c.reuse.gone(ctx, desc.Digest)
			err = &staleError{err: err}
		}
		return nil, err
	}
	return c.store.Open(ctx, desc)
}

// copy brings a blob into the run's store, verified, from where it was found or from another place.
func (p *places) copy(ctx context.Context, desc ocispec.Descriptor) error {
	err := abi.Errorf(abi.ErrNotFound, "blob %s is in no place that is known", desc.Digest)
	for range dedup.MaxPlaces {
		p.mu.Lock()
		place, ok := p.at[desc.Digest]
		delete(p.at, desc.Digest)
		p.mu.Unlock()
		if !ok && !p.find(ctx, desc) {
			return err
		} else if !ok {
			continue
		}
		if err = p.copyFrom(ctx, place, desc); err == nil || ctx.Err() != nil {
			return err
		}
		p.u.c.log.Warn("a blob of an earlier conversion cannot be read", "place", place, "blob", desc.Digest, "error", err)
		p.drop(ctx, place, desc.Digest)
		if place == p.own {
			return err // find would find it there again
		}
	}
	return err
}

func (p *places) copyFrom(ctx context.Context, place dedup.Place, desc ocispec.Descriptor) error {
	s, err := p.open(ctx, place)
	if err != nil {
		return err
	}
	r, err := s.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = cas.Copy(ctx, p.u.c.store, ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}, r, nil)
	return err
}
