package accel

import (
	"math/bits"
	"sync"
)

// Buffers come in powers of two from 64 KiB to 16 MiB, each with room for what a codec adds to incompressible data.
const (
	minClass = 16
	maxClass = 24
)

func classSize(c int) int { return 1<<c + 1<<c>>7 + 1024 }

// classOf returns the smallest class that holds n bytes; more than maxClass if none does.
func classOf(n int) int {
	c := max(minClass, bits.Len(uint(max(n, 1)-1)))
	if c > minClass && n <= classSize(c-1) {
		c--
	}
	return c
}

// bufferCap returns the capacity of the buffer that get(n) returns.
func bufferCap(n int) int {
	if c := classOf(n); c <= maxClass {
		return classSize(c)
	}
	return n
}

// buffers recycles buffers; it retains at most limit bytes.
type buffers struct {
	mu    sync.Mutex
	limit int64
	kept  int64
	free  [maxClass + 1][][]byte
}

// get returns an empty buffer with room for n bytes.
func (s *buffers) get(n int) []byte {
	c := classOf(n)
	if c > maxClass {
		return make([]byte, 0, n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.free[c]; len(l) > 0 {
		b := l[len(l)-1]
		l[len(l)-1] = nil
		s.free[c] = l[:len(l)-1]
		s.kept -= int64(cap(b))
		return b
	}
	return make([]byte, 0, classSize(c))
}

// put takes a buffer back; nil is allowed.
func (s *buffers) put(b []byte) {
	c := classOf(cap(b))
	if b == nil || c > maxClass || cap(b) != classSize(c) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept+int64(cap(b)) > s.limit {
		return
	}
	s.kept += int64(cap(b))
	s.free[c] = append(s.free[c], b[:0])
}
