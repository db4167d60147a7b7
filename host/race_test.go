//go:build race

package host

func init() { memoryFile = 64 << 20 } // the race detector makes a gigabyte take minutes
