package blockdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/convhost/convhost/abi"
)

// fuseMount is a mounted file system of one file.
type fuseMount struct {
	path string
	conn *os.File
	done chan struct{}
}

// mountFuse shows a disk as the file path, which it makes.
func mountFuse(path string, f *fuseFile) (*fuseMount, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, systemError("open /dev/fuse", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		unix.Close(fd)
		return nil, systemError("make "+path, err)
	}
	mode, flags := fileMode, uintptr(unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC)
	if f.writable == nil {
		mode, flags = fileModeRO, flags|unix.MS_RDONLY
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d", fd, mode, os.Geteuid(), os.Getegid(), maxIO)
	if err := unix.Mount("convhost", path, "fuse.convhost", flags, data); err != nil {
		unix.Close(fd)
		os.Remove(path)
		return nil, systemError("mount a FUSE file at "+path, err)
	}
	conn := os.NewFile(uintptr(fd), "/dev/fuse") // now: before it is mounted, it cannot be polled
	m := &fuseMount{path: path, conn: conn, done: make(chan struct{})}
	go m.serve(f)
	return m, nil
}

// serve answers the kernel until the file system is unmounted. Each request has a goroutine; the kernel limits them.
func (m *fuseMount) serve(f *fuseFile) {
	var running sync.WaitGroup
	requests := sync.Pool{New: func() any { b := make([]byte, f.requestSize()); return &b }}
	slots := make(chan struct{}, maxRequests*2) // forgotten ones have no limit in the kernel
	send := func(b []byte) error { _, err := m.conn.Write(b); return err }
	for {
		buf := requests.Get().(*[]byte)
		n, err := m.conn.Read(*buf)
		if err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
				continue // the request was taken back
			}
			break // ENODEV: unmounted
		}
		slots <- struct{}{}
		running.Add(1)
		go func() {
			defer func() { requests.Put(buf); <-slots; running.Done() }()
			// An answer fails when its request was taken back, or with the connection, which Read finds out.
			if err := f.request((*buf)[:n], send); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
				f.log.Warn("a request of the kernel could not be answered", "error", err)
			}
		}()
	}
	running.Wait()
	m.conn.Close()
	close(m.done)
}

// unmountFuse removes a FUSE file, whether its process lives or not. It does nothing if there is none. With force its
// users get errors from then on, and its process is let go.
func unmountFuse(path string, force bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if force {
		flags |= unix.MNT_FORCE | unix.MNT_DETACH
	}
	for try := 0; ; try++ {
		mounted, err := mountedAt(path)
		if err != nil {
			return err
		}
		if !mounted {
			break
		}
		err = unix.Unmount(path, flags)
		switch {
		case err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT):
		case errors.Is(err, unix.EBUSY) && try < busyTries:
			time.Sleep(busyWait) // something looks at every new device for a moment
		case errors.Is(err, unix.EBUSY):
			return abi.Errorf(abi.ErrExists, "%s is in use", path)
		default:
			return systemError("unmount "+path, err)
		}
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return systemError("remove", err)
	}
	return nil
}

// Something that only looks at a device, as udev does, is waited for: two seconds.
const (
	busyTries = 40
	busyWait  = 50 * time.Millisecond
)

// mountedAt tells whether something is mounted at path.
func mountedAt(path string) (bool, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return false, systemError("find "+path, err)
	}
	mounts, err := Mounts()
	if err != nil {
		return false, err
	}
	for _, m := range mounts {
		if m.Path == abs {
			return true, nil
		}
	}
	return false, nil
}

// systemError gives an error of the system its class.
func systemError(doing string, err error) error {
	c := abi.ErrIO
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		c = abi.ErrDenied
	case errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOENT):
		c = abi.ErrUnsupported
	case errors.Is(err, unix.EBUSY):
		c = abi.ErrExists
	}
	return abi.Errorf(c, "%s: %w", doing, err)
}
