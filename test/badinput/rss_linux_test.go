package badinput

import (
	"os"
	"syscall"
)

// peakMemory is the most resident memory that a process had, in bytes; 0 if it is not known: the system counts what the
// process that started it had at that moment.
func peakMemory(p *os.ProcessState) int64 {
	var own syscall.Rusage
	peak := p.SysUsage().(*syscall.Rusage).Maxrss
	if syscall.Getrusage(syscall.RUSAGE_SELF, &own) != nil || peak <= own.Maxrss {
		return 0
	}
	return int64(peak) << 10
}
