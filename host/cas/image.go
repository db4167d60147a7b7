package cas

import (
	"cmp"
	"context"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"github.com/convhost/convhost/abi"
)

// Image implements Store.
func (s *embedded) Image(ctx context.Context, name string) (Image, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return Image{}, err
	}
	defer end()
	img, err := s.images.Get(ctx, name)
	if err != nil {
		return Image{}, wrap(err, "content store")
	}
	return Image{Name: img.Name, Target: img.Target, Labels: img.Labels}, nil
}

// Images implements Store.
func (s *embedded) Images(ctx context.Context) ([]Image, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	list, err := s.images.List(ctx)
	if err != nil {
		return nil, wrap(err, "list images")
	}
	out := make([]Image, 0, len(list))
	for _, img := range list {
		out = append(out, Image{Name: img.Name, Target: img.Target, Labels: img.Labels})
	}
	slices.SortFunc(out, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// SetImage implements Store: one transaction for the comparison and the change.
func (s *embedded) SetImage(ctx context.Context, img Image, old digest.Digest) error {
	if err := validate(img.Target.Digest); err != nil {
		return err
	}
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	err = s.db.Update(func(tx *bbolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		info, err := s.blobs.Info(ctx, img.Target.Digest)
		if err != nil {
			return blobError(err, img.Target.Digest)
		}
		if info.Size != img.Target.Size {
			return abi.Errorf(abi.ErrDigest, "blob %s has %d bytes, its descriptor says %d", info.Digest, info.Size, img.Target.Size)
		}
		rec := images.Image{Name: img.Name, Target: img.Target, Labels: img.Labels}
		cur, err := s.images.Get(ctx, img.Name)
		switch {
		case errdefs.IsNotFound(err):
			if old != "" && old != AnyTarget {
				return abi.Errorf(abi.ErrExists, "image %q was removed, it should be %s", img.Name, old)
			}
			_, err = s.images.Create(ctx, rec)
		case err == nil && old != AnyTarget && cur.Target.Digest != old:
			return abi.Errorf(abi.ErrExists, "image %q is %s by now", img.Name, cur.Target.Digest)
		case err == nil:
			_, err = s.images.Update(ctx, rec)
		}
		return err
	})
	return wrap(err, "set image")
}

// RemoveImage implements Store.
func (s *embedded) RemoveImage(ctx context.Context, name string) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := s.images.Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return wrap(err, "remove image")
	}
	return nil
}
