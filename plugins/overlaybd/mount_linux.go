package overlaybd

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/blockdev"
)

func (o *mountOptions) bits() (b uintptr) {
	for _, f := range []struct {
		name string
		set  bool // the bit stands for the name itself
		bit  uintptr
	}{
		{"ro", true, unix.MS_RDONLY}, {"sync", true, unix.MS_SYNCHRONOUS}, {"relatime", true, unix.MS_RELATIME}, {"strictatime", true, unix.MS_STRICTATIME},
		{"suid", false, unix.MS_NOSUID}, {"dev", false, unix.MS_NODEV}, {"exec", false, unix.MS_NOEXEC}, {"atime", false, unix.MS_NOATIME}, {"diratime", false, unix.MS_NODIRATIME},
	} {
		if v, given := o.flags[f.name]; given && v == f.set {
			b |= f.bit
		}
	}
	return b
}

// mount mounts the device at s.Target, an empty directory, which is made if it is not there.
func (s *attachState) mount(device string, disk blockdev.Disk, o mountOptions) error {
	kind, err := fileSystem(disk)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(s.Target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Made = true
	case err != nil:
		return fileError(err)
	case len(entries) > 0:
		return abi.Errorf(abi.ErrExists, "mount point %s is not empty", s.Target)
	}
	if err := s.save(); err != nil {
		return err
	}
	if s.Made {
		if err := os.Mkdir(s.Target, 0o755); err != nil {
			return fileError(err)
		}
	}
	if err := unix.Mount(device, s.Target, kind, o.bits(), o.forKind(kind)); err != nil {
		c := abi.ErrIO
		switch {
		case errors.Is(err, unix.EPERM):
			c = abi.ErrDenied
		case errors.Is(err, unix.ENODEV):
			c = abi.ErrUnsupported
		case errors.Is(err, unix.EINVAL):
			c = abi.ErrInvalid
		}
		if s.Made {
			os.Remove(s.Target)
		}
		return abi.Errorf(c, "mount %s of %s at %s: %w; the kernel's log may say more", kind, device, s.Target, err)
	}
	return nil
}

// unmount unmounts what is mounted at s.Target, if it is our device. With force it is only taken out of sight if it is in
// use.
func (s *attachState) unmount(force bool) error {
	for try := 0; ; try++ {
		mounts, err := blockdev.Mounts()
		if err != nil {
			return err
		}
		ours := false
		for _, m := range mounts { // the last one at a place is what is seen there
			if m.Path == s.Target {
				ours = m.Source == s.Device.Device
			}
		}
		if !ours {
			return nil
		}
		flags := unix.UMOUNT_NOFOLLOW
		if force && try > 0 {
			flags |= unix.MNT_DETACH
		}
		err = unix.Unmount(s.Target, flags)
		switch {
		case err == nil:
			continue // it may be mounted twice
		case !errors.Is(err, unix.EBUSY):
			return abi.Errorf(abi.ErrIO, "unmount %s: %w", s.Target, err)
		case !force && try >= 10:
			return abi.Errorf(abi.ErrExists, "%s is in use", s.Target)
		case !force:
			time.Sleep(50 * time.Millisecond) // somebody may just look
		}
	}
}

// lockFile keeps a writable layer from being used twice. The system drops the lock with the file or the process.
func lockFile(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return abi.Errorf(abi.ErrExists, "writable layer %s is in use", f.Name())
	}
	return fileError(err)
}
