package main

import (
	"os"
	"syscall"
)

// usage returns the most memory that a process had, and the bytes that it made the system write, also if they were removed
// before they came to the disk.
func usage(s *os.ProcessState) (memory, written int64) {
	u, ok := s.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, 0
	}
	return int64(u.Maxrss) << 10, int64(u.Oublock) << 9
}
