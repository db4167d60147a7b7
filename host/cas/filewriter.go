package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// fileWriter is one ingest of files. It is used from one goroutine.
type fileWriter struct {
	s        *files
	ref      string
	path     string
	file     *os.File // nil: closed or committed
	digester digest.Digester
	offset   int64
	ahead    int64 // bytes on their way to disk
	started  time.Time
}

var _ content.Writer = (*fileWriter)(nil)

func (w *fileWriter) open() error {
	if w.file == nil {
		return fmt.Errorf("ingest %s is closed: %w", w.ref, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// Write implements io.Writer.
func (w *fileWriter) Write(p []byte) (int, error) {
	if err := w.open(); err != nil {
		return 0, err
	}
	n, err := w.put(p)
	w.offset += int64(n)
	if w.offset-w.ahead >= aheadStep {
		w.startWriting()
	}
	return n, err
}

// besides is from how many bytes on digesting is worth a goroutine.
const besides = 64 << 10

// put writes p and digests it, side by side if p is large: often an output is all that a core has to do. After an error the
// digest may be of more than was written; nothing commits such an ingest.
func (w *fileWriter) put(p []byte) (int, error) {
	if len(p) < besides {
		n, err := w.file.Write(p)
		w.digester.Hash().Write(p[:n])
		return n, err
	}
	done := make(chan struct{})
	go func() {
		w.digester.Hash().Write(p)
		close(done)
	}()
	n, err := w.file.Write(p)
	<-done
	return n, err
}

// aheadStep is how many bytes are written before the system is asked to bring them to disk.
const aheadStep = 8 << 20

// startWriting lets the system begin to bring to disk what was written, and does not wait: whoever syncs the file, here or
// when it has become that of a target, has little left to wait for.
func (w *fileWriter) startWriting() {
	startWriting(w.file, w.ahead, w.offset-w.ahead)
	w.ahead = w.offset
}

// Digest implements content.Writer.
func (w *fileWriter) Digest() digest.Digest { return w.digester.Digest() }

// Status implements content.Writer.
func (w *fileWriter) Status() (content.Status, error) {
	return content.Status{Ref: w.ref, Offset: w.offset, StartedAt: w.started, UpdatedAt: w.started}, nil
}

// Truncate implements content.Writer, to 0 bytes.
func (w *fileWriter) Truncate(size int64) error {
	if err := w.open(); err != nil {
		return err
	}
	if size != 0 {
		return fmt.Errorf("truncate to %d bytes: %w", size, errdefs.ErrInvalidArgument)
	}
	w.offset, w.ahead = 0, 0
	w.digester.Hash().Reset()
	if _, err := w.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return w.file.Truncate(0)
}

// Sync implements content.Syncer: containerd's metadata asks for it before it takes the lock of its database. On Windows
// who takes over the file cannot do it, for want of a handle that may write.
func (w *fileWriter) Sync() error {
	if w.file == nil {
		return nil
	}
	if w.s.noSync && runtime.GOOS != "windows" {
		if w.ahead > 0 {
			w.startWriting() // small files can wait
		}
		return nil
	}
	return w.file.Sync()
}

// Close implements io.Closer. The file stays until it is aborted.
func (w *fileWriter) Close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	w.s.release(w.ref)
	return err
}

// Commit implements content.Writer: the bytes are on disk before the name is, and the name before it returns.
func (w *fileWriter) Commit(_ context.Context, size int64, want digest.Digest, _ ...content.Opt) error {
	if err := w.open(); err != nil {
		return err
	}
	defer w.Close()
	if size > 0 && size != w.offset {
		return fmt.Errorf("ingest %s has %d bytes, want %d: %w", w.ref, w.offset, size, errdefs.ErrFailedPrecondition)
	}
	if err := w.digestAs(want); err != nil {
		return err
	}
	got := w.digester.Digest()
	if want != "" && want != got {
		return fmt.Errorf("ingest %s has digest %s, want %s: %w", w.ref, got, want, errdefs.ErrFailedPrecondition)
	}
	target, err := w.s.path(got)
	if err != nil {
		return err
	}
	if _, err := os.Stat(target); err == nil {
		return errors.Join(w.Close(), os.Remove(w.path), fmt.Errorf("content %s: %w", got, errdefs.ErrAlreadyExists))
	}
	err = w.Sync()
	if err == nil && runtime.GOOS != "windows" { // a file that may not be written cannot be removed there
		err = w.file.Chmod(0o444)
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.MkdirAll(filepath.Dir(target), 0o755)
	}
	if err == nil {
		err = os.Rename(w.path, target)
	}
	if err == nil && !w.s.noSync {
		err = syncDir(filepath.Dir(target))
	}
	return err
}

// digestAs digests the file again if the digest that is wanted is of another algorithm than was expected.
func (w *fileWriter) digestAs(want digest.Digest) error {
	if want == "" || want.Algorithm() == w.digester.Digest().Algorithm() {
		return nil
	}
	if err := want.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w: %w", string(want), err, errdefs.ErrInvalidArgument)
	}
	w.digester = want.Algorithm().Digester()
	_, err := io.Copy(w.digester.Hash(), io.NewSectionReader(w.file, 0, w.offset))
	return err
}
