package cas

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
)

// MaxDocument is the largest manifest, index or config that is read as a whole, in bytes: what the distribution
// specification says registries should support.
const MaxDocument = 4 << 20

// FileOf returns the file in which a blob is at rest, if it is one: for those who can do more with a descriptor. The
// file belongs to r, is closed with it and is open for reading only; its offset means nothing.
func FileOf(r io.ReaderAt) (*os.File, bool) {
	switch r := r.(type) {
	case *os.File:
		return r, true
	case interface{ File() *os.File }:
		f := r.File()
		return f, f != nil
	}
	return nil, false
}

// ReadDocument reads a small blob whole and verifies it. max is in bytes, 0 for MaxDocument. abi.ErrLimit when the
// blob is larger, abi.ErrDigest when it is not what desc says.
func ReadDocument(ctx context.Context, s Store, desc ocispec.Descriptor, max int64) ([]byte, error) {
	if max <= 0 {
		max = MaxDocument
	}
	if desc.Size > max {
		return nil, abi.Errorf(abi.ErrLimit, "document %s has %d bytes, at most %d are read", desc.Digest, desc.Size, max)
	}
	ra, err := s.Open(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	b, err := io.ReadAll(io.NewSectionReader(ra, 0, max+1))
	switch {
	case err != nil:
		return nil, abi.Errorf(abi.ErrIO, "read document %s: %w", desc.Digest, err)
	case int64(len(b)) > max:
		return nil, abi.Errorf(abi.ErrLimit, "document %s is larger than %d bytes", desc.Digest, max)
	case desc.Digest.Algorithm().FromBytes(b) != desc.Digest:
		return nil, abi.Errorf(abi.ErrDigest, "document %s: the stored bytes have another digest", desc.Digest)
	}
	return b, nil
}

// WriteDocument stores bytes and returns their descriptor.
func WriteDocument(ctx context.Context, s Store, mediaType string, b []byte, labels map[string]string) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	_, err := Copy(ctx, s, desc, bytes.NewReader(b), labels)
	return desc, err
}

// Copy stores what r gives as the blob desc; a blob that is there already is not written again, only its labels are
// merged. desc.Digest "" and desc.Size -1 are unknown. It never takes more bytes than desc.Size.
func Copy(ctx context.Context, s Store, desc ocispec.Descriptor, r io.Reader, labels map[string]string) (Info, error) {
	if desc.Digest != "" {
		if done, info, err := reuse(ctx, s, desc, labels); done || err != nil {
			return info, err
		}
	}
	w, err := s.Ingest(ctx, "")
	if err != nil {
		return Info{}, err
	}
	defer w.Close()
	if desc.Size >= 0 {
		r = io.LimitReader(r, desc.Size+1) // one more shows that there is more
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, contextReader{ctx, r}, make([]byte, 256<<10)); err != nil {
		return Info{}, wrap(err, "store "+desc.Digest.String())
	}
	return w.Commit(ctx, desc.Size, desc.Digest, labels)
}

// reuse takes over a blob that is in the store. With a lease it holds it first, so that no GC comes between.
func reuse(ctx context.Context, s Store, desc ocispec.Descriptor, labels map[string]string) (bool, Info, error) {
	info, err := s.Info(ctx, desc.Digest)
	if err == nil && hasLease(ctx) {
		err = s.Hold(ctx, desc.Digest)
	}
	if err == nil && len(labels) > 0 {
		if err = s.SetLabels(ctx, desc.Digest, labels); err == nil {
			info, err = s.Info(ctx, desc.Digest)
		}
	}
	switch {
	case errors.Is(err, abi.ErrNotFound):
		return false, Info{}, nil
	case err != nil:
		return false, Info{}, err
	case desc.Size >= 0 && info.Size != desc.Size:
		return false, Info{}, abi.Errorf(abi.ErrDigest, "blob %s has %d bytes in the store, its descriptor says %d",
			desc.Digest, info.Size, desc.Size)
	}
	return true, info, nil
}

// contextReader ends a copy with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
