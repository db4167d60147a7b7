package transport

import (
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

func openLayoutSource(ref Reference) (Source, error) {
	fi, err := os.Stat(ref.Path)
	switch {
	case err != nil:
		return nil, wrap(err, ref.String())
	case !fi.IsDir():
		return nil, abi.Errorf(abi.ErrInvalid, "%s: not a directory; a tar file is read with oci-archive:", ref)
	}
	idx, err := readLayoutIndex(ref.Path)
	if err != nil {
		return nil, wrap(err, ref.String())
	}
	open := func(d digest.Digest) (cas.ReaderAt, error) { return openLayoutBlob(ref.Path, d) }
	return &atRest{
		resolve: func() (ocispec.Descriptor, error) { return idx.find(ref, open) },
		tags:    idx.tags,
		open:    open,
		path:    func(d digest.Digest) string { return blobPath(ref.Path, d) },
	}, nil
}

func readLayoutIndex(dir string) (*layoutIndex, error) {
	f, err := openRegular(filepath.Join(dir, "index.json"))
	if err != nil {
		return nil, wrap(err, "not an OCI image layout")
	}
	defer f.Close()
	b, err := readAll(f.file, "index.json")
	if err != nil {
		return nil, err
	}
	return parseLayoutIndex(dir, b)
}

func blobPath(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// openLayoutBlob opens a blob of a layout. d must be valid: it becomes a path.
func openLayoutBlob(dir string, d digest.Digest) (cas.ReaderAt, error) {
	f, err := openRegular(blobPath(dir, d))
	if err != nil {
		return nil, wrap(err, "blob "+d.String())
	}
	return f, nil
}

// regular is a file opened for reading.
type regular struct {
	file *os.File
	size int64
}

func (r *regular) ReadAt(p []byte, off int64) (int, error) { return r.file.ReadAt(p, off) }
func (r *regular) Close() error                            { return r.file.Close() }
func (r *regular) Size() int64                             { return r.size }
func (r *regular) File() *os.File                          { return r.file }

// openRegular opens a regular file; others, such as pipes, could hang.
func openRegular(path string) (*regular, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, abi.Errorf(abi.ErrInvalid, "%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if fi, err = f.Stat(); err != nil {
		f.Close()
		return nil, err
	}
	return &regular{file: f, size: fi.Size()}, nil
}
