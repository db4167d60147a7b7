//go:build wasip1

package wasmguest

import (
	"slices"
	"unsafe"

	"github.com/convhost/convhost/abi"
)

// host implements abi.Host: every method is one import.
type host struct{}

func number(v int64) (int64, error) {
	if v < 0 {
		return 0, hostError(v)
	}
	return v, nil
}

func count(v int64) (int, error) {
	n, err := number(v)
	return int(n), err
}

func handle(v int64) (abi.Handle, error) {
	n, err := number(v)
	return abi.Handle(n), err
}

func status(v int64) error {
	if v < 0 {
		return hostError(v)
	}
	return nil
}

func (host) Open(role abi.Role, index int) (abi.Handle, error) {
	return handle(hostOpen(int32(role), int32(index)))
}

func (host) OpenSink(index int, filter abi.SinkFilter, level int) (abi.Handle, error) {
	return handle(hostOpenSink(int32(index), int32(filter), int32(level)))
}

func (host) Read(h abi.Handle, p []byte) (int, error) {
	return count(hostRead(int32(h), ptr(p), uint32(len(p))))
}

func (host) ReadAt(h abi.Handle, p []byte, off int64) (int, error) {
	return count(hostReadAt(int32(h), ptr(p), uint32(len(p)), off))
}

func (host) Size(h abi.Handle) (int64, error) { return number(hostSize(int32(h))) }

func (host) Write(h abi.Handle, p []byte) error {
	return status(hostWrite(int32(h), ptr(p), uint32(len(p))))
}

func (host) Copy(dst, src abi.Handle, off, n int64) (int64, error) {
	return number(hostCopy(int32(dst), int32(src), off, n))
}

func (host) Info(h abi.Handle) (info abi.StreamInfo, err error) {
	var b [abi.StreamInfoSize]byte
	if err := status(hostInfo(int32(h), unsafe.Pointer(&b), uint32(len(b)))); err != nil {
		return info, err
	}
	info.Decode(b[:])
	return info, nil
}

func (host) Close(h abi.Handle) (info abi.StreamInfo, err error) {
	var b [abi.StreamInfoSize]byte
	if err := status(hostClose(int32(h), unsafe.Pointer(&b), uint32(len(b)))); err != nil {
		return info, err
	}
	info.Decode(b[:])
	return info, nil
}

func (host) Entries(h abi.Handle, buf []byte, plan abi.Handle) (int, error) {
	return count(hostEntries(int32(h), ptr(buf), uint32(len(buf)), int32(plan)))
}

func (host) NewPlan(spec *abi.PlanSpec) (abi.Handle, error) {
	b := spec.Append(make([]byte, 0, abi.PlanSpecSize))
	return handle(hostNewPlan(ptr(b), uint32(len(b))))
}

func (host) JobStream(plan, stream abi.Handle, n int64, tag uint64) (int, error) {
	return count(hostJobStream(int32(plan), int32(stream), n, tag))
}

func (host) JobBytes(plan abi.Handle, p []byte, tag uint64) (int, error) {
	return count(hostJobBytes(int32(plan), ptr(p), uint32(len(p)), tag))
}

func (host) JobRange(plan abi.Handle, src abi.Handle, r abi.Range, tag uint64) error {
	b := r.Append(make([]byte, 0, abi.RangeSize))
	return status(hostJobRange(int32(plan), int32(src), ptr(b), uint32(len(b)), tag))
}

func (host) Collect(buf []byte, min int) (int, error) {
	return count(hostCollect(ptr(buf), uint32(len(buf)), int32(min)))
}

func (host) ClosePlan(plan abi.Handle) (info abi.PlanInfo, err error) {
	var b [abi.PlanInfoSize]byte
	if err := status(hostClosePlan(int32(plan), unsafe.Pointer(&b), uint32(len(b)))); err != nil {
		return info, err
	}
	info.Decode(b[:])
	return info, nil
}

func (host) Sum(alg abi.Digest, p []byte) (sum [32]byte, err error) {
	err = status(hostSum(int32(alg), ptr(p), uint32(len(p)), unsafe.Pointer(&sum)))
	return sum, err
}

// Encode offers the host room for incompressible data, which is enough for every codec; should it not be, it asks again.
func (host) Encode(codec abi.Codec, level int, dst, src []byte) ([]byte, error) {
	room := len(src) + len(src)/128 + 1024
	for {
		dst = slices.Grow(dst, room)
		free := dst[len(dst) : len(dst)+room]
		n, err := number(hostEncode(int32(codec), int32(level), ptr(src), uint32(len(src)), ptr(free), uint32(room)))
		if err != nil {
			return nil, err
		}
		if n <= int64(room) {
			return dst[:len(dst)+int(n)], nil
		}
		room = int(n)
	}
}

func (host) Decode(codec abi.Codec, dst, src []byte, size int) ([]byte, error) {
	dst = slices.Grow(dst, size)
	free := dst[len(dst) : len(dst)+size]
	if err := status(hostDecode(int32(codec), ptr(src), uint32(len(src)), ptr(free), uint32(size))); err != nil {
		return nil, err
	}
	return dst[:len(dst)+size], nil
}

func (host) Log(level int, msg string) {
	hostLog(int32(level), unsafe.Pointer(unsafe.StringData(msg)), uint32(len(msg)))
}

func (host) Progress(done, total int64) { hostProgress(done, total) }

func (host) Ready(*abi.AttachResponse) error {
	return abi.Errorf(abi.ErrUnsupported, "a sandboxed plugin cannot attach")
}
