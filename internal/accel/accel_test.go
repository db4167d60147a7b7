package accel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// words returns n bytes that compress about as program text does; the same for the same seed.
func words(seed int64, n int) []byte {
	r := rand.New(rand.NewSource(seed))
	b := make([]byte, 0, n+16)
	for len(b) < n {
		switch r.Intn(10) {
		case 0:
			b = append(b, byte(r.Int()), byte(r.Int()), byte(r.Int()), 0, 0, 0)
		default:
			b = fmt.Appendf(b, "w%d ", int(r.ExpFloat64()*400))
		}
	}
	return b[:n]
}

func noise(seed int64, n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

func newPool(t testing.TB, workers int, inflight int64) *Pool {
	t.Helper()
	p := NewPool(workers, inflight)
	t.Cleanup(p.Close)
	return p
}

func newQueue(t testing.TB, ctx context.Context, p *Pool, lim Limits) *Queue {
	t.Helper()
	q := p.NewQueue(ctx, lim)
	t.Cleanup(func() { q.Close() })
	return q
}

func mustPlan(t testing.TB, q *Queue, spec abi.PlanSpec, s *Sink) *Plan {
	t.Helper()
	p, err := q.NewPlan(&spec, s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// collectAll returns all completions of a queue.
func collectAll(t testing.TB, q *Queue) []abi.Completion {
	t.Helper()
	var out []abi.Completion
	buf := make([]byte, 100*abi.CompletionSize+7)
	for {
		n, err := q.Collect(buf, 1)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return out
		}
		for b := buf[:n]; len(b) > 0; b = b[abi.CompletionSize:] {
			var c abi.Completion
			c.Decode(b)
			out = append(out, c)
		}
	}
}

// model executes a plan the plain way: one chunk after the other.
func model(spec abi.PlanSpec, jobs [][]byte) (out []byte, comps []abi.Completion, info abi.PlanInfo) {
	seen := map[string]abi.Completion{}
	sum := sha256.New()
	for tag, body := range jobs {
		size := spec.ChunkSize
		if size == 0 {
			size = max(len(body), 1)
		}
		for pos, seq := 0, 0; pos < len(body); pos, seq = pos+size, seq+1 {
			chunk := body[pos:min(len(body), pos+size)]
			sum.Write(chunk)
			info.Jobs++
			info.RawBytes += int64(len(chunk))
			c := abi.Completion{Tag: uint64(tag), Seq: uint32(seq), Raw: uint32(len(chunk)), Pos: int64(pos)}
			if spec.Digest != abi.DigestNone {
				c.Digest, _ = Sum(spec.Digest, chunk)
			}
			if spec.CRC32C {
				c.CRC32C = crc32.Checksum(chunk, crc32.MakeTable(crc32.Castagnoli))
			}
			key := fmt.Sprintf("%x/%d", c.Digest, c.Raw)
			if e, ok := seen[key]; ok && spec.Dedup == abi.DedupPlan {
				c.Offset, c.Stored, c.Index, c.Flags = e.Offset, e.Stored, e.Index, e.Flags|abi.CompletionDup
				comps = append(comps, c)
				continue
			}
			store, _ := Encode(spec.Codec, spec.Level, nil, chunk)
			if spec.Codec == abi.CodecNone || spec.KeepRaw && len(store) >= len(chunk) {
				store, c.Flags = chunk, abi.CompletionRaw
			}
			start := len(out)
			for spec.Align > 1 && len(out)%spec.Align != 0 {
				out = append(out, 0)
			}
			c.Offset, c.Stored, c.Index = int64(len(out)), uint32(len(store)), uint32(info.Chunks)
			out = append(out, store...)
			info.Chunks++
			info.StoredBytes += int64(len(out) - start)
			seen[key] = c
			comps = append(comps, c)
		}
	}
	if spec.RawSum {
		sum.Sum(info.RawSHA256[:0])
	}
	return out, comps, info
}

// testJobs has small, big, equal and incompressible bodies.
func testJobs() [][]byte {
	var jobs [][]byte
	for i := range 300 {
		jobs = append(jobs, words(int64(i%200), 50*i%9000))
	}
	jobs = append(jobs, words(1, 3<<20+17), noise(2, 400<<10), words(1, 3<<20+17), nil, words(4, 200<<10),
		bytes.Repeat([]byte{0}, 2<<20), noise(3, 100))
	return jobs
}

func TestPlanMatchesModel(t *testing.T) {
	jobs := testJobs()
	specs := []abi.PlanSpec{
		{},
		{ChunkSize: 1 << 20, Digest: abi.DigestSHA256, Codec: abi.CodecLZ4Block, KeepRaw: true, Dedup: abi.DedupPlan, Align: 4096, RawSum: true},
		{ChunkSize: 4096, Digest: abi.DigestBLAKE3, Codec: abi.CodecLZ4Block, Dedup: abi.DedupPlan, CRC32C: true},
		{ChunkSize: 1 << 20, Digest: abi.DigestSHA256, Codec: abi.CodecZstd, KeepRaw: true, RawSum: true, Align: 512},
		{ChunkSize: 64 << 10, Codec: abi.CodecGzip, CRC32C: true},
		{ChunkSize: 300 << 10, Digest: abi.DigestSHA256, Codec: abi.CodecDeflate, Level: 1, Dedup: abi.DedupPlan},
		{Digest: abi.DigestSHA256, Dedup: abi.DedupPlan, Align: 3},
	}
	for i, spec := range specs {
		wantOut, wantComps, wantInfo := model(spec, jobs)
		for _, workers := range []int{1, 2, 8} {
			t.Run(fmt.Sprintf("%d/%d workers", i, workers), func(t *testing.T) {
				pool := newPool(t, workers, 4<<20)
				q := newQueue(t, t.Context(), pool, Limits{})
				var got bytes.Buffer
				p := mustPlan(t, q, spec, q.NewSink(&got))
				for tag, b := range jobs {
					if tag%3 == 0 {
						must[int](t)(q.Bytes(p, b, uint64(tag)))
					} else {
						must[int](t)(q.Stream(p, io.MultiReader(bytes.NewReader(b), bytes.NewReader(b)), int64(len(b)), uint64(tag)))
					}
				}
				info := must[abi.PlanInfo](t)(q.ClosePlan(p))
				if d := cmp.Diff(wantInfo, info); d != "" {
					t.Error("totals:", d)
				}
				if d := cmp.Diff(wantComps, collectAll(t, q)); d != "" {
					t.Error("completions:", d)
				}
				if !bytes.Equal(got.Bytes(), wantOut) {
					t.Error("sink differs from the plain loop")
				}
				if err := q.Close(); err != nil {
					t.Error(err)
				}
				if s := pool.Stats(); s.InFlight != 0 {
					t.Errorf("%d bytes in flight after Close", s.InFlight)
				}
			})
		}
	}
}

func TestRoundTrip(t *testing.T) {
	jobs := testJobs()
	for codec := abi.CodecNone; codec <= abi.CodecDeflate; codec++ {
		pool := newPool(t, 3, 4<<20)
		q := newQueue(t, t.Context(), pool, Limits{})
		var blob bytes.Buffer
		p := mustPlan(t, q, abi.PlanSpec{ChunkSize: 1 << 20, Digest: abi.DigestBLAKE3, CRC32C: true, Codec: codec, KeepRaw: true}, q.NewSink(&blob))
		for tag, b := range jobs {
			must[int](t)(q.Bytes(p, b, uint64(tag)))
		}
		must[abi.PlanInfo](t)(q.ClosePlan(p))

		var back bytes.Buffer
		s := q.NewSink(&back)
		dec := mustPlan(t, q, abi.PlanSpec{Codec: codec, Digest: abi.DigestBLAKE3, Decode: true, RawSum: true}, s)
		var want []byte
		for i, c := range collectAll(t, q) {
			r := abi.Range{Off: c.Offset, CLen: int(c.Stored), ULen: int(c.Raw), Raw: c.Flags&abi.CompletionRaw != 0,
				Want: &c.Digest, CRC: c.CRC32C, HasCRC: true, N: -1}
			body := jobs[c.Tag][c.Pos:][:c.Raw]
			if i%7 == 3 && r.ULen > 10 {
				r.Skip, r.N = 3, r.ULen-7
				body = body[3 : len(body)-4]
			}
			if i%50 == 0 {
				must[int](t)(q.Bytes(dec, []byte("header"), 0))
				want = append(want, "header"...)
			}
			if err := q.Range(dec, bytes.NewReader(blob.Bytes()), int64(blob.Len()), r, uint64(i)); err != nil {
				t.Fatal(err)
			}
			want = append(want, body...)
		}
		info := must[abi.PlanInfo](t)(q.ClosePlan(dec))
		if !bytes.Equal(back.Bytes(), want) {
			t.Errorf("codec %d: decoded bytes differ", codec)
		}
		if info.RawSHA256 != sha256.Sum256(want) || info.StoredBytes != int64(len(want)) {
			t.Errorf("codec %d: totals %+v", codec, info)
		}
	}
}

func TestWriteIsOrdered(t *testing.T) {
	pool := newPool(t, 4, 0)
	q := newQueue(t, t.Context(), pool, Limits{})
	var a, b, want bytes.Buffer
	sa, sb := q.NewSink(&a), q.NewSink(&b)
	pa := mustPlan(t, q, abi.PlanSpec{ChunkSize: 4096}, sa)
	pb := mustPlan(t, q, abi.PlanSpec{ChunkSize: 4096, Align: 16}, sb)
	for i := range 200 {
		body := words(int64(i), i*37)
		must[int](t)(q.Bytes(pa, body, 1))
		must[int](t)(q.Bytes(pb, body, 2))
		mark := fmt.Appendf(nil, "<%d>", i)
		if err := q.Write(sa, mark); err != nil {
			t.Fatal(err)
		}
		want.Write(body)
		want.Write(mark)
	}
	big := noise(9, 5<<20+3)
	if err := q.Write(sa, big); err != nil {
		t.Fatal(err)
	}
	want.Write(big)
	if n := must[int64](t)(q.Flush(sa)); n != int64(want.Len()) {
		t.Errorf("size %d, want %d", n, want.Len())
	}
	if !bytes.Equal(a.Bytes(), want.Bytes()) {
		t.Error("writes and jobs are out of order")
	}
}

// TestCompletionOffsetsCountWrites: an offset is a place in the sink, whoever wrote what lies before.
func TestCompletionOffsetsCountWrites(t *testing.T) {
	q := newQueue(t, t.Context(), newPool(t, 2, 0), Limits{})
	var out bytes.Buffer
	s := q.NewSink(&out)
	p := mustPlan(t, q, abi.PlanSpec{Align: 512}, s)
	if err := q.Write(s, []byte("head")); err != nil {
		t.Fatal(err)
	}
	must[int](t)(q.Bytes(p, []byte("body"), 7))
	c := collectAll(t, q)
	if len(c) != 1 || c[0].Offset != 512 || c[0].Tag != 7 || c[0].Flags != abi.CompletionRaw || out.Len() != 516 {
		t.Errorf("%+v, sink has %d bytes", c, out.Len())
	}
}

func TestPollingEnds(t *testing.T) {
	q := newQueue(t, t.Context(), newPool(t, 1, 0), Limits{})
	p := mustPlan(t, q, abi.PlanSpec{}, nil)
	must[int](t)(q.Bytes(p, []byte("x"), 1))
	buf := make([]byte, abi.CompletionSize)
	for n := 0; n == 0; {
		n = must[int](t)(q.Collect(buf, 0))
	}
	if n := must[int](t)(q.Collect(buf, 5)); n != 0 {
		t.Errorf("%d bytes of records that nobody submitted", n)
	}
}

func wantClass(t *testing.T, err error, class abi.Class) {
	t.Helper()
	if !errors.Is(err, class) || abi.ClassOf(err) != class {
		t.Errorf("error %v has class %v, want %v", err, abi.ClassOf(err), class)
	}
}
