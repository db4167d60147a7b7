package transport

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas/lockfile"
)

// scratchPrefix begins the names of the directories in which local targets write aside.
const scratchPrefix = ".convhost-"

// staging collects verified blobs in a private directory beside their destination, for targets that publish all at
// once. The directory is locked while its owner lives; see lockfile.Scratch.
type staging struct {
	scratch *lockfile.Scratch

	mu     sync.Mutex
	blobs  map[digest.Digest]stagedBlob
	closed bool
}

type stagedBlob struct {
	desc ocispec.Descriptor
	path string
}

func newStaging(parent string) (*staging, error) {
	s, err := lockfile.NewScratch(parent, scratchPrefix)
	if err != nil {
		return nil, err
	}
	return &staging{scratch: s, blobs: map[digest.Digest]stagedBlob{}}, nil
}

func (s *staging) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return abi.Errorf(abi.ErrInvalid, "the target is closed")
	}
	return nil
}

// has tells whether a blob was staged; abi.ErrDigest if with another size.
func (s *staging) has(desc ocispec.Descriptor) (bool, error) {
	if err := checkDescriptor(desc); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[desc.Digest]
	if ok && b.desc.Size != desc.Size {
		return false, abi.Errorf(abi.ErrDigest, "blob %s has %d bytes, its descriptor says %d", desc.Digest, b.desc.Size, desc.Size)
	}
	return ok, nil
}

// push stages one blob.
func (s *staging) push(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	if err := s.usable(); err != nil {
		return err
	}
	if ok, err := s.has(desc); ok || err != nil {
		return err
	}
	rc, err := open()
	if err != nil {
		return wrap(err, "push "+desc.Digest.String())
	}
	defer rc.Close()
	path := filepath.Join(s.scratch.Dir, "blob-"+rand.Text())
	if err := stage(ctx, path, desc, rc); err != nil {
		os.Remove(path)
		return wrap(err, "push "+desc.Digest.String())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.blobs[desc.Digest]; ok || s.closed {
		os.Remove(path) // another goroutine was faster
		return nil
	}
	s.blobs[desc.Digest] = stagedBlob{desc: desc, path: path}
	return nil
}

// stage makes the durable file path of verified content: a link to the file that rc reads, or a copy.
func stage(ctx context.Context, path string, desc ocispec.Descriptor, rc io.ReadCloser) error {
	verified := Verify(&ctxReader{ctx: ctx, ReadCloser: io.NopCloser(rc)}, desc)
	buf := make([]byte, 256<<10)
	if f, ok := rc.(interface{ File() *os.File }); ok && f.File() != nil && linkFile(f.File(), path) {
		if b, ok := rc.(*blobReader); ok && b.checked {
			if st, err := f.File().Stat(); err != nil || st.Size() != desc.Size {
				return abi.Errorf(abi.ErrDigest, "blob %s does not have its size of %d bytes", desc.Digest, desc.Size)
			}
		} else if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, verified, buf); err != nil {
			return err
		}
		if err := f.File().Sync(); err != nil && runtime.GOOS != "windows" { // there it takes a writable handle
			return err
		}
		return nil
	}
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, verified, buf)
	if err == nil {
		err = w.Sync()
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return err
}

// linkFile gives f a second name, unless the system or the file system does not want to, or f's own name is somebody
// else's by now.
func linkFile(f *os.File, path string) bool {
	if os.Link(f.Name(), path) != nil {
		return false
	}
	a, aerr := f.Stat()
	b, berr := os.Lstat(path)
	if aerr != nil || berr != nil || !os.SameFile(a, b) {
		os.Remove(path)
		return false
	}
	return true
}

// close forgets and removes everything that is still staged.
func (s *staging) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.scratch.Remove()
}

// writeFile writes a small file aside, durably, and moves it to its name.
func (s *staging) writeFile(path string, b []byte) error {
	aside := filepath.Join(s.scratch.Dir, "file-"+rand.Text())
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(aside, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(aside)
	}
	return err
}
