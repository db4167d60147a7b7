package blockdev

import (
	"io"
	"sync"
)

// memory is a WritableDisk.
type memory struct {
	mu     sync.RWMutex
	b      []byte
	synced int
	fail   error
}

func (m *memory) Size() int64 { return int64(len(m.b)) }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.fail != nil {
		return 0, m.fail
	}
	n := copy(p, m.b[min(off, int64(len(m.b))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return copy(m.b[off:], p), m.fail
}

func (m *memory) Zero(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.b[off : off+n])
	return m.fail
}

func (m *memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced++
	return m.fail
}
