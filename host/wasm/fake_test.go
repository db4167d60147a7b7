package wasm

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"sync/atomic"

	"github.com/convhost/convhost/abi"
)

// fakeHost answers every method with values that can be recognised, and notes the calls.
type fakeHost struct {
	calls []string
	logs  atomic.Int64
	fail  error // of Read
	out   bytes.Buffer
}

func (f *fakeHost) note(format string, args ...any) {
	if len(f.calls) < 1000 {
		f.calls = append(f.calls, fmt.Sprintf(format, args...))
	}
}

func (f *fakeHost) Open(role abi.Role, index int) (abi.Handle, error) {
	f.note("open %d %d", role, index)
	if index == 9 {
		return 0, abi.Errorf(abi.ErrNotFound, "no stream %d", index)
	}
	return 5, nil
}

func (f *fakeHost) OpenSink(index int, filter abi.SinkFilter, level int) (abi.Handle, error) {
	f.note("open_sink %d %d %d", index, filter, level)
	return 6, nil
}

func (f *fakeHost) Read(h abi.Handle, p []byte) (int, error) {
	f.note("read %d %d", h, len(p))
	return copy(p, "stream bytes"), f.fail
}

func (f *fakeHost) ReadAt(h abi.Handle, p []byte, off int64) (int, error) {
	f.note("read_at %d %d %d", h, len(p), off)
	return copy(p, "at"), nil
}

func (f *fakeHost) Size(h abi.Handle) (int64, error) {
	if h == 77 {
		return 0, abi.Errorf(abi.ErrPlugin, "handle 77 is not open")
	}
	f.note("size %d", h)
	return 1 << 40, nil
}

func (f *fakeHost) Write(h abi.Handle, p []byte) error {
	f.note("write %d %d", h, len(p))
	f.out.Write(p)
	return nil
}

func (f *fakeHost) Copy(dst, src abi.Handle, off, n int64) (int64, error) {
	f.note("copy %d %d %d %d", dst, src, off, n)
	return 1 << 41, nil
}

func (f *fakeHost) Info(h abi.Handle) (abi.StreamInfo, error) {
	f.note("info %d", h)
	return abi.StreamInfo{Size: 1, RawSize: 2}, nil
}

func (f *fakeHost) Close(h abi.Handle) (abi.StreamInfo, error) {
	f.note("close %d", h)
	return abi.StreamInfo{Size: 3, SHA256: sha256.Sum256([]byte("a")), RawSize: 4, RawSHA256: sha256.Sum256([]byte("b"))}, nil
}

func (f *fakeHost) Entries(h abi.Handle, buf []byte, plan abi.Handle) (int, error) {
	f.note("entries %d %d", h, plan)
	e := abi.Entry{Kind: abi.KindRegular, Path: "a/b", Size: -1, MtimeSec: -5}
	return copy(buf, e.Append(nil)), nil
}

func (f *fakeHost) NewPlan(spec *abi.PlanSpec) (abi.Handle, error) {
	f.note("new_plan %d %d %v %d %d %v %d %d %d %v %v", spec.ChunkSize, spec.Digest, spec.CRC32C, spec.Codec, spec.Level,
		spec.KeepRaw, spec.Dedup, spec.Align, spec.Sink, spec.RawSum, spec.Decode)
	return 7, nil
}

func (f *fakeHost) JobStream(plan, stream abi.Handle, n int64, tag uint64) (int, error) {
	f.note("job_stream %d %d %d %d", plan, stream, n, tag)
	return 8, nil
}

func (f *fakeHost) JobBytes(plan abi.Handle, p []byte, tag uint64) (int, error) {
	f.note("job_bytes %d %q %d", plan, p, tag)
	return 9, nil
}

func (f *fakeHost) JobRange(plan, src abi.Handle, r abi.Range, tag uint64) error {
	want := "none"
	if r.Want != nil {
		want = fmt.Sprintf("%x", r.Want[:2])
	}
	f.note("job_range %d %d: %d %d %d %v %s %x %v %d %d, %d", plan, src, r.Off, r.CLen, r.ULen, r.Raw, want, r.CRC, r.HasCRC, r.Skip, r.N, tag)
	return nil
}

func (f *fakeHost) Collect(buf []byte, least int) (int, error) {
	f.note("collect %d %d", len(buf), least)
	c := abi.Completion{Tag: 1, Offset: 1 << 35, Pos: 3}
	return copy(buf, c.Append(nil)), nil
}

func (f *fakeHost) ClosePlan(plan abi.Handle) (abi.PlanInfo, error) {
	f.note("close_plan %d", plan)
	return abi.PlanInfo{Chunks: 1, Jobs: 2, StoredBytes: 3, RawBytes: 4, RawSHA256: sha256.Sum256([]byte("c"))}, nil
}

func (f *fakeHost) Sum(alg abi.Digest, p []byte) ([32]byte, error) {
	f.note("sum %d", alg)
	return sha256.Sum256(p), nil
}

// Encode doubles its input.
func (f *fakeHost) Encode(codec abi.Codec, level int, dst, src []byte) ([]byte, error) {
	f.note("encode %d %d", codec, level)
	return append(append(dst, src...), bytes.Repeat(src, 1)...), nil
}

func (f *fakeHost) Decode(codec abi.Codec, dst, src []byte, size int) ([]byte, error) {
	f.note("decode %d %d", codec, size)
	if len(src) < size {
		return nil, abi.Errorf(abi.ErrCorrupt, "short")
	}
	return append(dst, src[:size]...), nil
}

func (f *fakeHost) Log(level int, msg string)       { f.logs.Add(1); f.note("log %d %s", level, msg) }
func (f *fakeHost) Ready(*abi.AttachResponse) error { return abi.ErrUnsupported }

func (f *fakeHost) Progress(done, total int64) { f.note("progress %d %d", done, total) }
