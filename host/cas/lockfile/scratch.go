package lockfile

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/convhost/convhost/abi"
)

const scratchLock = ".lock"

// Scratch is a private directory that lives as long as its owner.
type Scratch struct {
	Dir string // absolute when parent was; mode 0700

	lock *File
	once sync.Once
	err  error
}

// NewScratch removes the scratch directories of dead owners in parent ([Sweep]) and makes a new one there, named
// prefix and a random part. Call Remove when it is no longer needed. parent must exist.
// Errors: abi.ErrNotFound, abi.ErrDenied, abi.ErrIO.
func NewScratch(parent, prefix string) (*Scratch, error) {
	Sweep(parent, prefix)
	for range 100 {
		dir := filepath.Join(parent, prefix+strings.ToLower(rand.Text()[:12]))
		if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return nil, classify(err)
		}
		l, err := TryLock(filepath.Join(dir, scratchLock))
		if err == nil {
			return &Scratch{Dir: dir, lock: l}, nil
		}
		// Between the two calls somebody may have taken the directory for a dead one: then it is gone or locked.
		if !errors.Is(err, abi.ErrNotFound) && !errors.Is(err, abi.ErrExists) {
			os.RemoveAll(dir)
			return nil, err
		}
	}
	return nil, abi.Errorf(abi.ErrIO, "no scratch directory %s* could be made in %s", prefix, parent)
}

// Remove deletes the directory with everything in it. Later calls return the first one's error (abi.ErrIO).
func (s *Scratch) Remove() error {
	s.once.Do(func() {
		if err := removeScratch(s.Dir, s.lock, 20); err != nil {
			s.err = abi.Errorf(abi.ErrIO, "remove %s: %w", s.Dir, err)
		}
	})
	return s.err
}

// Keep gives the directory up without deleting it: it is nobody's scratch any more, and Remove does nothing.
func (s *Scratch) Keep() {
	s.once.Do(func() { s.err = s.lock.Remove() })
}

// Sweep removes the scratch directories in parent that begin with prefix and whose owner no longer lives. It leaves
// what it may not touch, so it has no error.
func Sweep(parent, prefix string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) || !ours(filepath.Join(parent, e.Name())) {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		if l, err := TryLock(filepath.Join(dir, scratchLock)); err == nil {
			removeScratch(dir, l, 1)
		}
	}
}

// ours tells a scratch directory from a user's directory that happens to begin with the prefix: it is empty (its owner
// died at once) or has the lock file.
func ours(dir string) bool {
	if fi, err := os.Lstat(filepath.Join(dir, scratchLock)); err == nil {
		return fi.Mode().IsRegular()
	}
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(1)
	return len(names) == 0
}

// removeScratch empties the directory before it gives up the lock: a directory that is half removed is either locked
// or has its lock file, so that the next sweep finishes what a kill interrupted. Once the lock is given up the directory
// may be somebody else's, with a new lock file: it is removed only when it is empty.
func removeScratch(dir string, l *File, tries int) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != scratchLock {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		l.Unlock()
		return err
	}
	l.Remove()
	for i := range tries {
		if i > 0 {
			time.Sleep(5 * time.Millisecond)
		}
		// Only while it is empty: without the lock a lock file in it belongs to somebody else, either a sweeper, who
		// will remove the directory, or the owner of a new one that we took for dead before it had its lock.
		if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return err
}
