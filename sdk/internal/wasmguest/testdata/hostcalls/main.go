//go:build wasip1

// Command hostcalls is the plugin of the tests of the WebAssembly binding: it calls every method of its host and
// answers with what came back.
package main

import (
	"errors"
	"fmt"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk/internal/wasmguest"
)

func main() { wasmguest.Register(run) }

func run(op abi.Op, req []byte, h abi.Host) ([]byte, error) {
	switch string(req) {
	case "wrap":
		_, err := h.Read(5, make([]byte, 10))
		return nil, fmt.Errorf("layer 3: %w", err)
	case "replace":
		h.Read(5, make([]byte, 10))
		return nil, errors.New("something else")
	case "soft":
		if _, err := h.Open(abi.RolePart, 9); !errors.Is(err, abi.ErrNotFound) {
			return nil, fmt.Errorf("open: %v", err)
		}
		return []byte("went on"), nil
	case "format":
		return nil, &abi.FormatError{Class: abi.ErrTruncated, Format: "toc", Off: 99, Field: "entries", Got: "3", Want: "4"}
	}
	out := &transcript{}
	out.add(op, nil)
	all(h, out)
	return []byte(out.s), nil
}

type transcript struct{ s string }

func (t *transcript) add(v any, err error) { t.s += fmt.Sprintf("%v %v\n", v, err) }

func all(h abi.Host, t *transcript) {
	in, err := h.Open(abi.RoleDict, 2)
	t.add(in, err)
	sink, err := h.OpenSink(3, abi.FilterGzip, -9)
	t.add(sink, err)
	buf := make([]byte, 4096)
	n, err := h.Read(in, buf)
	t.add(string(buf[:n]), err)
	n, err = h.Read(in, nil)
	t.add(n, err)
	n, err = h.ReadAt(in, buf, 1<<33)
	t.add(string(buf[:n]), err)
	size, err := h.Size(in)
	t.add(size, err)
	t.add("write", h.Write(sink, []byte("payload")))
	size, err = h.Copy(sink, in, -1, 1<<34)
	t.add(size, err)
	info, err := h.Info(sink)
	t.add(fmt.Sprintf("%+v", info), err)
	info, err = h.Close(sink)
	t.add(fmt.Sprintf("%+v", info), err)
	n, err = h.Entries(in, buf, 0)
	var e abi.Entry
	_, derr := e.Decode(buf[:n])
	t.add(fmt.Sprintf("%+v %v", e, derr), err)
	plan, err := h.NewPlan(&abi.PlanSpec{ChunkSize: 1 << 20, Digest: abi.DigestBLAKE3, CRC32C: true, Codec: abi.CodecZstd,
		Level: -3, KeepRaw: true, Dedup: abi.DedupPlan, Align: 4096, Sink: sink, RawSum: true, Decode: true})
	t.add(plan, err)
	n, err = h.JobStream(plan, in, -1, 1<<63)
	t.add(n, err)
	n, err = h.JobBytes(plan, []byte("job"), 12)
	t.add(n, err)
	want := [32]byte{0xab, 0xcd}
	t.add("range", h.JobRange(plan, in, abi.Range{Off: 1 << 36, CLen: 5, ULen: 6, Want: &want, CRC: 0xffffffff, HasCRC: true, Skip: 1, N: -1}, 13))
	t.add("range", h.JobRange(plan, in, abi.Range{Off: 1, CLen: 6, ULen: 6, Raw: true, N: 2}, 14))
	n, err = h.Collect(buf, 1)
	var c abi.Completion
	c.Decode(buf[:n])
	t.add(fmt.Sprintf("%+v", c), err)
	totals, err := h.ClosePlan(plan)
	t.add(fmt.Sprintf("%+v", totals), err)
	sum, err := h.Sum(abi.DigestSHA256, []byte("abc"))
	t.add(fmt.Sprintf("%x", sum), err)
	big := make([]byte, 100_000)
	enc, err := h.Encode(abi.CodecLZ4Block, 1, []byte("pre"), big)
	t.add(fmt.Sprint(string(enc[:3]), len(enc)), err)
	dec, err := h.Decode(abi.CodecGzip, []byte("pre"), []byte("decoded and more"), 7)
	t.add(string(dec), err)
	_, err = h.Decode(abi.CodecGzip, nil, []byte("x"), 7)
	t.add("decode", err)
	h.Log(abi.LogWarn, "log line")
	h.Progress(1<<40, -1)
}
