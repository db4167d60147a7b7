package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// files is the content.Store below containerd's metadata: blobs as files, as containerd's own store lays them out.
//
//	blobs/ALGORITHM/HEX   read only
//	ingest/HEX            what is being written, HEX of its reference
//
// containerd's store is not used because it logs, through one logger for the whole process, that a file system has no
// fs-verity, and syncs four files a blob whether anybody needs that or not. Labels, leases and the collection of garbage
// are the metadata's; ingests are never continued, so an ingest is a file and nothing else.
type files struct {
	root   string
	noSync bool

	mu     sync.Mutex
	active map[string]*fileWriter // by reference
}

var _ content.Store = (*files)(nil)

func newFiles(root string, noSync bool) (*files, error) {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	return &files{root: root, noSync: noSync, active: map[string]*fileWriter{}}, nil
}

func (s *files) path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w: %w", string(d), err, errdefs.ErrInvalidArgument)
	}
	return filepath.Join(s.root, "blobs", d.Algorithm().String(), d.Encoded()), nil
}

func (s *files) ingest(ref string) string {
	return filepath.Join(s.root, "ingest", digest.FromString(ref).Encoded())
}

// absent makes containerd's class of a file that is not there.
func absent(err error, what string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", what, errdefs.ErrNotFound)
	}
	return err
}

// Info implements content.InfoProvider.
func (s *files) Info(_ context.Context, d digest.Digest) (content.Info, error) {
	p, err := s.path(d)
	if err != nil {
		return content.Info{}, err
	}
	fi, err := os.Stat(p)
	if err != nil {
		return content.Info{}, absent(err, "content "+d.String())
	}
	return infoOf(d, fi), nil
}

func infoOf(d digest.Digest, fi fs.FileInfo) content.Info {
	return content.Info{Digest: d, Size: fi.Size(), CreatedAt: fi.ModTime(), UpdatedAt: fi.ModTime()}
}

// Update implements content.Manager: labels are the metadata's.
func (s *files) Update(context.Context, content.Info, ...string) (content.Info, error) {
	return content.Info{}, fmt.Errorf("update of stored content: %w", errdefs.ErrNotImplemented)
}

// Walk implements content.Manager. Filters are the metadata's. fn may delete.
func (s *files) Walk(ctx context.Context, fn content.WalkFunc, _ ...string) error {
	algorithms, err := os.ReadDir(filepath.Join(s.root, "blobs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, a := range algorithms {
		blobs, err := os.ReadDir(filepath.Join(s.root, "blobs", a.Name()))
		if err != nil {
			return err
		}
		for _, b := range blobs {
			if err := ctx.Err(); err != nil {
				return err
			}
			d := digest.NewDigestFromEncoded(digest.Algorithm(a.Name()), b.Name())
			fi, err := b.Info()
			if errors.Is(err, fs.ErrNotExist) || d.Validate() != nil {
				continue // gone meanwhile, or nothing of ours
			}
			if err == nil {
				err = fn(infoOf(d, fi))
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete implements content.Manager.
func (s *files) Delete(_ context.Context, d digest.Digest) error {
	p, err := s.path(d)
	if err != nil {
		return err
	}
	return absent(os.Remove(p), "content "+d.String())
}

// ReaderAt implements content.Provider.
func (s *files) ReaderAt(_ context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	p, err := s.path(desc.Digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if err != nil {
		return nil, absent(err, "content "+desc.Digest.String())
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &blobFile{file: f, size: fi.Size()}, nil
}

// Status implements content.IngestManager. An ingest that nobody writes any more can still be seen, and aborted.
func (s *files) Status(_ context.Context, ref string) (content.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.active[ref]; w != nil {
		return content.Status{Ref: ref, StartedAt: w.started, UpdatedAt: w.started}, nil
	}
	fi, err := os.Stat(s.ingest(ref))
	if err != nil {
		return content.Status{}, absent(err, "ingest "+ref)
	}
	return content.Status{Ref: ref, Offset: fi.Size(), StartedAt: fi.ModTime(), UpdatedAt: fi.ModTime()}, nil
}

// ListStatuses implements content.IngestManager. It knows those that are being written; the others are removed when
// the store is opened.
func (s *files) ListStatuses(context.Context, ...string) (out []content.Status, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, w := range s.active {
		out = append(out, content.Status{Ref: ref, StartedAt: w.started, UpdatedAt: w.started})
	}
	slices.SortFunc(out, func(a, b content.Status) int { return a.StartedAt.Compare(b.StartedAt) })
	return out, nil
}

// Abort implements content.IngestManager.
func (s *files) Abort(_ context.Context, ref string) error {
	return absent(os.Remove(s.ingest(ref)), "ingest "+ref)
}

// Writer implements content.Ingester: it begins anew, whatever is left of an earlier ingest of that reference.
func (s *files) Writer(_ context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Ref == "" {
		return nil, fmt.Errorf("ingest without a reference: %w", errdefs.ErrInvalidArgument)
	}
	alg := digest.Canonical
	if o.Desc.Digest != "" {
		p, err := s.path(o.Desc.Digest)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(p); err == nil {
			return nil, fmt.Errorf("content %s: %w", o.Desc.Digest, errdefs.ErrAlreadyExists)
		}
		alg = o.Desc.Digest.Algorithm()
	}
	w := &fileWriter{s: s, ref: o.Ref, path: s.ingest(o.Ref), digester: alg.Digester(), started: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[o.Ref] != nil {
		return nil, fmt.Errorf("ingest %s is being written: %w", o.Ref, errdefs.ErrUnavailable)
	}
	if err := os.MkdirAll(filepath.Dir(w.path), 0o755); err != nil {
		return nil, err
	}
	var err error
	if w.file, err = os.OpenFile(w.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
		return nil, err
	}
	s.active[o.Ref] = w
	return w, nil
}

func (s *files) release(ref string) {
	s.mu.Lock()
	delete(s.active, ref)
	s.mu.Unlock()
}
