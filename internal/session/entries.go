package session

import (
	"io"

	"github.com/convhost/convhost/abi"
)

// batchBytes ends a batch of entries early, so that the plugin works while the host reads on.
const batchBytes = 64 << 10

// Entries implements abi.Host.
func (s *Session) Entries(h abi.Handle, buf []byte, ph abi.Handle) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	l, err := lookup[*layerStream](s, h, "stream of entries")
	if err != nil {
		return 0, err
	}
	if l.tar == nil {
		return 0, s.fail(abi.Errorf(abi.ErrPlugin, "handle %d is not a stream of entries", h))
	}
	var p *plan
	if ph != 0 {
		if p, err = lookup[*plan](s, ph, "plan"); err != nil {
			return 0, err
		}
	}
	out := buf[:0]
	for len(out) < s.cfg.Batch {
		if err := l.next(); err == io.EOF {
			break
		} else if err != nil {
			return 0, s.fail(err)
		}
		if n := l.entry.RecordSize(); n > len(buf)-len(out) {
			if len(out) == 0 {
				return 0, s.fail(abi.Errorf(abi.ErrLimit, "entry %q needs a record of %d bytes, the buffer has %d", l.entry.Path, n, len(buf)))
			}
			l.pending = true
			break
		}
		if err := l.submit(p); err != nil {
			return 0, s.fail(err)
		}
		out = l.entry.Append(out)
		if l.left > 0 {
			break // manual: the body comes first
		}
	}
	return len(out), nil
}

// next reads one entry into l.entry, unless that is one that did not fit.
func (l *layerStream) next() error {
	if l.pending {
		l.pending = false
		return nil
	}
	if l.ended {
		return io.EOF
	}
	if err := l.tar.Next(&l.entry); err == io.EOF {
		if _, err := l.tar.Drain(); err != nil {
			return err
		}
		l.ended, l.left = true, 0
		return io.EOF
	} else if err != nil {
		return err
	}
	l.left = l.entry.Size
	l.s.raw.Add(512)
	return nil
}

// submit sends the body of l.entry to the plan, in automatic mode.
func (l *layerStream) submit(p *plan) error {
	if p == nil || l.left == 0 {
		return nil
	}
	n, err := l.s.queue.Stream(p.p, l, l.left, l.entry.Seq)
	l.entry.Chunks = uint32(n)
	return l.because(err)
}
