//go:build !windows && (!unix || solaris || aix)

package lockfile

import (
	"errors"
	"os"
)

func lockFile(*os.File) error {
	return errors.New("file locks are not supported on this operating system")
}

func removeLocked(f *os.File, path string) error { return errors.Join(os.Remove(path), f.Close()) }
