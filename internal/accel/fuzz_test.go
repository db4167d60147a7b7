package accel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/google/go-cmp/cmp"
)

// script runs the jobs that b describes: pairs of an operation and a length.
func script(t *testing.T, workers int, spec abi.PlanSpec, b []byte) ([]byte, []abi.Completion, abi.PlanInfo) {
	pool := NewPool(workers, 300<<10)
	defer pool.Close()
	q := pool.NewQueue(t.Context(), Limits{})
	defer q.Close()
	var out bytes.Buffer
	s := q.NewSink(&out)
	p := mustPlan(t, q, spec, s)
	text := words(1, 64<<10)
	var comps []abi.Completion
	for i := 0; i+1 < len(b); i += 2 {
		from := int(b[i]) >> 3 * 64
		body := text[from : from+int(b[i+1])*int(b[i+1])/2]
		var err error
		switch b[i] & 7 {
		case 0:
			err = q.Write(s, body)
		case 1:
			comps = append(comps, collectAll(t, q)...)
		case 2, 3:
			_, err = q.Bytes(p, body, uint64(i))
		default:
			_, err = q.Stream(p, bytes.NewReader(body), int64(len(body)), uint64(i))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	info := must[abi.PlanInfo](t)(q.ClosePlan(p))
	return out.Bytes(), append(comps, collectAll(t, q)...), info
}

// FuzzWorkersDoNotMatter: one worker and four give the same bytes, completions and totals for any jobs.
func FuzzWorkersDoNotMatter(f *testing.F) {
	f.Add(uint16(0), []byte("\x02\xff\x03\xff\x04\xff\x00\x09\x04\xff\x01\x00\x04\xff"))
	f.Add(uint16(0x1234), bytes.Repeat([]byte("\x02\x50\x0a\x50\x04\x50"), 50))
	f.Add(uint16(0xffff), bytes.Repeat([]byte("\x04\xf0\x01\x01\x02\xf0\x00\x20"), 20))
	f.Fuzz(func(t *testing.T, bits uint16, jobs []byte) {
		spec := abi.PlanSpec{ChunkSize: 4096 * int(1+bits&3), Digest: abi.DigestSHA256 + abi.Digest(bits>>2&1),
			Codec: abi.Codec(bits >> 3 & 7 % 5), KeepRaw: bits>>6&1 == 1, Dedup: abi.Dedup(bits >> 7 & 1),
			Align: int(bits >> 8 & 7 * 100), RawSum: bits>>11&1 == 1, CRC32C: bits>>12&1 == 1}
		if spec.Codec > abi.CodecDeflate {
			spec.Codec = abi.CodecNone
		}
		jobs = jobs[:min(len(jobs), 400)]
		out1, comps1, info1 := script(t, 1, spec, jobs)
		out4, comps4, info4 := script(t, 4, spec, jobs)
		if !bytes.Equal(out1, out4) || info1 != info4 || !cmp.Equal(comps1, comps4) {
			t.Fatalf("results differ:\n%+v\n%+v\n%s", info1, info4, cmp.Diff(comps1, comps4))
		}
	})
}

// FuzzDecode: any bytes give an error of a class or exactly the size that was asked for; and what Encode makes of
// them, Decode turns back.
func FuzzDecode(f *testing.F) {
	for codec := range 5 {
		enc, err := Encode(abi.Codec(codec), 0, nil, words(1, 2000))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(codec), enc, uint32(2000))
		f.Add(byte(codec), enc[:len(enc)/2], uint32(2000))
	}
	f.Fuzz(func(t *testing.T, c byte, in []byte, size uint32) {
		codec, n := abi.Codec(c%5), int(size%(17<<20))
		out, err := Decode(codec, nil, in, n)
		if err == nil && len(out) != n {
			t.Fatalf("%d bytes, want %d", len(out), n)
		}
		if err != nil && !errors.Is(err, abi.ErrCorrupt) {
			t.Fatalf("class %v: %v", abi.ClassOf(err), err)
		}
		enc := must[[]byte](t)(Encode(codec, 0, nil, in))
		if back := must[[]byte](t)(Decode(codec, nil, enc, len(in))); !bytes.Equal(back, in) {
			t.Fatal("not the input")
		}
	})
}

func ExampleQueue() {
	pool := NewPool(0, 0)
	defer pool.Close()
	q := pool.NewQueue(context.Background(), Limits{})
	defer q.Close()
	plan, err := q.NewPlan(&abi.PlanSpec{ChunkSize: 4096, Digest: abi.DigestSHA256, Dedup: abi.DedupPlan}, q.NewSink(io.Discard))
	if err != nil {
		panic(err)
	}
	body := strings.NewReader(strings.Repeat("convhost", 1024))
	chunks, err := q.Stream(plan, body, body.Size(), 1)
	if err != nil {
		panic(err)
	}
	info, err := q.ClosePlan(plan)
	fmt.Println(chunks, "chunks,", info.Chunks, "distinct,", info.StoredBytes, "bytes stored,", err)
	// Output: 2 chunks, 1 distinct, 4096 bytes stored, <nil>
}
