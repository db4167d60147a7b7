package zran_test

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// cpuClock returns a function that returns the seconds of processor time that the thread had since.
func cpuClock() func() float64 {
	runtime.LockOSThread()
	now := func() float64 {
		var ts unix.Timespec
		unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
		return float64(ts.Nano()) / 1e9
	}
	start := now()
	return func() float64 {
		defer runtime.UnlockOSThread()
		return now() - start
	}
}
