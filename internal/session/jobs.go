package session

import (
	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel"
)

// plan is a plan of the queue.
type plan struct{ p *accel.Plan }

// NewPlan implements abi.Host.
func (s *Session) NewPlan(spec *abi.PlanSpec) (abi.Handle, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	var out *accel.Sink
	if spec.Sink != 0 {
		k, err := lookup[*sink](s, spec.Sink, "output")
		if err != nil {
			return 0, err
		}
		out = k.queued
	}
	p, err := s.queue.NewPlan(spec, out)
	if err != nil {
		return 0, s.fail(err)
	}
	return s.newHandle(&plan{p})
}

// JobStream implements abi.Host.
func (s *Session) JobStream(ph, sh abi.Handle, n int64, tag uint64) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	p, err := lookup[*plan](s, ph, "plan")
	if err != nil {
		return 0, err
	}
	l, err := lookup[*layerStream](s, sh, "sequential stream")
	if err != nil {
		return 0, err
	}
	if left := l.bodyLeft(); left >= 0 && (n < 0 || n > left) {
		if n > left {
			return 0, s.fail(abi.Errorf(abi.ErrPlugin, "job of %d bytes, the body has %d left", n, left))
		}
		n = left
	} else if n < 0 {
		return 0, s.fail(abi.Errorf(abi.ErrPlugin, "job without a length on a stream that is not of entries"))
	}
	chunks, err := s.queue.Stream(p.p, l, n, tag)
	return chunks, s.fail(l.because(err))
}

// JobBytes implements abi.Host.
func (s *Session) JobBytes(ph abi.Handle, b []byte, tag uint64) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	p, err := lookup[*plan](s, ph, "plan")
	if err != nil {
		return 0, err
	}
	chunks, err := s.queue.Bytes(p.p, b, tag)
	return chunks, s.fail(err)
}

// JobRange implements abi.Host.
func (s *Session) JobRange(ph, src abi.Handle, r abi.Range, tag uint64) error {
	if err := s.enter(); err != nil {
		return err
	}
	p, err := lookup[*plan](s, ph, "plan")
	if err != nil {
		return err
	}
	at, err := s.randomAccess(src)
	if err != nil {
		return err
	}
	if at.read(int64(max(r.CLen, 0))) {
		s.random.Add(int64(max(r.ULen, 0)) / 2) // decoding may expand: the source is bounded, the claim is checked
	}
	return s.fail(s.queue.Range(p.p, at.At, at.Size, r, tag))
}

// Collect implements abi.Host.
func (s *Session) Collect(buf []byte, min int) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	n, err := s.queue.Collect(buf, min)
	return n, s.fail(err)
}

// ClosePlan implements abi.Host.
func (s *Session) ClosePlan(ph abi.Handle) (abi.PlanInfo, error) {
	if err := s.enter(); err != nil {
		return abi.PlanInfo{}, err
	}
	p, err := lookup[*plan](s, ph, "plan")
	if err != nil {
		return abi.PlanInfo{}, err
	}
	s.forget(ph)
	info, err := s.queue.ClosePlan(p.p)
	return info, s.fail(err)
}

// Sum implements abi.Host.
func (s *Session) Sum(alg abi.Digest, b []byte) ([32]byte, error) {
	if err := s.enter(); err != nil {
		return [32]byte{}, err
	}
	sum, err := accel.Sum(alg, b)
	return sum, s.fail(err)
}

// Encode implements abi.Host.
func (s *Session) Encode(codec abi.Codec, level int, dst, src []byte) ([]byte, error) {
	if err := s.enter(); err != nil {
		return dst, err
	}
	out, err := accel.Encode(codec, level, dst, src)
	return out, s.fail(err)
}

// Decode implements abi.Host.
func (s *Session) Decode(codec abi.Codec, dst, src []byte, size int) ([]byte, error) {
	if err := s.enter(); err != nil {
		return dst, err
	}
	if size < 0 || size > abi.MaxSmallBuffer {
		return dst, s.fail(abi.Errorf(abi.ErrLimit, "buffer of %d bytes is larger than the limit of %d", size, abi.MaxSmallBuffer))
	}
	return accel.Decode(codec, dst, src, size) // a wrong buffer is the plugin's to judge: not sticky
}
