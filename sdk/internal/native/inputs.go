package native

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/convhost/convhost/abi"
)

// openLayer opens the layer's stored bytes.
func (cl *client) openLayer(context.Context) (io.ReadCloser, error) {
	a, fd, err := cl.request(&abi.DataFrame{Kind: abi.DataOpen, Role: abi.RoleLayerStored})
	switch {
	case err != nil:
		return nil, err
	case fd == nil:
		return &framedStream{cl: cl}, nil
	case a.Size >= 0:
		return &fileStream{SectionReader: io.NewSectionReader(fd, a.Offset, a.Size), Closer: fd}, nil
	}
	f, err := pollable(fd)
	if err != nil {
		return nil, err
	}
	return &pipeStream{cl: cl, f: f, stop: context.AfterFunc(cl.ctx, func() { f.Close() })}, nil
}

// fileStream is a layer at rest. It is read by position: the host shares the descriptor's offset.
type fileStream struct {
	*io.SectionReader
	io.Closer
}

// pipeStream is a layer that the host feeds.
type pipeStream struct {
	cl   *client
	f    *os.File
	stop func() bool
}

// Read implements io.Reader. A pipe ends when the layer ends and when the host could not read on, so it asks.
func (s *pipeStream) Read(p []byte) (int, error) {
	n, err := s.f.Read(p)
	switch {
	case errors.Is(err, os.ErrClosed) && s.cl.ctx.Err() != nil:
		err = s.cl.ctx.Err()
	case err == io.EOF:
		if _, aerr := s.cl.ask(&abi.DataFrame{Kind: abi.DataEnd, Role: abi.RoleLayerStored}); aerr != nil {
			err = aerr
		}
	}
	return n, err
}

// Close implements io.Closer.
func (s *pipeStream) Close() error {
	s.stop()
	return s.f.Close()
}

// framedStream is a layer whose bytes come in frames. One request is under way while the last answer is read.
type framedStream struct {
	cl   *client
	data []byte
	err  error
	next chan framed
}

type framed struct {
	data []byte
	err  error
}

// Read implements io.Reader.
func (s *framedStream) Read(p []byte) (int, error) {
	for len(s.data) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.next == nil {
			s.prefetch()
		}
		f := <-s.next
		s.next = nil
		if s.data, s.err = f.data, f.err; s.err == nil {
			s.prefetch()
		}
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}

func (s *framedStream) prefetch() {
	ch := make(chan framed, 1)
	s.next = ch
	go func() {
		a, err := s.cl.ask(&abi.DataFrame{Kind: abi.DataRead, Role: abi.RoleLayerStored, Size: abi.MaxData})
		if err == nil && len(a.Data) == 0 {
			err = io.EOF
		}
		if err != nil {
			ch <- framed{err: err}
			return
		}
		ch <- framed{data: a.Data}
	}()
}

// Close implements io.Closer.
func (s *framedStream) Close() error {
	if s.next != nil {
		<-s.next
		s.next = nil
	}
	s.data, s.err = nil, os.ErrClosed
	return nil
}

// randomStream is a stream with random access, opened when it is first read. It is safe for concurrent use.
type randomStream struct {
	cl    *client
	role  abi.Role
	index int
	size  int64

	once sync.Once
	file io.ReaderAt // nil: read by frames
	err  error
}

// ReadAt implements io.ReaderAt.
func (s *randomStream) ReadAt(p []byte, off int64) (n int, err error) {
	if s.once.Do(s.open); s.err != nil {
		return 0, s.err
	}
	if s.file != nil {
		return s.file.ReadAt(p, off)
	}
	for n < len(p) {
		want := min(len(p)-n, abi.MaxData)
		a, err := s.cl.ask(&abi.DataFrame{Kind: abi.DataReadAt, Role: s.role, Index: s.index, Offset: off + int64(n), Size: int64(want)})
		if err != nil {
			return n, err
		}
		got := copy(p[n:n+want], a.Data)
		if n += got; got < want {
			return n, io.EOF
		}
	}
	return n, nil
}

func (s *randomStream) open() {
	a, fd, err := s.cl.request(&abi.DataFrame{Kind: abi.DataOpenAt, Role: s.role, Index: s.index})
	if s.err = err; err != nil || fd == nil {
		return
	}
	s.file = io.NewSectionReader(fd, a.Offset, a.Size)
	s.cl.mu.Lock()
	s.cl.files = append(s.cl.files, fd)
	s.cl.mu.Unlock()
}
