package accel

import (
	"context"
	"hash"
	"sync"
	"sync/atomic"

	"github.com/convhost/convhost/abi"
)

// Limits bound what one queue keeps. 0 is the default.
type Limits struct {
	Completions int   // uncollected completions, default 4 Mi (each takes 96 bytes); beyond: abi.ErrLimit
	Chunks      int64 // distinct chunks of a plan with dedup, default 16 Mi; beyond: abi.ErrLimit
}

// Queue runs the plans of one plugin operation. It is used from one goroutine; Abort may be called from any.
type Queue struct {
	pool     *Pool
	ctx      context.Context
	lim      Limits
	unhook   func() bool
	acc      account
	cur      *unit // being filled
	order    chan *unit
	finished chan struct{}
	closed   bool

	stop   chan struct{} // closed by the first error
	halted atomic.Bool

	mu      sync.Mutex
	cond    sync.Cond // something below changed
	err     error
	pending int // submitted and not committed units
	done    records

	// The committer's.
	dirty []*Sink
	sum   hash.Hash // of all plans with SharedSum
	recs  []byte
}

const maxUnits = 1024 // submitted units of a queue

// NewQueue returns a queue, which the caller must Close. A cancelled ctx ends all its calls.
func (p *Pool) NewQueue(ctx context.Context, lim Limits) *Queue {
	if lim.Completions <= 0 {
		lim.Completions = 4 << 20
	}
	if lim.Chunks <= 0 {
		lim.Chunks = 16 << 20
	}
	q := &Queue{pool: p, ctx: ctx, lim: lim, order: make(chan *unit, maxUnits),
		finished: make(chan struct{}), stop: make(chan struct{})}
	q.cond.L = &q.mu
	q.unhook = context.AfterFunc(ctx, q.canceled)
	go q.commitLoop()
	return q
}

func (q *Queue) canceled() {
	q.fail(classed(abi.ErrCanceled, q.ctx.Err(), "operation ended by its caller"))
}

// Err returns the error that sticks, or nil.
func (q *Queue) Err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// Abort makes err the queue's error unless it has one. Work in flight is dropped.
func (q *Queue) Abort(err error) {
	if err != nil {
		q.fail(classed(abi.ErrInternal, err, "aborted"))
	}
}

// Close finishes all jobs, or drops them if the queue has failed, and ends the queue's goroutine. It returns the
// queue's error. It may be called more than once.
func (q *Queue) Close() error {
	if q.closed {
		return q.Err()
	}
	q.drain()
	q.closed = true
	if q.cur != nil {
		q.recycle(q.cur)
		q.cur = nil
	}
	close(q.order)
	<-q.finished
	q.unhook()
	return q.Err()
}

// Flush waits until everything that was submitted is written to s, and returns the size of s.
func (q *Queue) Flush(s *Sink) (int64, error) {
	if err := q.ready(); err != nil {
		return 0, err
	}
	if s == nil || s.q != q {
		return 0, q.fail(abi.Errorf(abi.ErrPlugin, "flush: sink of another operation"))
	}
	if err := q.drain(); err != nil {
		return 0, err
	}
	return s.size, nil
}

// fail makes err stick, unless there is one, and returns the one that sticks.
func (q *Queue) fail(err error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
		q.halted.Store(true)
		close(q.stop)
		q.cond.Broadcast()
	}
	return q.err
}

func (q *Queue) stopped() bool { return q.halted.Load() }

// ready returns the error that sticks, if any; also that of a context that was cancelled just now.
func (q *Queue) ready() error {
	if q.closed {
		return abi.Errorf(abi.ErrInternal, "queue is closed")
	}
	if q.ctx.Err() != nil {
		q.canceled()
	}
	if q.stopped() {
		return q.Err()
	}
	return nil
}

// drain submits the open unit and waits until nothing is pending.
func (q *Queue) drain() error {
	if err := q.ready(); err != nil {
		return err
	}
	if err := q.submit(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.err == nil && q.pending > 0 {
		q.cond.Wait()
	}
	return q.err
}

// submit hands the open unit to the workers and the committer.
func (q *Queue) submit() error {
	u := q.cur
	if u == nil || len(u.jobs) == 0 {
		return nil
	}
	q.mu.Lock()
	for q.err == nil && q.pending >= maxUnits {
		q.cond.Wait()
	}
	if q.err != nil {
		q.mu.Unlock()
		return q.Err()
	}
	q.pending++
	q.mu.Unlock()
	q.cur = nil
	select {
	case q.pool.work <- u:
		q.order <- u // has room for maxUnits
		return nil
	case <-q.stop:
		q.recycle(u)
		q.mu.Lock()
		q.pending--
		q.mu.Unlock()
		return q.Err()
	}
}

// room makes the open unit one that has space for in and out bytes.
func (q *Queue) room(in, out int) error {
	if err := q.ready(); err != nil {
		return err
	}
	if q.cur != nil && q.cur.fits(in, out) {
		return nil
	}
	if err := q.submit(); err != nil {
		return err
	}
	inCap, outCap := slabSize, 0
	if in > smallChunk || out > smallChunk {
		inCap = in
	}
	if out > 0 {
		outCap = bufferCap(max(out, min(inCap, slabSize)))
	}
	cost := int64(bufferCap(inCap) + outCap)
	if !q.pool.budget.acquire(&q.acc, cost, q.stop) {
		return q.Err()
	}
	u := q.pool.units.Get().(*unit)
	u.q, u.in, u.outCap, u.cost = q, q.pool.bufs.get(inCap), outCap, cost
	q.cur = u
	return nil
}

// recycle gives back all that u holds.
func (q *Queue) recycle(u *unit) {
	q.pool.bufs.put(u.in)
	q.pool.bufs.put(u.out)
	q.pool.budget.release(&q.acc, u.cost)
	clear(u.jobs)
	clear(u.ranges)
	*u = unit{jobs: u.jobs[:0], ranges: u.ranges[:0], done: u.done}
	q.pool.units.Put(u)
}
