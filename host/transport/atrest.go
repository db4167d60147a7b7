package transport

import (
	"context"
	"errors"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

// atRest is a Source whose blobs are files or parts of a file on this machine.
type atRest struct {
	resolve func() (ocispec.Descriptor, error)
	tags    func() ([]string, error)
	open    func(digest.Digest) (cas.ReaderAt, error) // abi.ErrNotFound
	close   func() error
	path    func(digest.Digest) string // of the blob's own file; nil: it has none
	closed  atomic.Bool
}

func (s *atRest) usable(ctx context.Context) error {
	if s.closed.Load() {
		return abi.Errorf(abi.ErrInvalid, "the source is closed")
	}
	return wrap(ctx.Err(), "read source")
}

func (s *atRest) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	if err := s.usable(ctx); err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.resolve()
}

func (s *atRest) Tags(ctx context.Context) ([]string, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	tags, err := s.tags()
	slices.Sort(tags)
	return slices.Compact(tags), err
}

func (s *atRest) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (cas.ReaderAt, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if err := checkDescriptor(desc); err != nil {
		return nil, err
	}
	ra, err := s.open(desc.Digest)
	if err != nil {
		return nil, err
	}
	if ra.Size() != desc.Size {
		ra.Close()
		return nil, abi.Errorf(abi.ErrDigest, "blob %s has %d bytes, its descriptor says %d", desc.Digest, ra.Size(), desc.Size)
	}
	return ra, nil
}

// Ranges is ReaderAt: nothing is far away.
func (s *atRest) Ranges(ctx context.Context, desc ocispec.Descriptor) (cas.ReaderAt, error) {
	return s.ReaderAt(ctx, desc)
}

// Location implements Source.
func (s *atRest) Location(desc ocispec.Descriptor) string {
	if s.path == nil || checkDescriptor(desc) != nil {
		return ""
	}
	path, err := filepath.Abs(s.path(desc.Digest))
	if err != nil {
		return ""
	}
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/…
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

func (s *atRest) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	ra, err := s.ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	return Verify(&ctxReader{ctx: ctx, ReadCloser: BlobReader(ra)}, desc), nil
}

func (s *atRest) Close() error {
	if s.closed.Swap(true) || s.close == nil {
		return nil
	}
	return wrap(s.close(), "close source")
}

// ctxReader ends a stream with its context.
type ctxReader struct {
	ctx context.Context
	io.ReadCloser
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.ReadCloser.Read(p)
}

// part is random access to a part of a file that stays open, or to a document in memory.
type part struct {
	*io.SectionReader
}

func (part) Close() error { return nil }

// readAll reads a small file whole. The text of the error names it.
func readAll(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, cas.MaxDocument+1))
	var c abi.Class
	switch {
	case err != nil && errors.As(err, &c):
		return nil, err
	case err != nil:
		return nil, abi.Errorf(abi.ErrIO, "read %s: %w", name, err)
	case len(b) > cas.MaxDocument:
		return nil, abi.Errorf(abi.ErrLimit, "%s is larger than %d bytes", name, cas.MaxDocument)
	}
	return b, nil
}
