package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
)

// dicts are the dictionaries of one target, open for as long as it is converted. Plugins know them by place, size and
// digest: where they lie has no influence on a result.
type dicts struct {
	files []*os.File
	infos []abi.PartInfo
	parts []session.Part
	times []time.Time // of the last change
}

// openDicts opens files that the user names, and digests them.
func openDicts(ctx context.Context, paths []string) (_ *dicts, err error) {
	d := &dicts{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, abi.Errorf(fileClass(err), "dictionary: %w", err)
		}
		d.files = append(d.files, f)
		st, err := f.Stat()
		if err != nil {
			return nil, abi.Errorf(abi.ErrIO, "dictionary: %w", err)
		}
		if !st.Mode().IsRegular() {
			return nil, abi.Errorf(abi.ErrInvalid, "dictionary %s: want a file", path)
		}
		sum := sha256.New()
		n, err := io.Copy(sum, contextReader{ctx, io.NewSectionReader(f, 0, st.Size())})
		if err == nil && n != st.Size() {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, abi.Errorf(orIO(err), "dictionary %s: %w", path, err)
		}
		d.infos = append(d.infos, abi.PartInfo{Digest: digest.NewDigest(digest.SHA256, sum).String(), Size: n})
		d.parts = append(d.parts, session.Part{At: f, Size: n})
		d.times = append(d.times, st.ModTime())
	}
	return d, nil
}

// unchanged tells whether the files are still what was digested, as far as size and time say.
func (d *dicts) unchanged() error {
	for i, f := range d.files {
		st, err := f.Stat()
		if err != nil {
			return abi.Errorf(abi.ErrIO, "dictionary: %w", err)
		}
		if st.Size() != d.infos[i].Size || !st.ModTime().Equal(d.times[i]) {
			return abi.Errorf(abi.ErrExists, "dictionary %s changed while it was used", f.Name())
		}
	}
	return nil
}

func (d *dicts) close() {
	for _, f := range d.files {
		f.Close() // was only read
	}
}

func fileClass(err error) abi.Class {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return abi.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		return abi.ErrDenied
	}
	return abi.ErrIO
}

// orIO returns the class of err, input/output if it has none.
func orIO(err error) abi.Class {
	if c := abi.ClassOf(err); c != abi.ErrInternal {
		return c
	}
	return abi.ErrIO
}

// contextReader ends when its context does.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
