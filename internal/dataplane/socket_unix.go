//go:build unix

package dataplane

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/convhost/convhost/abi"
)

// On the socket a frame is its length (u32, little endian) and the message. A descriptor belongs to the frame with whose
// first byte it arrives; a stream socket keeps that order, so descriptors queue up as frames do.
const maxFrame = abi.MaxData + 64<<10

// socketConn is a Conn over one end of a socket pair.
type socketConn struct {
	mu  sync.Mutex // one frame at a time
	c   *net.UnixConn
	in  []byte // received, not yet used
	fds []int
	buf []byte
	oob []byte
}

// SocketPair returns a Conn and the other end of it, which a child process may inherit. The caller closes both.
func SocketPair() (Conn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, abi.Errorf(abi.ErrIO, "data socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "data socket"), os.NewFile(uintptr(fds[1]), "data socket")
	c, err := NewSocket(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}

// NewSocket makes a Conn of a socket and closes f.
func NewSocket(f *os.File) (Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, abi.Errorf(abi.ErrIO, "data socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, abi.Errorf(abi.ErrInvalid, "data socket: descriptor is a %s socket, want unix", c.LocalAddr().Network())
	}
	return &socketConn{c: u, buf: make([]byte, 64<<10), oob: make([]byte, unix.CmsgSpace(8*4))}, nil
}

func (s *socketConn) Descriptors() bool { return true }

func (s *socketConn) Close() error { return s.c.Close() }

func (s *socketConn) Send(f *abi.DataFrame, fd *os.File) error {
	f.Descriptor = fd != nil
	msg := abi.Marshal(f)
	b := append(binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(msg)), uint32(len(msg))), msg...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if fd != nil {
		raw, err := fd.SyscallConn()
		if err != nil {
			return err
		}
		// Control keeps fd open meanwhile and leaves its blocking mode alone, unlike Fd.
		if cerr := raw.Control(func(n uintptr) {
			var sent int
			sent, _, err = s.c.WriteMsgUnix(b, unix.UnixRights(int(n)), nil)
			b = b[sent:]
		}); err == nil {
			err = cerr
		}
		if err != nil || len(b) == 0 {
			return err
		}
	}
	_, err := s.c.Write(b)
	return err
}

func (s *socketConn) Recv() (*abi.DataFrame, *os.File, error) {
	for {
		if len(s.in) >= 4 {
			n := int64(binary.LittleEndian.Uint32(s.in))
			if n > maxFrame {
				return nil, nil, s.broken(abi.Errorf(abi.ErrPlugin, "data socket: frame of %d bytes, want at most %d", n, maxFrame))
			}
			if int64(len(s.in)) >= 4+n {
				f, fd, err := s.frame(s.in[4 : 4+n])
				s.in = s.in[4+n:]
				return f, fd, err
			}
		}
		if err := s.fill(); err != nil {
			return nil, nil, s.broken(err)
		}
	}
}

func (s *socketConn) frame(b []byte) (*abi.DataFrame, *os.File, error) {
	f := new(abi.DataFrame)
	if err := abi.Unmarshal(b, f); err != nil {
		return nil, nil, s.broken(err)
	}
	if !f.Descriptor {
		return f, nil, nil
	}
	if len(s.fds) == 0 {
		return nil, nil, s.broken(abi.Errorf(abi.ErrPlugin, "data socket: frame claims a descriptor that did not come"))
	}
	fd := os.NewFile(uintptr(s.fds[0]), "stream")
	s.fds = s.fds[1:]
	return f, fd, nil
}

// fill receives more bytes, and descriptors.
func (s *socketConn) fill() error {
	n, oobn, flags, _, err := s.c.ReadMsgUnix(s.buf, s.oob)
	if oobn > 0 {
		if perr := s.rights(s.oob[:oobn]); perr != nil {
			return perr
		}
	}
	switch {
	case errors.Is(err, io.EOF) && len(s.in) > 0:
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	case flags&unix.MSG_CTRUNC != 0 || len(s.fds) > 64:
		return abi.Errorf(abi.ErrPlugin, "data socket: too many descriptors at once")
	case n == 0:
		return io.EOF
	}
	s.in = append(s.in, s.buf[:n]...)
	return nil
}

func (s *socketConn) rights(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	for i := range msgs {
		fds, ferr := unix.ParseUnixRights(&msgs[i])
		s.fds = append(s.fds, fds...)
		err = errors.Join(err, ferr)
	}
	return err
}

// broken closes descriptors that nobody will ask for any more.
func (s *socketConn) broken(err error) error {
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	s.fds = nil
	return err
}
