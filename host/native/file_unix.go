//go:build unix

package native

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/convhost/convhost/abi"
)

// passable tells whether a plugin may have f itself: a regular file that was opened for reading only.
func passable(f *os.File) bool {
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return false
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	err = raw.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		ok = err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY
	})
	return ok && err == nil
}

// newPipe makes a pipe of which the plugin gets the read end, or the write end. That end blocks, as a program in any
// language expects; ours is polled.
func newPipe(pluginReads bool) (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, abi.Errorf(abi.ErrIO, "pipe: %w", err)
	}
	theirs := w
	if pluginReads {
		theirs = r
	}
	raw, err := theirs.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			_ = unix.SetNonblock(int(fd), false)
			growPipe(fd)
		})
	}
	if err != nil {
		r.Close()
		w.Close()
		return nil, nil, abi.Errorf(abi.ErrIO, "pipe: %w", err)
	}
	return r, w, nil
}
