package host

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/transport"
)

// source is an image that is read: its transport, and a store for blobs that are not at rest where it lives.
type source struct {
	ref   string
	t     transport.Source
	store cas.Store
	root  ocispec.Descriptor
	graph *graph.Graph

	pulls pulls
}

// pulls copies each blob once, however many ask for it.
type pulls struct {
	copy func(context.Context, ocispec.Descriptor) error

	mu   sync.Mutex
	jobs map[digest.Digest]*pull
}

type pull struct {
	done   chan struct{}
	err    error
	gaveUp bool // its caller ended: err says nothing to others
}

// openSource resolves a reference and reads its documents.
func (h *Host) openSource(ctx context.Context, ref string, store cas.Store) (*source, error) {
	r, err := transport.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	t, err := transport.OpenSource(ctx, r, h.cfg.transport)
	if err != nil {
		return nil, err
	}
	s := &source{ref: ref, t: t, store: store}
	s.pulls.copy = s.copy
	if s.root, err = t.Resolve(ctx); err == nil {
		s.graph, err = graph.Load(ctx, t, s.root, graph.LoadOptions{Limits: h.cfg.limits.Graph})
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return s, nil
}

func (s *source) close() error { return s.t.Close() }

// readerAt gives random access to a blob; one that is not at rest is pulled into the store first, once. The bytes are
// not verified when they are at rest in the source: whoever reads them does.
func (s *source) readerAt(ctx context.Context, desc ocispec.Descriptor) (cas.ReaderAt, error) {
	r, err := s.t.ReaderAt(ctx, desc)
	if err == nil || !errors.Is(err, abi.ErrUnsupported) {
		return r, err
	}
	if s.store == nil {
		return nil, abi.Errorf(abi.ErrInternal, "no store to pull %s into", desc.Digest)
	}
	if err := s.pulls.get(ctx, desc); err != nil {
		return nil, err
	}
	return s.store.Open(ctx, desc)
}

func (s *pulls) get(ctx context.Context, desc ocispec.Descriptor) error {
	for {
		s.mu.Lock()
		p := s.jobs[desc.Digest]
		if p == nil {
			p = &pull{done: make(chan struct{})}
			if s.jobs == nil {
				s.jobs = map[digest.Digest]*pull{}
			}
			s.jobs[desc.Digest] = p
			s.mu.Unlock()
			if p.err = s.copy(ctx, desc); p.err != nil && ctx.Err() != nil { // the next who wants it tries again
				p.gaveUp = true
				s.mu.Lock()
				delete(s.jobs, desc.Digest)
				s.mu.Unlock()
			}
			close(p.done)
			return p.err
		}
		s.mu.Unlock()
		select {
		case <-p.done:
			if !p.gaveUp {
				return p.err
			}
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return canceled(ctx)
		}
	}
}

func (s *source) copy(ctx context.Context, desc ocispec.Descriptor) error {
	r, err := s.t.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = cas.Copy(ctx, s.store, desc, r, nil)
	return err
}

// reader opens a blob of the source from its start.
func (s *source) reader(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	r, err := s.readerAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(r, 0, desc.Size), r}, nil
}
