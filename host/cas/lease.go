package cas

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
)

// Lease implements Store. Leases need no expiry: opening the store drops those of dead owners.
func (s *embedded) Lease(ctx context.Context) (context.Context, func() error, error) {
	nctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	l, err := s.leases.Create(nctx, leases.WithRandomID())
	if err != nil {
		return nil, nil, wrap(err, "create lease")
	}
	release := func() error {
		rctx, end, err := s.begin(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		defer end()
		if err := s.leases.Delete(rctx, l); err != nil && !errdefs.IsNotFound(err) {
			return wrap(err, "release lease")
		}
		return nil
	}
	return leases.WithLease(ctx, l.ID), sync.OnceValue(release), nil
}

// Hold implements Store.
func (s *embedded) Hold(ctx context.Context, dgsts ...digest.Digest) error {
	id, ok := leases.FromContext(ctx)
	if !ok {
		return abi.Errorf(abi.ErrInvalid, "blobs can be held only with a lease")
	}
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	for _, d := range dgsts {
		if err := validate(d); err != nil {
			return err
		}
		if _, err := s.blobs.Info(ctx, d); err != nil {
			return blobError(err, d)
		}
		err := s.leases.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: d.String(), Type: "content"})
		if err != nil {
			return wrap(err, "hold "+d.String())
		}
	}
	return nil
}

func hasLease(ctx context.Context) bool {
	_, ok := leases.FromContext(ctx)
	return ok
}
