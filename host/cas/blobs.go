package cas

import (
	"cmp"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
)

// Info implements Store.
func (s *embedded) Info(ctx context.Context, dgst digest.Digest) (Info, error) {
	if err := validate(dgst); err != nil {
		return Info{}, err
	}
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return Info{}, err
	}
	defer end()
	info, err := s.blobs.Info(ctx, dgst)
	if err != nil {
		return Info{}, blobError(err, dgst)
	}
	return fromContainerd(info), nil
}

// Exists implements Store.
func (s *embedded) Exists(ctx context.Context, dgst digest.Digest) (bool, error) {
	_, err := s.Info(ctx, dgst)
	if abi.ClassOf(err) == abi.ErrNotFound {
		return false, nil
	}
	return err == nil, err
}

// Open implements Store.
func (s *embedded) Open(ctx context.Context, desc ocispec.Descriptor) (ReaderAt, error) {
	info, err := s.Info(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	if desc.Size >= 0 && desc.Size != info.Size {
		return nil, abi.Errorf(abi.ErrDigest, "blob %s has %d bytes, its descriptor says %d", desc.Digest, info.Size, desc.Size)
	}
	f, err := os.Open(filepath.Join(s.dir, "content", "blobs", desc.Digest.Algorithm().String(), desc.Digest.Encoded()))
	if err != nil {
		return nil, wrap(err, "open blob "+desc.Digest.String())
	}
	if fi, err := f.Stat(); err != nil || fi.Size() != info.Size {
		f.Close()
		return nil, abi.Errorf(abi.ErrDigest, "blob %s was changed in the store: %d bytes were written", desc.Digest, info.Size)
	}
	return &blobFile{file: f, size: info.Size}, nil
}

// blobFile is a blob at rest in a file of its own.
type blobFile struct {
	file *os.File
	size int64
}

func (b *blobFile) ReadAt(p []byte, off int64) (int, error) { return b.file.ReadAt(p, off) }
func (b *blobFile) Close() error                            { return b.file.Close() }
func (b *blobFile) Size() int64                             { return b.size }
func (b *blobFile) File() *os.File                          { return b.file }

// Walk implements Store.
func (s *embedded) Walk(ctx context.Context, fn func(Info) error) error {
	var infos []Info
	nctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	err = s.blobs.Walk(nctx, func(i content.Info) error {
		infos = append(infos, fromContainerd(i))
		return nil
	})
	end()
	if err != nil {
		return wrap(err, "list blobs")
	}
	slices.SortFunc(infos, func(a, b Info) int { return cmp.Compare(a.Digest, b.Digest) })
	for _, i := range infos {
		if err := ctx.Err(); err != nil {
			return wrap(err, "list blobs")
		}
		if err := fn(i); err != nil {
			return err
		}
	}
	return nil
}

// SetLabels implements Store.
func (s *embedded) SetLabels(ctx context.Context, dgst digest.Digest, labels map[string]string) error {
	if err := validate(dgst); err != nil {
		return err
	}
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return s.setLabels(ctx, dgst, labels)
}

func (s *embedded) setLabels(ctx context.Context, dgst digest.Digest, labels map[string]string) error {
	var paths []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		paths = append(paths, "labels."+k)
	}
	if len(paths) == 0 { // containerd takes "no fields" for "all fields"
		_, err := s.blobs.Info(ctx, dgst)
		return blobError(err, dgst)
	}
	_, err := s.blobs.Update(ctx, content.Info{Digest: dgst, Labels: labels}, paths...)
	return blobError(err, dgst)
}

func validate(dgst digest.Digest) error {
	if err := dgst.Validate(); err != nil {
		return abi.Errorf(abi.ErrInvalid, "digest %q: %w", string(dgst), err)
	}
	return nil
}

func blobError(err error, dgst digest.Digest) error {
	if errdefs.IsNotFound(err) {
		return abi.Errorf(abi.ErrNotFound, "blob %s is not in the content store", dgst)
	}
	return wrap(err, "blob "+dgst.String())
}

func fromContainerd(i content.Info) Info {
	return Info{Digest: i.Digest, Size: i.Size, Labels: i.Labels, CreatedAt: i.CreatedAt, UpdatedAt: i.UpdatedAt}
}
