package overlaybd

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/convhost/convhost/abi"
)

// spoolMemory is how much of a spool stays in memory.
const spoolMemory = 4 << 20

// scratch is a temporary file that comes into being when something is written to it. It has no name where the system allows
// that, so a killed process leaves nothing.
type scratch struct{ f *os.File }

// ReadAt implements io.ReaderAt.
func (s *scratch) ReadAt(p []byte, off int64) (int, error) {
	if s.f == nil {
		return 0, io.EOF
	}
	n, err := s.f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = abi.Errorf(abi.ErrIO, "read scratch file: %w", err)
	}
	return n, err
}

// WriteAt implements io.WriterAt.
func (s *scratch) WriteAt(p []byte, off int64) (int, error) {
	if s.f == nil {
		f, err := os.CreateTemp("", "convhost-overlaybd-*")
		if err != nil {
			return 0, abi.Errorf(abi.ErrIO, "make scratch file: %w", err)
		}
		_ = os.Remove(f.Name()) // what is open cannot be removed on Windows: close does it
		s.f = f
	}
	n, err := s.f.WriteAt(p, off)
	if err != nil {
		err = abi.Errorf(abi.ErrIO, "write scratch file: %w", err)
	}
	return n, err
}

// close gives the space back.
func (s *scratch) close() {
	if s.f == nil {
		return
	}
	s.f.Close()
	if err := os.Remove(s.f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // the system's own cleaning has it
	}
	s.f = nil
}

// spool keeps what is written to it, in memory as long as it is little.
type spool struct {
	mem  []byte
	file scratch
	size int64
}

// Write implements io.Writer.
func (s *spool) Write(p []byte) (int, error) {
	if s.file.f == nil && s.size+int64(len(p)) <= spoolMemory {
		s.mem = append(s.mem, p...)
		s.size += int64(len(p))
		return len(p), nil
	}
	if s.file.f == nil && len(s.mem) > 0 {
		if _, err := s.file.WriteAt(s.mem, 0); err != nil {
			return 0, err
		}
		s.mem = nil
	}
	n, err := s.file.WriteAt(p, s.size)
	s.size += int64(n)
	return n, err
}

// ReadAt implements io.ReaderAt.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if s.file.f != nil {
		return s.file.ReadAt(p, off)
	}
	if off >= int64(len(s.mem)) {
		return 0, io.EOF
	}
	n := copy(p, s.mem[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *spool) close() { s.file.close() }
