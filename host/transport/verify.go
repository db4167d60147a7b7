package transport

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

// Verify returns a stream of rc's bytes that fails with abi.ErrDigest where it would end with io.EOF, or earlier, when
// they are not what desc says. It never takes more than one byte over desc.Size from rc and never gives that one away;
// the verdict comes with the last byte. desc must have a valid digest. Closing it closes rc.
func Verify(rc io.ReadCloser, desc ocispec.Descriptor) io.ReadCloser {
	return &verifier{rc: rc, desc: desc, left: desc.Size, hash: desc.Digest.Algorithm().Hash()}
}

type verifier struct {
	rc   io.ReadCloser
	desc ocispec.Descriptor
	left int64
	hash hash.Hash
	err  error // sticks
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if v.left == 0 { // the empty blob
		v.err = v.finish(nil)
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := v.rc.Read(p[:min(int64(len(p)), v.left)])
	v.hash.Write(p[:n])
	v.left -= int64(n)
	switch {
	case v.left == 0:
		if v.err = v.finish(err); v.err != io.EOF {
			return 0, v.err // the last bytes of something wrong are not given away
		}
		return n, nil
	case err == io.EOF:
		v.err = abi.Errorf(abi.ErrDigest, "blob %s ends after %d bytes, its descriptor says %d",
			v.desc.Digest, v.desc.Size-v.left, v.desc.Size)
		return n, v.err
	case err != nil:
		v.err = wrap(err, "read blob "+v.desc.Digest.String())
	}
	return n, v.err
}

// finish decides after the last byte. err is what came with it.
func (v *verifier) finish(err error) error {
	var one [1]byte
	for err == nil {
		var n int
		if n, err = v.rc.Read(one[:]); n > 0 {
			return abi.Errorf(abi.ErrDigest, "blob %s has more than the %d bytes its descriptor says", v.desc.Digest, v.desc.Size)
		}
	}
	if err != io.EOF {
		return wrap(err, "read blob "+v.desc.Digest.String())
	}
	if sum := fmt.Sprintf("%x", v.hash.Sum(nil)); sum != v.desc.Digest.Encoded() {
		return abi.Errorf(abi.ErrDigest, "blob %s: the bytes have the digest %s:%s", v.desc.Digest, v.desc.Digest.Algorithm(), sum)
	}
	return io.EOF
}

func (v *verifier) Close() error { return v.rc.Close() }

// BlobReader returns a stream of a whole blob at rest, for Target.Push: a local target may link or clone its file
// instead of copying. Closing the stream closes r.
func BlobReader(r cas.ReaderAt) io.ReadCloser {
	b := &blobReader{Reader: io.NewSectionReader(r, 0, r.Size()), Closer: r}
	b.file, _ = cas.FileOf(r)
	return b
}

// StoredBlob is BlobReader for a blob of a cas.Store that checked its digest when it came in, in a directory that
// nobody else writes to: a local target that can link its file does not read it again.
func StoredBlob(r cas.ReaderAt) io.ReadCloser {
	b := BlobReader(r).(*blobReader)
	b.checked = true
	return b
}

type blobReader struct {
	io.Reader
	io.Closer
	file    *os.File
	checked bool // the bytes are known to be right
}

func (b *blobReader) File() *os.File { return b.file }

// checkDescriptor refuses descriptors that no blob can have.
func checkDescriptor(desc ocispec.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return abi.Errorf(abi.ErrInvalid, "digest %q: %w", string(desc.Digest), err)
	}
	if desc.Size < 0 {
		return abi.Errorf(abi.ErrInvalid, "blob %s: the descriptor's size is %d", desc.Digest, desc.Size)
	}
	return nil
}

// wrap gives an error its class and says what was being done. Errors that have a class keep it.
func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	var c abi.Class
	if !errors.As(err, &c) {
		c = classOf(err)
	}
	return abi.Errorf(c, "%s: %w", doing, err)
}

func classOf(err error) abi.Class {
	switch {
	case errors.Is(err, context.Canceled):
		return abi.ErrCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return abi.ErrTimeout
	case errdefs.IsNotFound(err), errors.Is(err, fs.ErrNotExist):
		return abi.ErrNotFound
	case errors.Is(err, fs.ErrPermission), errdefs.IsPermissionDenied(err), errdefs.IsUnauthorized(err):
		return abi.ErrDenied
	case errors.Is(err, fs.ErrExist):
		return abi.ErrExists
	}
	return abi.ErrIO
}
