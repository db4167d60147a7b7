//go:build unix

package dedup

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// othersCanWrite says how somebody else can write to a directory, "" if nobody can.
func othersCanWrite(fi fs.FileInfo) string {
	if perm := fi.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Sprintf("can be written by others (mode %#o)", perm)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Uid != uint32(os.Geteuid()) && st.Uid != 0 {
		return fmt.Sprintf("belongs to user %d", st.Uid)
	}
	return ""
}
