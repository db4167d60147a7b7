package native

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/convhost/convhost/abi"
)

// privateCopy copies the program into a sealed memory file, which no process can change or remove.
func privateCopy(r io.Reader) (*executable, error) {
	f, err := memoryFile()
	if err != nil {
		return copyToDir(r) // memory files are forbidden or not executable here
	}
	if err := copyProgram(f, r); err != nil {
		f.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, abi.Errorf(abi.ErrIO, "seal plugin: %w", err)
	}
	return &executable{path: fmt.Sprintf("/proc/self/fd/%d", f.Fd()), close: func() { f.Close() }}, nil
}

// memoryFile makes an executable memory file. Its number is high: between fork and exec the child moves the
// descriptors that it inherits to 3 and up, and must not hit the one it is about to execute.
func memoryFile() (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("convhost-plugin", flags|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("convhost-plugin", flags)
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 64)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d", high)); err != nil {
		unix.Close(high)
		return nil, err
	}
	return os.NewFile(uintptr(high), "plugin"), nil
}
