//go:build unix && !solaris && !aix

package lockfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func lockFile(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return errHeld
		default:
			return err
		}
	}
}

func removeLocked(f *os.File, path string) error {
	err := os.Remove(path) // while the lock is held: who opened the file before sees that it lost its name
	return errors.Join(err, f.Close())
}
