package layer

import (
	"errors"
	"io"

	"github.com/convhost/convhost/abi"
)

const (
	blockSize  = 512
	bufferSize = 64 << 10
)

// source is a buffered reader that knows its offset. Header blocks are views of the buffer; large body reads pass by it.
type source struct {
	r      io.Reader
	buf    []byte
	lo, hi int
	off    int64 // offset of buf[lo]
	err    error // sticky error of r, io.EOF at the end
}

// fill makes at least one byte available, or returns the sticky error.
func (s *source) fill() error {
	if s.lo < s.hi {
		return nil
	}
	s.lo, s.hi = 0, 0
	return s.more()
}

// more appends to the buffer.
func (s *source) more() error {
	for try := 0; s.err == nil; try++ {
		n, err := s.r.Read(s.buf[s.hi:])
		if n < 0 || n > len(s.buf)-s.hi {
			s.err = abi.Errorf(abi.ErrInternal, "tar: source returned %d bytes for %d", n, len(s.buf)-s.hi)
			break
		}
		s.hi += n
		s.err = err
		if n > 0 {
			return nil
		}
		if try == 100 {
			s.err = io.ErrNoProgress
		}
	}
	return s.err
}

// block returns the next block; it is valid until the next call. At the end it returns what is left with io.EOF.
func (s *source) block() ([]byte, error) {
	if s.hi-s.lo < blockSize {
		s.hi = copy(s.buf, s.buf[s.lo:s.hi])
		s.lo = 0
		for s.hi < blockSize {
			if err := s.more(); err != nil {
				b := s.buf[:s.hi]
				s.off += int64(s.hi)
				s.lo, s.hi = 0, 0
				return b, err
			}
		}
	}
	b := s.buf[s.lo : s.lo+blockSize]
	s.lo += blockSize
	s.off += blockSize
	return b, nil
}

// read reads some bytes.
func (s *source) read(p []byte) (int, error) {
	if s.lo == s.hi && len(p) >= len(s.buf) {
		if s.err != nil {
			return 0, s.err
		}
		n, err := s.r.Read(p)
		if n < 0 || n > len(p) {
			n, err = 0, abi.Errorf(abi.ErrInternal, "tar: source returned %d bytes for %d", n, len(p))
		}
		s.err = err
		s.off += int64(n)
		if n > 0 {
			err = nil
		}
		return n, err
	}
	if err := s.fill(); err != nil {
		return 0, err
	}
	n := copy(p, s.buf[s.lo:s.hi])
	s.lo += n
	s.off += int64(n)
	return n, nil
}

// skip drops up to n bytes and returns how many are missing.
func (s *source) skip(n int64) (missing int64, err error) {
	for n > 0 {
		if err := s.fill(); err != nil {
			return n, err
		}
		k := int(min(n, int64(s.hi-s.lo)))
		s.lo += k
		s.off += int64(k)
		n -= int64(k)
	}
	return 0, nil
}

// sourceError turns an error of the stream below into one of ours: the end is truncation, a classified error passes.
func (r *Reader) sourceError(err error, what, want string) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return &abi.FormatError{Class: abi.ErrTruncated, Format: "tar", Entry: r.entryName(), Off: r.src.off, Field: what, Got: "cut", Want: want}
	}
	var c abi.Class
	if errors.As(err, &c) || abi.ClassOf(err) != abi.ErrInternal {
		return err
	}
	return abi.Errorf(abi.ErrIO, "tar at 0x%x: read %s: %w", r.src.off, what, err)
}
