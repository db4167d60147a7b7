//go:build !linux

package host

import "github.com/convhost/convhost/abi"

// endProcess would kill the process that holds the lock at path; without a handle on it, it could hit another.
func endProcess(pid int, _ string) error {
	return abi.Errorf(abi.ErrUnsupported, "process %d serves the attachment and does not end: end it by hand", pid)
}
