package nbd

import (
	"bytes"
	"io"
	"sync"
	"testing"
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
	n := copy(p, m.b[off:])
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

// readOnly hides the memory's writing.
type readOnly struct{ Disk }

// recorded is a connection whose client has said everything already.
type recorded struct {
	in  *bytes.Reader
	mu  sync.Mutex
	out bytes.Buffer
}

func (r *recorded) Read(p []byte) (int, error) { return r.in.Read(p) }
func (r *recorded) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

// talk serves one recorded client and returns what it was told.
func talk(e Export, said []byte) ([]byte, error) {
	r := &recorded{in: bytes.NewReader(said)}
	err := Serve(r, e)
	return r.out.Bytes(), err
}

// said builds what a client says.
type said struct{ b []byte }

func hello(flags uint32) *said { return &said{be.AppendUint32(nil, flags)} }

func (s *said) option(opt uint32, data []byte) *said {
	s.b = be.AppendUint64(s.b, magicOption)
	s.b = be.AppendUint32(s.b, opt)
	s.b = be.AppendUint32(s.b, uint32(len(data)))
	s.b = append(s.b, data...)
	return s
}

func (s *said) request(kind, flags uint16, cookie, off uint64, n uint32, data ...byte) *said {
	s.b = be.AppendUint32(s.b, magicRequest)
	s.b = be.AppendUint16(s.b, flags)
	s.b = be.AppendUint16(s.b, kind)
	s.b = be.AppendUint64(s.b, cookie)
	s.b = be.AppendUint64(s.b, off)
	s.b = be.AppendUint32(s.b, n)
	s.b = append(s.b, data...)
	return s
}

// goData is the data of GO and INFO.
func goData(name string) []byte {
	b := be.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	return be.AppendUint16(b, 0)
}

// heard takes apart what the server said.
type heard struct {
	t *testing.T
	b []byte
}

func (h *heard) take(n int) []byte {
	h.t.Helper()
	if len(h.b) < n {
		h.t.Fatalf("the server said %d bytes less than it should", n-len(h.b))
	}
	p := h.b[:n]
	h.b = h.b[n:]
	return p
}

// answers takes the answers to an option, up to the last one, and returns their types.
func (h *heard) answers(opt uint32) (kinds []uint32, data [][]byte) {
	h.t.Helper()
	for {
		p := h.take(20)
		if be.Uint64(p) != magicAnswer || be.Uint32(p[8:]) != opt {
			h.t.Fatalf("answer % x to option %d", p, opt)
		}
		kind := be.Uint32(p[12:])
		kinds, data = append(kinds, kind), append(data, h.take(int(be.Uint32(p[16:]))))
		if kind != repInfo && kind != repServer {
			return kinds, data
		}
	}
}

// replies takes n replies and returns error numbers and data by cookie. reads says how long the data of a read is.
func (h *heard) replies(n int, reads map[uint64]int) (errno map[uint64]uint32, data map[uint64][]byte) {
	h.t.Helper()
	errno, data = map[uint64]uint32{}, map[uint64][]byte{}
	for range n {
		p := h.take(replySize)
		cookie := be.Uint64(p[8:])
		if be.Uint32(p) != magicReply {
			h.t.Fatalf("reply % x", p)
		}
		if errno[cookie] = be.Uint32(p[4:]); errno[cookie] == 0 {
			data[cookie] = h.take(reads[cookie])
		}
	}
	return errno, data
}
