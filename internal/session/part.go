package session

import (
	"errors"
	"io"

	"github.com/convhost/convhost/abi"
)

// ReadAt implements abi.Host.
func (s *Session) ReadAt(h abi.Handle, p []byte, off int64) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	at, err := s.randomAccess(h)
	if err != nil {
		return 0, err
	}
	if off < 0 || off > at.Size {
		return 0, s.fail(abi.Errorf(abi.ErrPlugin, "read at %d of a stream of %d bytes", off, at.Size))
	}
	p = p[:min(int64(len(p)), at.Size-off)]
	n, err := at.At.ReadAt(p, off)
	at.read(int64(n))
	if n == len(p) {
		return n, nil
	}
	err = at.readError(err, off+int64(n))
	if s.cfg.Attach && s.ctx.Err() == nil {
		return n, err // the next read may find the network again
	}
	return n, s.fail(err)
}

// randomAccess finds a stream with random access: a part, or the stored layer at rest.
func (s *Session) randomAccess(h abi.Handle) (*part, error) {
	if l, ok := s.handle(h).(*layerStream); ok {
		if l.at == nil {
			return nil, abi.Errorf(abi.ErrUnsupported, "the layer has no random access here")
		}
		return l.at, nil
	}
	return lookup[*part](s, h, "random-access stream")
}

// part is an input with random access, however often it was opened.
type part struct {
	*Part
	s       *Session
	counted int64
}

func (s *Session) part(p *Part) *part {
	if s.parts[p] == nil {
		s.parts[p] = &part{Part: p, s: s}
	}
	return s.parts[p]
}

// readError tells why a read ended at off.
func (p *part) readError(err error, off int64) error {
	var c abi.Class
	switch {
	case err == nil || err == io.EOF:
		return abi.Errorf(abi.ErrTruncated, "input ends at %d, want %d bytes", off, p.Size)
	case errors.As(err, &c):
		return err
	}
	return abi.Errorf(abi.ErrIO, "read input at %d: %w", off, err)
}

// read counts n bytes that were read, up to the size of the input: reading again earns no output. It tells whether
// anything counted.
func (p *part) read(n int64) bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	n = min(n, p.Size-p.counted)
	if n <= 0 {
		return false
	}
	p.counted += n
	p.s.random.Add(n)
	return true
}

// Size implements abi.Host.
func (s *Session) Size(h abi.Handle) (int64, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	at, err := s.randomAccess(h)
	if err != nil {
		return 0, err
	}
	return at.Size, nil
}

// partReader reads a part from an offset to its end.
type partReader struct {
	at  *part
	off int64
}

// Read implements io.Reader.
func (p *partReader) Read(b []byte) (int, error) {
	b = b[:min(int64(len(b)), p.at.Size-p.off)]
	if len(b) == 0 {
		return 0, io.EOF
	}
	n, err := p.at.At.ReadAt(b, p.off)
	p.at.read(int64(n))
	p.off += int64(n)
	if n == len(b) {
		return n, nil
	}
	return n, p.at.readError(err, p.off)
}
