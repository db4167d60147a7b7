package accel

import (
	"io"

	"github.com/convhost/convhost/abi"
)

const sinkBuffer = 64 << 10

var zeros [32 << 10]byte

// Sink is an output of one queue. Everything that goes to it, from whatever plan or from Write, goes in submission
// order.
type Sink struct {
	q     *Queue
	w     io.Writer
	buf   []byte // small pieces; empty between units
	size  int64
	dirty bool
}

// NewSink registers w, to which the queue's committer goroutine writes from the first job until Close. A write that
// is stuck holds up the queue, and Close: w should end when the queue's context does.
func (q *Queue) NewSink(w io.Writer) *Sink { return &Sink{q: q, w: w} }

// append is the committer's. It writes big pieces at once and collects small ones.
func (s *Sink) append(p []byte) error {
	s.size += int64(len(p))
	if len(s.buf)+len(p) > sinkBuffer {
		if err := s.flush(); err != nil {
			return err
		}
	}
	if len(p) > sinkBuffer/2 {
		if err := s.flush(); err != nil {
			return err
		}
		return s.write(p)
	}
	if s.buf == nil {
		s.buf = make([]byte, 0, sinkBuffer)
	}
	s.buf = append(s.buf, p...)
	return nil
}

// align appends zeros up to a multiple of n and returns how many.
func (s *Sink) align(n int) (int64, error) {
	if n <= 1 || s.size%int64(n) == 0 {
		return 0, nil
	}
	pad := int64(n) - s.size%int64(n)
	for left := pad; left > 0; {
		k := min(left, int64(len(zeros)))
		if err := s.append(zeros[:k]); err != nil {
			return 0, err
		}
		left -= k
	}
	return pad, nil
}

func (s *Sink) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	err := s.write(s.buf)
	s.buf = s.buf[:0]
	return err
}

func (s *Sink) write(p []byte) error {
	n, err := s.w.Write(p)
	if err == nil && n != len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return classed(abi.ErrIO, err, "write %d bytes to a sink", len(p))
	}
	return nil
}
