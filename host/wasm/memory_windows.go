package wasm

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

func reserve(n uint64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	addr, err := windows.VirtualAlloc(0, uintptr(n), windows.MEM_RESERVE, windows.PAGE_NOACCESS)
	if err != nil {
		return nil, err
	}
	// The address is not in Go's heap, so converting it cannot confuse the garbage collector.
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&addr)), n), nil
}

func commit(space []byte, from, to uint64) error {
	_, err := windows.VirtualAlloc(uintptr(unsafe.Pointer(&space[from])), uintptr(to-from), windows.MEM_COMMIT, windows.PAGE_READWRITE)
	return err
}

func release(space []byte) {
	_ = windows.VirtualFree(uintptr(unsafe.Pointer(unsafe.SliceData(space))), 0, windows.MEM_RELEASE)
}
