package accel

import "sync"

// budget limits the bytes in flight of all queues of a pool. Waiters are served in the order they came, except that
// an account that holds nothing is served at once.
type budget struct {
	mu      sync.Mutex
	limit   int64
	used    int64
	peak    int64
	waiters []*waiter
}

// account is one queue's share; guarded by budget.mu.
type account struct{ held int64 }

type waiter struct {
	acc   *account
	n     int64
	ready chan struct{}
}

// acquire reserves n bytes. It returns false if stop was closed first.
func (b *budget) acquire(acc *account, n int64, stop <-chan struct{}) bool {
	b.mu.Lock()
	if acc.held == 0 || len(b.waiters) == 0 && b.used+n <= b.limit {
		b.grant(acc, n)
		b.mu.Unlock()
		return true
	}
	w := &waiter{acc: acc, n: n, ready: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()
	select {
	case <-w.ready:
		return true
	case <-stop:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, x := range b.waiters {
		if x == w {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.serve()
			return false
		}
	}
	b.giveBack(acc, n) // it was granted meanwhile
	return false
}

// release returns n bytes and serves those who can go on.
func (b *budget) release(acc *account, n int64) {
	b.mu.Lock()
	b.giveBack(acc, n)
	b.mu.Unlock()
}

func (b *budget) grant(acc *account, n int64) {
	acc.held += n
	b.used += n
	b.peak = max(b.peak, b.used)
}

func (b *budget) giveBack(acc *account, n int64) {
	acc.held -= n
	b.used -= n
	b.serve()
}

func (b *budget) serve() {
	left, blocked := b.waiters[:0], false
	for _, w := range b.waiters {
		blocked = blocked || b.used+w.n > b.limit
		if blocked && w.acc.held > 0 {
			left = append(left, w)
			continue
		}
		b.grant(w.acc, w.n)
		close(w.ready)
	}
	clear(b.waiters[len(left):])
	b.waiters = left
}
