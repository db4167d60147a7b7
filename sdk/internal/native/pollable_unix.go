//go:build unix

package native

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/convhost/convhost/abi"
)

// pollable puts a pipe that came from the host under the runtime's poller, so that Close ends a waiting Read or Write.
func pollable(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, abi.Errorf(abi.ErrIO, "pipe from the host: %w", err)
	}
	return os.NewFile(uintptr(fd), "pipe"), nil
}
