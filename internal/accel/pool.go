package accel

import (
	"runtime"
	"sync"
)

// Pool is a set of workers and a budget of bytes in flight that any number of queues share. It is safe for
// concurrent use. A host makes one.
type Pool struct {
	workers int
	budget  budget
	bufs    buffers
	units   sync.Pool
	work    chan *unit
	wg      sync.WaitGroup
	close   sync.Once
}

// Stats are a pool's figures at one moment.
type Stats struct {
	Workers  int
	InFlight int64 // bytes reserved by units that are being filled, processed or written
	Peak     int64 // the largest InFlight so far
	Budget   int64 // the limit of InFlight, which a queue may exceed by one chunk if it holds nothing else
}

// NewPool starts workers goroutines. workers 0 means one per core, inflight 0 means 8 MiB per worker. One chunk of n
// bytes takes about n bytes of inflight, and n more if it is compressed or decompressed.
func NewPool(workers int, inflight int64) *Pool {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	if inflight <= 0 {
		inflight = int64(workers) * 8 << 20
	}
	p := &Pool{workers: workers, work: make(chan *unit, 4*workers)}
	p.budget.limit = inflight
	p.bufs.limit = inflight
	p.units.New = func() any { return &unit{done: make(chan struct{}, 1)} }
	for range workers {
		p.wg.Go(p.run)
	}
	return p
}

// Close ends the workers. All queues of the pool must have been closed.
func (p *Pool) Close() {
	p.close.Do(func() { close(p.work) })
	p.wg.Wait()
}

// Stats returns the pool's figures.
func (p *Pool) Stats() Stats {
	p.budget.mu.Lock()
	defer p.budget.mu.Unlock()
	return Stats{Workers: p.workers, InFlight: p.budget.used, Peak: p.budget.peak, Budget: p.budget.limit}
}

func (p *Pool) run() {
	var c codecs
	for u := range p.work {
		u.process(&c)
		u.done <- struct{}{}
	}
}
