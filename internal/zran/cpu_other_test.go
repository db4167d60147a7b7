//go:build !linux

package zran_test

import "time"

// cpuClock returns a function that returns the seconds since.
func cpuClock() func() float64 {
	start := time.Now()
	return func() float64 { return time.Since(start).Seconds() }
}
