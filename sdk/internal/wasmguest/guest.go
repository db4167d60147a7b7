//go:build wasip1

package wasmguest

import (
	"unsafe"

	"github.com/convhost/convhost/abi"
)

// Dispatch runs one operation of the plugin. req and the response are encoded messages.
type Dispatch func(op abi.Op, req []byte, h abi.Host) ([]byte, error)

var dispatch Dispatch

// Register sets the plugin of this module.
func Register(d Dispatch) { dispatch = d }

// mainMain is the program's main function. The Go runtime does not run it in a library, so the first call does.
//
//go:linkname mainMain main.main
func mainMain()

// call is the module's export.
//
//go:wasmexport convhost_v1_call
func call(op int32) int32 {
	if dispatch == nil {
		mainMain()
	}
	if dispatch == nil {
		return fail(abi.Errorf(abi.ErrPlugin, "the plugin's main function did not register a plugin"))
	}
	var req []byte
	if n := ctlRead(nil, 0); n > 0 {
		req = make([]byte, n)
		ctlRead(ptr(req), uint32(n))
	}
	resp, err := dispatch(abi.Op(op), req, host{})
	if err != nil {
		return fail(err)
	}
	ctlWrite(ptr(resp), uint32(len(resp)))
	return abi.WasmOK
}

func fail(err error) int32 {
	b := abi.MarshalError(err)
	hostFail(int32(abi.ClassOf(err)), ptr(b), uint32(len(b)))
	return abi.WasmFailed
}

func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

// hostError asks for what a failed call to the host was about.
func hostError(code int64) error {
	class := abi.Class(-code)
	var small [512]byte
	b := small[:]
	n := lastError(ptr(b), uint32(len(b)))
	if n > int64(len(b)) {
		b = make([]byte, n)
		n = lastError(ptr(b), uint32(n))
	}
	if n <= 0 {
		return class
	}
	return abi.UnmarshalError(b[:n])
}
