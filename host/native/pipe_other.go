//go:build unix && !linux

package native

func growPipe(uintptr) {}
