package cas

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriting asks the system to write n bytes of f at off to disk and does not wait. That it cannot is no fault.
func startWriting(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
