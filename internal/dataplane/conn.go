package dataplane

import (
	"os"
	"sync"

	"github.com/convhost/convhost/abi"
)

// Conn carries frames. Any error ends it.
type Conn interface {
	// Send sends a frame, with a descriptor if fd is not nil; the caller keeps fd. It may be called from several
	// goroutines.
	Send(f *abi.DataFrame, fd *os.File) error
	// Recv returns the next frame, and the descriptor that came with it, which then belongs to the caller. One
	// goroutine calls it.
	Recv() (*abi.DataFrame, *os.File, error)
	// Descriptors tells whether Send can pass descriptors.
	Descriptors() bool
	// Close ends the Conn; a waiting Recv returns.
	Close() error
}

// msgStream is what both ends of a gRPC stream have.
type msgStream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// streamConn is a Conn over a gRPC stream.
type streamConn struct {
	mu     sync.Mutex // one SendMsg at a time
	s      msgStream
	cancel func()
}

func newStreamConn(s msgStream, cancel func()) *streamConn { return &streamConn{s: s, cancel: cancel} }

func (c *streamConn) Descriptors() bool { return false }

func (c *streamConn) Send(f *abi.DataFrame, fd *os.File) error {
	if fd != nil {
		return abi.Errorf(abi.ErrInternal, "data stream: cannot carry a descriptor")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s.SendMsg(f)
}

func (c *streamConn) Recv() (*abi.DataFrame, *os.File, error) {
	f := new(abi.DataFrame)
	if err := c.s.RecvMsg(f); err != nil {
		return nil, nil, err
	}
	if f.Descriptor {
		return nil, nil, abi.Errorf(abi.ErrPlugin, "data stream: frame claims a descriptor")
	}
	return f, nil, nil
}

func (c *streamConn) Close() error {
	if c.cancel != nil {
		c.cancel()
	}
	return nil
}
