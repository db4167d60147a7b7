package transport

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

// registrySource pulls with containerd's client, which can continue an interrupted blob.
type registrySource struct {
	*registry
	resolver remotes.Resolver
	name     string // reference as containerd writes it
	repo     *remote.Repository
	ranges   *rangeCache

	mu      sync.Mutex
	fetcher remotes.Fetcher
	closed  bool
}

func openRegistrySource(ctx context.Context, ref Reference, opts Options) (Source, error) {
	r, err := newRegistry(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	scheme := "https"
	if r.plain {
		scheme = "http"
	}
	header := http.Header{"User-Agent": {opts.userAgent()}}
	creds := func(host string) (string, string, error) {
		c, err := r.credential(context.Background(), host)
		switch {
		case err != nil:
			return "", "", err
		case c.RefreshToken != "":
			return "", c.RefreshToken, nil
		}
		return c.Username, c.Password, nil
	}
	host := docker.RegistryHost{Client: r.client, Host: r.host, Scheme: scheme, Path: "/v2", Header: header,
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		Authorizer:   docker.NewDockerAuthorizer(docker.WithAuthClient(r.client), docker.WithAuthCreds(creds), docker.WithAuthHeader(header))}
	s := &registrySource{registry: r, name: ref.Host + "/" + ref.Repo, repo: r.repository(), ranges: newRangeCache()}
	switch {
	case ref.Digest != "":
		s.name += "@" + ref.Digest.String()
	default:
		s.name += ":" + ref.Tag
	}
	s.resolver = docker.NewResolver(docker.ResolverOptions{
		Headers: header,
		Hosts:   func(string) ([]docker.RegistryHost, error) { return []docker.RegistryHost{host}, nil },
	})
	return s, nil
}

// quiet keeps containerd's client from logging to standard error: what it would say comes back as an error.
func quiet(ctx context.Context) context.Context { return log.WithLogger(ctx, silent) }

var silent = func() *log.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}()

func (s *registrySource) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return abi.Errorf(abi.ErrInvalid, "the source is closed")
	}
	return nil
}

func (s *registrySource) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	if err := s.usable(); err != nil {
		return ocispec.Descriptor{}, err
	}
	_, d, err := s.resolver.Resolve(quiet(ctx), s.name)
	if err != nil {
		return ocispec.Descriptor{}, s.fail(err, "resolve")
	}
	if err := checkDescriptor(d); err != nil {
		return ocispec.Descriptor{}, s.fail(err, "resolve")
	}
	if !isDocument(d) {
		return ocispec.Descriptor{}, abi.Errorf(abi.ErrUnsupported, "%s: what the registry has there is of type %q, neither a manifest nor an index",
			s.ref, d.MediaType)
	}
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, nil
}

func (s *registrySource) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if err := checkDescriptor(desc); err != nil {
		return nil, err
	}
	if isDocument(desc) && desc.Size > cas.MaxDocument {
		return nil, abi.Errorf(abi.ErrLimit, "document %s has %d bytes, at most %d are fetched", desc.Digest, desc.Size, cas.MaxDocument)
	}
	f, err := s.getFetcher(ctx)
	if err != nil {
		return nil, err
	}
	desc.URLs, desc.Data = nil, nil // other servers are not asked, whatever a document says
	b := &resumingBlob{ctx: ctx, src: s, fetcher: f, desc: desc}
	if err := b.open(); err != nil {
		return nil, s.fail(err, "fetch "+desc.Digest.String())
	}
	return Verify(b, desc), nil
}

func (s *registrySource) getFetcher(ctx context.Context) (remotes.Fetcher, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetcher == nil {
		f, err := s.resolver.Fetcher(ctx, s.name)
		if err != nil {
			return nil, s.fail(err, "fetch")
		}
		s.fetcher = f
	}
	return s.fetcher, nil
}

// resumingBlob reads a blob and, when the stream breaks, goes on where it broke.
type resumingBlob struct {
	ctx     context.Context
	src     *registrySource
	fetcher remotes.Fetcher
	desc    ocispec.Descriptor
	rc      io.ReadCloser
	cancel  context.CancelFunc // ends rc
	off     int64
	failed  int // times in a row without a byte
}

func (b *resumingBlob) open() (err error) {
	ctx, cancel := context.WithCancel(b.ctx)
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	rc, err := b.fetcher.Fetch(quiet(ctx), b.desc)
	if err != nil {
		return err
	}
	if b.off > 0 {
		seeker, ok := rc.(io.Seeker)
		if !ok {
			rc.Close()
			return abi.Errorf(abi.ErrIO, "the stream cannot be continued at %d", b.off)
		}
		if _, err := seeker.Seek(b.off, io.SeekStart); err != nil {
			rc.Close()
			return err
		}
	}
	b.rc, b.cancel = rc, cancel
	return nil
}

// readOnce reads from the open stream, but not for ever.
func (b *resumingBlob) readOnce(p []byte) (int, error) {
	stall := b.src.opts.stall()
	var stalled atomic.Bool
	t := time.AfterFunc(stall, func() {
		stalled.Store(true)
		b.cancel()
	})
	n, err := b.rc.Read(p)
	t.Stop()
	if stalled.Load() && err != nil && b.ctx.Err() == nil {
		err = abi.Errorf(abi.ErrTimeout, "no byte came for %v", stall)
	}
	return n, err
}

func (b *resumingBlob) Read(p []byte) (int, error) {
	for {
		n, err := 0, error(nil)
		if b.rc == nil {
			err = b.open()
		}
		if err == nil {
			n, err = b.readOnce(p)
		}
		b.off += int64(n)
		if n > 0 {
			b.failed = 0
		}
		if err == nil || err == io.EOF && b.off >= b.desc.Size {
			return n, err
		}
		if !b.again(err) {
			if err != io.EOF {
				err = b.src.fail(err, "fetch "+b.desc.Digest.String())
			}
			return n, err
		}
		b.Close()
		if n > 0 {
			return n, nil
		}
		if err := sleep(b.ctx, backoff(b.failed-1)); err != nil {
			return 0, err
		}
	}
}

// again decides whether a broken stream is continued.
func (b *resumingBlob) again(err error) bool {
	if b.ctx.Err() != nil || b.off > b.desc.Size {
		return false
	}
	switch abi.ClassOf(b.src.fail(err, "")) {
	case abi.ErrDenied, abi.ErrNotFound, abi.ErrLimit, abi.ErrInvalid:
		return false
	}
	b.failed++
	if b.failed > b.src.opts.retries() {
		return false
	}
	b.src.opts.log().Info("transfer broke, continuing", "blob", b.desc.Digest, "offset", b.off, "error", err)
	return true
}

func (b *resumingBlob) Close() error {
	if b.rc == nil {
		return nil
	}
	err := b.rc.Close()
	b.cancel()
	b.rc = nil
	return err
}

// ReaderAt is abi.ErrUnsupported: a registry's blobs are not on this machine.
func (s *registrySource) ReaderAt(context.Context, ocispec.Descriptor) (cas.ReaderAt, error) {
	return nil, abi.Errorf(abi.ErrUnsupported, "%s: blobs of a registry have no random access", s.ref)
}

func (s *registrySource) Tags(ctx context.Context) ([]string, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	return s.tags(ctx)
}

func (s *registrySource) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.client.CloseIdleConnections()
	return nil
}
