package native

import (
	"os"
	"sync"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/dataplane"
)

// mux lets many operations ask the host over one Conn.
type mux struct {
	c dataplane.Conn

	mu      sync.Mutex
	seq     uint64
	pending map[uint64]chan answer
	cancels map[uint64]func()   // running calls
	early   map[uint64]struct{} // cancelled before they ran
	gone    chan struct{}
}

type answer struct {
	f  *abi.DataFrame
	fd *os.File
}

func newMux(c dataplane.Conn) *mux {
	return &mux{c: c, pending: map[uint64]chan answer{}, cancels: map[uint64]func(){}, early: map[uint64]struct{}{}, gone: make(chan struct{})}
}

// run dispatches what the host sends until the Conn ends.
func (m *mux) run() {
	defer close(m.gone)
	for {
		f, fd, err := m.c.Recv()
		if err != nil {
			return
		}
		if f.Kind == abi.DataCancel {
			m.cancel(f.Call)
			continue
		}
		m.mu.Lock()
		ch := m.pending[f.Seq]
		delete(m.pending, f.Seq)
		m.mu.Unlock()
		if ch != nil {
			ch <- answer{f, fd}
		} else if fd != nil {
			fd.Close()
		}
	}
}

// request sends f and waits for its answer. The host answers every request, also after cancellation.
func (m *mux) request(f *abi.DataFrame) (*abi.DataFrame, *os.File, error) {
	ch := make(chan answer, 1)
	m.mu.Lock()
	m.seq++
	f.Seq = m.seq
	m.pending[f.Seq] = ch
	m.mu.Unlock()
	if err := m.c.Send(f, nil); err != nil {
		return nil, nil, abi.Errorf(abi.ErrIO, "data plane: %w", err)
	}
	select {
	case a := <-ch:
		if a.f.Failed {
			if a.fd != nil {
				a.fd.Close()
			}
			return nil, nil, a.f.Error.Err()
		}
		return a.f, a.fd, nil
	case <-m.gone:
		return nil, nil, abi.Errorf(abi.ErrIO, "data plane: the host is gone")
	}
}

// tell sends f without waiting.
func (m *mux) tell(f *abi.DataFrame) { _ = m.c.Send(f, nil) }

// enter registers a call for cancellation.
func (m *mux) enter(id uint64, cancel func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.early[id]; ok {
		delete(m.early, id)
		cancel()
	}
	m.cancels[id] = cancel
}

func (m *mux) leave(id uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.cancels, id)
}

func (m *mux) cancel(id uint64) {
	m.mu.Lock()
	cancel := m.cancels[id]
	if cancel == nil && len(m.early) < 1024 {
		m.early[id] = struct{}{}
	}
	m.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
