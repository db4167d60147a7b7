package transport

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
)

// sizer is a Source that can be asked for blobs of which only the digest is known.
type sizer interface {
	blobSize(ctx context.Context, d digest.Digest) (int64, error)
}

// BlobSize returns the size in bytes of a blob of which only the digest is known, such as one that an annotation names.
// [abi.ErrNotFound] when the place does not have it, [abi.ErrInvalid] for a malformed digest.
func BlobSize(ctx context.Context, s Source, d digest.Digest) (int64, error) {
	if err := d.Validate(); err != nil {
		return 0, abi.Errorf(abi.ErrInvalid, "digest %q: %w", string(d), err)
	}
	z, ok := s.(sizer)
	if !ok {
		return 0, abi.Errorf(abi.ErrUnsupported, "this source cannot be asked for blob %s", d)
	}
	return z.blobSize(ctx, d)
}

func (s *atRest) blobSize(ctx context.Context, d digest.Digest) (int64, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	ra, err := s.open(d)
	if err != nil {
		return 0, err
	}
	defer ra.Close()
	return ra.Size(), nil
}

func (s *registrySource) blobSize(ctx context.Context, d digest.Digest) (int64, error) {
	if err := s.usable(); err != nil {
		return 0, err
	}
	desc, err := s.repository().Blobs().Resolve(ctx, d.String())
	if err != nil {
		return 0, s.fail(err, "ask for "+d.String())
	}
	return desc.Size, nil
}
