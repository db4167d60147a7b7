package host

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas/lockfile"
)

// endProcess kills the process that holds the lock at path. The descriptor keeps the number from meaning another process
// between the look at the lock and the signal.
func endProcess(pid int, path string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	} else if err != nil {
		return abi.Errorf(abi.ErrIO, "find process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	for try := 0; try < 100; try++ {
		l, err := lockfile.TryLock(path)
		if err == nil {
			l.Unlock()
			return nil
		} else if !errors.Is(err, abi.ErrExists) {
			return err
		}
		if try == 0 {
			if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return abi.Errorf(abi.ErrDenied, "end process %d: %w", pid, err)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return abi.Errorf(abi.ErrTimeout, "process %d does not end", pid)
}
