package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

// Ranges asks the registry for what is read, and keeps the last 64 MiB of all blobs.
func (s *registrySource) Ranges(ctx context.Context, desc ocispec.Descriptor) (cas.ReaderAt, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if err := checkDescriptor(desc); err != nil {
		return nil, err
	}
	r := &rangeReader{blob: desc.Digest, size: desc.Size, cache: s.ranges, window: 1, next: -1}
	r.ctx, r.end = context.WithCancel(ctx)
	r.fetch = func(ctx context.Context, off, n int64, each func([]byte)) error {
		return s.fetchRange(ctx, desc, off, n, each)
	}
	if desc.Size == 0 {
		return r, nil
	}
	// Formats have something to read at the end, and this is when it shows whether the registry serves ranges.
	if _, err := r.ReadAt(make([]byte, 1), desc.Size-1); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Location returns the blob's address.
func (s *registrySource) Location(desc ocispec.Descriptor) string {
	scheme := "https"
	if s.plain {
		scheme = "http"
	}
	return fmt.Sprintf("%s://%s/v2/%s/blobs/%s", scheme, s.host, s.ref.Repo, desc.Digest)
}

// fetchRange fetches n bytes at off and calls each for every chunk of them; what broke is continued.
func (s *registrySource) fetchRange(ctx context.Context, desc ocispec.Descriptor, off, n int64, each func([]byte)) error {
	what := "fetch a range of " + desc.Digest.String()
	final := func(err error) bool {
		switch abi.ClassOf(s.fail(err, "")) {
		case abi.ErrDenied, abi.ErrNotFound, abi.ErrLimit, abi.ErrInvalid, abi.ErrUnsupported, abi.ErrDigest:
			return true
		}
		return false
	}
	err := again(ctx, s.opts, what, final, func(int) error {
		return s.tryRange(ctx, desc, off, n, func(b []byte) {
			off, n = off+int64(len(b)), n-int64(len(b))
			each(b)
		})
	})
	return s.fail(err, what)
}

func (s *registrySource) tryRange(ctx context.Context, desc ocispec.Descriptor, off, n int64, each func([]byte)) error {
	ctx, cancel := context.WithCancel(auth.AppendRepositoryScope(ctx, s.repo.Reference, auth.ActionPull))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Location(desc), nil)
	if err != nil {
		return abi.Errorf(abi.ErrInvalid, "%w", err)
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	resp, err := s.repo.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := checkRange(resp, off, n, desc.Size); err != nil {
		return err
	}
	stall := s.opts.stall()
	var stalled atomic.Bool
	timer := time.AfterFunc(stall, func() {
		stalled.Store(true)
		cancel()
	})
	defer timer.Stop()
	for n > 0 {
		b := make([]byte, min(n, rangeChunk))
		if _, err := io.ReadFull(resp.Body, b); err != nil {
			if stalled.Load() {
				err = abi.Errorf(abi.ErrTimeout, "no byte came for %v", stall)
			}
			return err
		}
		timer.Reset(stall)
		n -= int64(len(b))
		each(b)
	}
	return nil
}

// checkRange tells whether an answer is the range that was asked for, of a blob of the right size.
func checkRange(resp *http.Response, off, n, size int64) error {
	switch resp.StatusCode {
	case http.StatusPartialContent:
		var from, to, total int64
		if _, err := fmt.Sscanf(strings.TrimSpace(resp.Header.Get("Content-Range")), "bytes %d-%d/%d", &from, &to, &total); err != nil {
			return abi.Errorf(abi.ErrIO, "Content-Range is %.100q", resp.Header.Get("Content-Range"))
		}
		if total != size {
			return abi.Errorf(abi.ErrDigest, "the blob has %d bytes, its descriptor says %d", total, size)
		}
		if from != off || to != off+n-1 {
			return abi.Errorf(abi.ErrIO, "asked for bytes %d to %d, got %d to %d", off, off+n-1, from, to)
		}
		return nil
	case http.StatusOK:
		if off == 0 && n == size && resp.ContentLength == size {
			return nil // all of it is a range too
		}
		return abi.Errorf(abi.ErrUnsupported, "the registry does not serve parts of blobs")
	case http.StatusRequestedRangeNotSatisfiable:
		return abi.Errorf(abi.ErrDigest, "the blob ends before byte %d, its descriptor says %d", off+n, size)
	}
	return statusError(resp)
}

// statusError is an answer that is no blob.
func statusError(resp *http.Response) error {
	c := abi.ErrIO
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		c = abi.ErrDenied
	case http.StatusNotFound:
		c = abi.ErrNotFound
	}
	return abi.Errorf(c, "%w", errors.New(resp.Status))
}
