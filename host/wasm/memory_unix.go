//go:build unix

package wasm

import "golang.org/x/sys/unix"

func reserve(n uint64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	space, err := unix.Mmap(-1, 0, int(n), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		preferLargePages(space)
	}
	return space, err
}

func commit(space []byte, from, to uint64) error {
	return unix.Mprotect(space[from:to], unix.PROT_READ|unix.PROT_WRITE)
}

func release(space []byte) { _ = unix.Munmap(space) }
