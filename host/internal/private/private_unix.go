//go:build unix

package private

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// OthersCanWrite says how somebody else can write to a file or directory, "" if nobody can. Root is nobody else.
func OthersCanWrite(fi fs.FileInfo) string {
	if perm := fi.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Sprintf("can be written by others (mode %#o)", perm)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Uid != uint32(os.Geteuid()) && st.Uid != 0 {
		return fmt.Sprintf("belongs to user %d", st.Uid)
	}
	return ""
}
