// Package lockfile keeps processes that share a directory out of each other's way, on every operating system, and
// cleans up after those that were killed.
//
// [TryLock] and [Lock] take an exclusive lock on a named file. The operating system drops the lock when the holder
// ends, however it ends, so a lock is never stale. The file holds a line about its holder, which is part of the error
// that others get.
//
// [NewScratch] makes a private directory that is locked as long as its owner lives. Making one removes the directories
// of the same kind beside it whose owners are gone: what kill -9 leaves behind disappears with the next run.
//
// Locks are advisory between processes of this module. They work between goroutines too: every call opens the file
// anew. On network file systems they are as good as the file system's flock.
package lockfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/convhost/convhost/abi"
)

// errHeld is what the operating system's part returns when somebody else holds the lock.
var errHeld = errors.New("lock is held")

// File is a held lock. Its methods may be called from any goroutine, and once.
type File struct {
	f    *os.File
	path string
}

// TryLock creates path when it does not exist and locks it, without waiting. The error is abi.ErrExists when somebody
// holds the lock (the text names the process), abi.ErrDenied when the file may not be opened, else abi.ErrIO.
func TryLock(path string) (*File, error) {
	for range 100 {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, classify(err)
		}
		if err := lockFile(f); err != nil {
			holder := readHolder(f)
			f.Close()
			if errors.Is(err, errHeld) {
				return nil, abi.Errorf(abi.ErrExists, "%s is in use by %s", filepath.Dir(path), holder)
			}
			return nil, abi.Errorf(abi.ErrIO, "lock %s: %w", path, err)
		}
		if current(f, path) {
			writeHolder(f)
			return &File{f: f, path: path}, nil
		}
		f.Close() // its holder removed the file before we got the lock: the name is free or somebody else's by now
	}
	return nil, abi.Errorf(abi.ErrIO, "lock %s: the file keeps being replaced", path)
}

// Lock is TryLock that waits until the lock is free or ctx ends (abi.ErrCanceled, abi.ErrTimeout).
func Lock(ctx context.Context, path string) (*File, error) {
	wait := time.Millisecond
	for {
		l, err := TryLock(path)
		if err == nil || !errors.Is(err, abi.ErrExists) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, abi.Errorf(abi.ClassOf(ctx.Err()), "waiting for a lock: %w: %w", err, ctx.Err())
		case <-time.After(wait):
		}
		wait = min(2*wait, 50*time.Millisecond)
	}
}

// Unlock gives the lock up and leaves the file.
func (l *File) Unlock() error { return l.f.Close() }

// Remove gives the lock up and removes the file, unless somebody else already waits for it on a system that does not
// remove open files.
func (l *File) Remove() error { return removeLocked(l.f, l.path) }

// current tells whether path still names the file f.
func current(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

func writeHolder(f *os.File) {
	// Only for messages, so errors do not matter. Arguments may hold secrets: not more than the subcommand.
	cmd := filepath.Base(os.Args[0])
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		cmd += " " + os.Args[1]
	}
	if f.Truncate(0) == nil {
		fmt.Fprintf(f, "process %d (%.200s)\n", os.Getpid(), cmd)
	}
}

func readHolder(f *os.File) string {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 256))
	line, _, _ := strings.Cut(string(b), "\n")
	if err != nil || line == "" {
		return "another process"
	}
	return strings.ToValidUTF8(line, "?")
}

func classify(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return abi.Errorf(abi.ErrDenied, "%w", err)
	case errors.Is(err, fs.ErrNotExist):
		return abi.Errorf(abi.ErrNotFound, "%w", err)
	}
	return abi.Errorf(abi.ErrIO, "%w", err)
}
