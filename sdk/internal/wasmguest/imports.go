//go:build wasip1

package wasmguest

import "unsafe"

// The imports of abi.WasmImports. Pointers are only used during the call.

//go:wasmimport convhost.v1 ctl_read
//go:noescape
func ctlRead(p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 ctl_write
//go:noescape
func ctlWrite(p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 fail
//go:noescape
func hostFail(class int32, p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 last_error
//go:noescape
func lastError(p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 open
func hostOpen(role, index int32) int64

//go:wasmimport convhost.v1 open_sink
func hostOpenSink(index, filter, level int32) int64

//go:wasmimport convhost.v1 read
//go:noescape
func hostRead(h int32, p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 read_at
//go:noescape
func hostReadAt(h int32, p unsafe.Pointer, n uint32, off int64) int64

//go:wasmimport convhost.v1 size
func hostSize(h int32) int64

//go:wasmimport convhost.v1 write
//go:noescape
func hostWrite(h int32, p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 copy
func hostCopy(dst, src int32, off, n int64) int64

//go:wasmimport convhost.v1 info
//go:noescape
func hostInfo(h int32, p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 close
//go:noescape
func hostClose(h int32, p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 entries
//go:noescape
func hostEntries(h int32, p unsafe.Pointer, n uint32, plan int32) int64

//go:wasmimport convhost.v1 new_plan
//go:noescape
func hostNewPlan(p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 job_stream
func hostJobStream(plan, stream int32, n int64, tag uint64) int64

//go:wasmimport convhost.v1 job_bytes
//go:noescape
func hostJobBytes(plan int32, p unsafe.Pointer, n uint32, tag uint64) int64

//go:wasmimport convhost.v1 job_range
//go:noescape
func hostJobRange(plan, src int32, p unsafe.Pointer, n uint32, tag uint64) int64

//go:wasmimport convhost.v1 collect
//go:noescape
func hostCollect(p unsafe.Pointer, n uint32, min int32) int64

//go:wasmimport convhost.v1 close_plan
//go:noescape
func hostClosePlan(plan int32, p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 sum
//go:noescape
func hostSum(alg int32, p unsafe.Pointer, n uint32, out unsafe.Pointer) int64

//go:wasmimport convhost.v1 encode
//go:noescape
func hostEncode(codec, level int32, src unsafe.Pointer, n uint32, dst unsafe.Pointer, size uint32) int64

//go:wasmimport convhost.v1 decode
//go:noescape
func hostDecode(codec int32, src unsafe.Pointer, n uint32, dst unsafe.Pointer, size uint32) int64

//go:wasmimport convhost.v1 log
//go:noescape
func hostLog(level int32, p unsafe.Pointer, n uint32) int64

//go:wasmimport convhost.v1 progress
func hostProgress(done, total int64) int64
