package accel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/convhost/convhost/abi"
)

type failingSink struct {
	left int
	err  error
}

func (s *failingSink) Write(p []byte) (int, error) {
	if s.left -= len(p); s.left < 0 {
		if s.err == nil {
			panic("sink broke")
		}
		return 0, s.err
	}
	return len(p), nil
}

// submitUntilError returns the error with which a queue ends that is fed for ever.
func submitUntilError(q *Queue, p *Plan) error {
	body := words(1, 100<<10)
	for {
		if _, err := q.Bytes(p, body, 1); err != nil {
			return err
		}
	}
}

func TestFirstErrorSticks(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name  string
		class abi.Class
		run   func(q *Queue, p *Plan) error
		sink  io.Writer
	}{
		{"sink", abi.ErrIO, submitUntilError, &failingSink{1 << 20, boom}},
		{"sink with class", abi.ErrLimit, submitUntilError, &failingSink{1 << 20, abi.Errorf(abi.ErrLimit, "full: %w", boom)}},
		{"sink panics", abi.ErrInternal, submitUntilError, &failingSink{left: 1 << 20}},
		{"reader", abi.ErrIO, func(q *Queue, p *Plan) error {
			_, err := q.Stream(p, iotest.ErrReader(boom), 10, 1)
			return err
		}, io.Discard},
		{"short reader", abi.ErrTruncated, func(q *Queue, p *Plan) error {
			_, err := q.Stream(p, bytes.NewReader(make([]byte, 99999)), 100000, 1)
			return err
		}, io.Discard},
		{"stuck reader", abi.ErrIO, func(q *Queue, p *Plan) error {
			_, err := q.Stream(p, readerFunc(func([]byte) (int, error) { return 0, nil }), 10, 1)
			return err
		}, io.Discard},
		{"lying reader", abi.ErrInternal, func(q *Queue, p *Plan) error {
			_, err := q.Stream(p, readerFunc(func(p []byte) (int, error) { return len(p) + 1, nil }), 10, 1)
			return err
		}, io.Discard},
		{"negative length", abi.ErrPlugin, func(q *Queue, p *Plan) error {
			_, err := q.Stream(p, nil, -1, 1)
			return err
		}, io.Discard},
		{"small collect buffer", abi.ErrPlugin, func(q *Queue, p *Plan) error {
			_, err := q.Collect(make([]byte, 95), 0)
			return err
		}, io.Discard},
		{"range for an encoding plan", abi.ErrPlugin, func(q *Queue, p *Plan) error {
			return q.Range(p, bytes.NewReader(nil), 0, abi.Range{}, 1)
		}, io.Discard},
		{"closed plan", abi.ErrPlugin, func(q *Queue, p *Plan) error {
			q.ClosePlan(p)
			_, err := q.Bytes(p, nil, 1)
			return err
		}, io.Discard},
		{"too many completions", abi.ErrLimit, submitUntilError, io.Discard},
		{"bad alignment", abi.ErrPlugin, func(q *Queue, p *Plan) error {
			_, err := q.NewPlan(&abi.PlanSpec{Align: -1}, nil)
			return err
		}, io.Discard},
		{"abort", abi.ErrDenied, func(q *Queue, p *Plan) error {
			q.Abort(abi.Errorf(abi.ErrDenied, "no"))
			return submitUntilError(q, p)
		}, io.Discard},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pool := newPool(t, 2, 1<<20)
			q := newQueue(t, t.Context(), pool, Limits{Completions: 1000})
			p := mustPlan(t, q, abi.PlanSpec{ChunkSize: 32 << 10, Codec: abi.CodecLZ4Block}, q.NewSink(tt.sink))
			err := tt.run(q, p)
			wantClass(t, err, tt.class)
			if _, again := q.Collect(make([]byte, 960), 1); again != err {
				t.Errorf("Collect returns %v, want %v", again, err)
			}
			if again := q.Write(nil, nil); again != err {
				t.Errorf("Write returns %v, want %v", again, err)
			}
			if again := q.Close(); again != err {
				t.Errorf("Close returns %v, want %v", again, err)
			}
			if n := pool.Stats().InFlight; n != 0 {
				t.Errorf("%d bytes in flight after Close", n)
			}
		})
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestUnsupportedDoesNotStick(t *testing.T) {
	q := newQueue(t, t.Context(), newPool(t, 1, 0), Limits{})
	for _, s := range []abi.PlanSpec{{Codec: 99}, {Codec: -1}, {Digest: 7}, {Dedup: 9}, {Codec: abi.CodecGzip, Level: 10}, {Level: -1}} {
		_, err := q.NewPlan(&s, nil)
		wantClass(t, err, abi.ErrUnsupported)
	}
	mustPlan(t, q, abi.PlanSpec{}, nil)
}

func TestPlanSpecIsChecked(t *testing.T) {
	pool := newPool(t, 1, 0)
	for _, s := range []abi.PlanSpec{{ChunkSize: 4095}, {ChunkSize: 16<<20 + 1}, {ChunkSize: -1}, {Align: 1 << 30},
		{Dedup: abi.DedupPlan}, {Decode: true, Digest: 1, Dedup: abi.DedupPlan}} {
		_, err := newQueue(t, t.Context(), pool, Limits{}).NewPlan(&s, nil)
		wantClass(t, err, abi.ErrPlugin)
	}
}

func TestJobPanicIsAnError(t *testing.T) {
	testHook = func(j *job) {
		if j.tag == 77 {
			panic("codec broke")
		}
	}
	defer func() { testHook = nil }()
	q := newPoolAndQueue(t)
	var out bytes.Buffer
	p := mustPlan(t, q, abi.PlanSpec{}, q.NewSink(&out))
	for tag := range uint64(200) {
		must[int](t)(q.Bytes(p, []byte("x"), tag))
	}
	_, err := q.ClosePlan(p)
	wantClass(t, err, abi.ErrInternal)
	q.Close()
	if out.Len() > 77 {
		t.Errorf("%d bytes were written, the 78th job failed", out.Len())
	}
}

func newPoolAndQueue(t *testing.T) *Queue {
	return newQueue(t, t.Context(), newPool(t, 2, 0), Limits{})
}

func TestRangeErrors(t *testing.T) {
	data := words(1, 5000)
	for codec := abi.CodecLZ4Block; codec <= abi.CodecDeflate; codec++ {
		enc := must[[]byte](t)(Encode(codec, 0, nil, data))
		var wrong [32]byte
		tests := []struct {
			name  string
			class abi.Class
			r     abi.Range
		}{
			{"too short", abi.ErrCorrupt, abi.Range{CLen: len(enc), ULen: 4999, N: -1}},
			{"too long", abi.ErrCorrupt, abi.Range{CLen: len(enc), ULen: 5001, N: -1}},
			{"cut", abi.ErrCorrupt, abi.Range{CLen: len(enc) - 1, ULen: 5000, N: -1}},
			{"empty", abi.ErrTruncated, abi.Range{CLen: 0, ULen: 5000, N: -1}},
			{"shifted", abi.ErrCorrupt, abi.Range{Off: 1, CLen: len(enc) - 1, ULen: 5000, N: -1}},
			{"beyond the end", abi.ErrTruncated, abi.Range{Off: 2, CLen: len(enc) - 1, ULen: 5000, N: -1}},
			{"huge offset", abi.ErrTruncated, abi.Range{Off: 1<<63 - 1, CLen: len(enc), ULen: 5000, N: -1}},
			{"digest", abi.ErrDigest, abi.Range{CLen: len(enc), ULen: 5000, N: -1, Want: &wrong}},
			{"crc", abi.ErrDigest, abi.Range{CLen: len(enc), ULen: 5000, N: -1, HasCRC: true}},
			{"bomb", abi.ErrLimit, abi.Range{CLen: len(enc), ULen: 16<<20 + 1, N: -1}},
			{"raw lengths", abi.ErrCorrupt, abi.Range{CLen: len(enc), ULen: 5000, Raw: true, N: -1}},
			{"skip", abi.ErrPlugin, abi.Range{CLen: len(enc), ULen: 5000, Skip: 5001, N: 0}},
			{"n", abi.ErrPlugin, abi.Range{CLen: len(enc), ULen: 5000, Skip: 1, N: 5000}},
			{"negative", abi.ErrPlugin, abi.Range{CLen: -1, ULen: 5000, N: -1}},
		}
		for _, tt := range tests {
			q := newPoolAndQueue(t)
			var out bytes.Buffer
			p := mustPlan(t, q, abi.PlanSpec{Codec: codec, Digest: abi.DigestSHA256, Decode: true}, q.NewSink(&out))
			err := q.Range(p, bytes.NewReader(enc), int64(len(enc)), tt.r, 1)
			if err == nil {
				_, err = q.ClosePlan(p)
			}
			if !errors.Is(err, tt.class) {
				t.Errorf("codec %d, %s: %v, want %v", codec, tt.name, err, tt.class)
			}
			if out.Len() > 0 {
				t.Errorf("codec %d, %s: %d bytes written", codec, tt.name, out.Len())
			}
		}
	}
}

// blockedSink writes nothing until it is opened.
type blockedSink struct{ open chan struct{} }

func (s blockedSink) Write(p []byte) (int, error) { <-s.open; return len(p), nil }

func TestCancelEndsCalls(t *testing.T) {
	calls := map[string]func(q *Queue, p *Plan, s *Sink) error{
		"submit":     func(q *Queue, p *Plan, s *Sink) error { return submitUntilError(q, p) },
		"close plan": func(q *Queue, p *Plan, s *Sink) error { _, err := q.ClosePlan(p); return err },
		"flush":      func(q *Queue, p *Plan, s *Sink) error { _, err := q.Flush(s); return err },
		"collect":    func(q *Queue, p *Plan, s *Sink) error { _, err := q.Collect(make([]byte, 960), 9); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			sink := blockedSink{make(chan struct{})}
			ctx, cancel := context.WithCancel(t.Context())
			q := newQueue(t, ctx, newPool(t, 2, 1<<20), Limits{})
			s := q.NewSink(sink)
			p := mustPlan(t, q, abi.PlanSpec{}, s)
			must[int](t)(q.Bytes(p, words(1, 200<<10), 1))
			time.AfterFunc(20*time.Millisecond, cancel)
			start := time.Now()
			wantClass(t, call(q, p, s), abi.ErrCanceled)
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("took %v", d)
			}
			close(sink.open)
			wantClass(t, q.Close(), abi.ErrCanceled)
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, err := newQueue(t, ctx, newPool(t, 1, 0), Limits{}).NewPlan(&abi.PlanSpec{}, nil)
	wantClass(t, err, abi.ErrTimeout)
}

// TestBackPressure: a sink that does not take anything stops the submitter at the budget.
func TestBackPressure(t *testing.T) {
	const budget = 4 << 20
	sink := blockedSink{make(chan struct{})}
	pool := newPool(t, 4, budget)
	ctx, cancel := context.WithCancel(t.Context())
	q := newQueue(t, ctx, pool, Limits{})
	p := mustPlan(t, q, abi.PlanSpec{ChunkSize: 1 << 20, Codec: abi.CodecZstd}, q.NewSink(sink))
	var got error
	var wg sync.WaitGroup
	wg.Go(func() { got = submitUntilError(q, p) })
	time.Sleep(100 * time.Millisecond)
	cancel()
	wg.Wait()
	wantClass(t, got, abi.ErrCanceled)
	if s := pool.Stats(); s.Peak > budget {
		t.Errorf("%d bytes in flight, budget %d", s.Peak, budget)
	}
	close(sink.open)
}

// TestChunksBiggerThanBudget: each of several queues gets on with chunks that are larger than the whole budget, also
// while another queue holds the budget and does nothing.
func TestChunksBiggerThanBudget(t *testing.T) {
	pool := newPool(t, 2, 1<<20)
	idle := newQueue(t, t.Context(), pool, Limits{})
	must[int](t)(idle.Bytes(mustPlan(t, idle, abi.PlanSpec{Codec: abi.CodecZstd}, nil), []byte("open unit"), 1))
	body := noise(1, 16<<20)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			q := newQueue(t, t.Context(), pool, Limits{})
			var out bytes.Buffer
			p, err := q.NewPlan(&abi.PlanSpec{ChunkSize: 16 << 20, Codec: abi.CodecLZ4Block, KeepRaw: true}, q.NewSink(&out))
			for range 3 {
				if err == nil {
					_, err = q.Stream(p, bytes.NewReader(body), int64(len(body)), 1)
				}
			}
			if err = errors.Join(err, q.Close()); err != nil || out.Len() != 3*len(body) {
				t.Errorf("%d bytes, %v", out.Len(), err)
			}
		})
	}
	wg.Wait()
}

// TestLockStep: two queues that read one stream in lock step do not wait for each other's share of the budget.
func TestLockStep(t *testing.T) {
	pool := newPool(t, 2, 512<<10)
	a, b := newQueue(t, t.Context(), pool, Limits{}), newQueue(t, t.Context(), pool, Limits{})
	pr, pw := io.Pipe()
	body := words(1, 8<<20)
	var wg sync.WaitGroup
	wg.Go(func() {
		p, err := b.NewPlan(&abi.PlanSpec{ChunkSize: 4096, Codec: abi.CodecLZ4Block}, nil)
		if err == nil {
			_, err = b.Stream(p, pr, int64(len(body)), 1)
		}
		if err = errors.Join(err, b.Close()); err != nil {
			t.Error(err)
			pr.CloseWithError(err)
		}
	})
	p := mustPlan(t, a, abi.PlanSpec{ChunkSize: 4096, Codec: abi.CodecLZ4Block}, nil)
	must[int](t)(a.Stream(p, io.TeeReader(bytes.NewReader(body), pw), int64(len(body)), 1))
	wg.Wait()
}
