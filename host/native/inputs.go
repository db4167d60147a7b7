package native

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
)

// input is the layer as the plugin reads it once from start to end.
type input struct {
	mu   sync.Mutex // one request at a time
	r    *closeOnce
	w    *os.File      // the pipe, if there is one
	done chan struct{} // closed when the pump has ended
	err  error         // why, after done
	stop func() bool
}

// openLayer passes the layer's file, or feeds a pipe, or keeps a reader for DataRead.
func (c *call) openLayer(f *abi.DataFrame) {
	l := c.grants.Layer
	if l == nil || f.Role != abi.RoleLayerStored {
		c.reply(f, abi.Errorf(abi.ErrDenied, "%v %d was not granted", f.Role, f.Index))
		return
	}
	in := &input{done: make(chan struct{})}
	c.mu.Lock()
	again := c.layer != nil
	if !again {
		c.layer = in
	}
	c.mu.Unlock()
	if again {
		c.reply(f, abi.Errorf(abi.ErrPlugin, "layer was opened twice"))
		return
	}
	if c.p.data.Descriptors() && c.sendFile(f, l.At, l.Size) {
		return
	}
	r, err := l.Open(c.ctx)
	if err != nil {
		c.reply(f, c.fail(err))
		return
	}
	in.r = &closeOnce{ReadCloser: r}
	file, off, n, isFile := remaining(r)
	switch {
	case !c.p.data.Descriptors():
		// A reader that ignores its context is ended by closing it, a moment later.
		in.stop = context.AfterFunc(c.ctx, func() { time.AfterFunc(grace/2, func() { in.r.Close() }) })
		c.p.answer(f, &abi.DataFrame{}, nil, nil)
	case isFile && c.send(f, file, off, n):
		in.r.Close()
	default:
		c.feed(f, in)
	}
}

// sendFile answers with the descriptor of the file that at reads, if it reads one.
func (c *call) sendFile(f *abi.DataFrame, at any, size int64) bool {
	file, off, n, ok := sectionOf(at)
	if size >= 0 {
		n = min(n, size)
	}
	return ok && c.send(f, file, off, n)
}

// send answers with n bytes of a file from off, unless the plugin must not have the file.
func (c *call) send(f *abi.DataFrame, file *os.File, off, n int64) bool {
	if !passable(file) {
		return false
	}
	c.p.answer(f, &abi.DataFrame{Offset: off, Size: n}, file, nil)
	return true
}

// feed answers with a pipe and pumps the layer into it.
func (c *call) feed(f *abi.DataFrame, in *input) {
	r, w, err := newPipe(true)
	if err != nil {
		in.r.Close()
		c.reply(f, c.fail(err))
		return
	}
	in.w = w
	in.stop = context.AfterFunc(c.ctx, func() {
		w.Close()
		time.AfterFunc(grace/2, func() { in.r.Close() })
	})
	c.wg.Add(1) // the request itself is counted: this is not the first
	go func() {
		defer c.wg.Done()
		in.err = c.fail(in.pump())
		close(in.done)
		w.Close() // after err: the plugin asks when it sees the end
		in.r.Close()
	}()
	c.p.answer(f, &abi.DataFrame{Size: -1}, r, nil)
	r.Close()
}

// pump copies the layer into the pipe and returns the reader's error. A plugin that stops reading is no error here.
func (in *input) pump() error {
	buf := make([]byte, 256<<10)
	for {
		n, err := in.r.Read(buf)
		if n > 0 {
			if _, werr := in.w.Write(buf[:n]); werr != nil {
				return nil
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (in *input) close() {
	if in.stop != nil {
		in.stop()
	}
	if in.r != nil {
		in.r.Close()
	}
}

// ending answers why a pipe has ended: nil if all bytes passed.
func (c *call) ending(f *abi.DataFrame) error {
	if f.Role == abi.RoleSink {
		return c.outputEnding(f)
	}
	c.mu.Lock()
	in := c.layer
	c.mu.Unlock()
	if in == nil || in.w == nil {
		return abi.Errorf(abi.ErrPlugin, "no pipe of the layer is open")
	}
	if err := c.wait(in.done); err != nil {
		return err
	}
	if err := contextError(c.ctx); err != nil {
		return err
	}
	return in.err
}

// readLayer answers with the next bytes of the layer.
func (c *call) readLayer(f *abi.DataFrame) {
	c.mu.Lock()
	in := c.layer
	c.mu.Unlock()
	if in == nil || in.r == nil || in.w != nil || f.Size <= 0 || f.Size > abi.MaxData {
		c.reply(f, abi.Errorf(abi.ErrPlugin, "read of %d bytes of the layer, which is not open for it", f.Size))
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err == nil {
		b := make([]byte, f.Size) // gRPC may keep it after Send
		var n int
		n, in.err = io.ReadFull(in.r, b)
		if in.err != nil && in.err != io.EOF && in.err != io.ErrUnexpectedEOF {
			in.err = c.fail(in.err)
		} else if n > 0 {
			c.p.answer(f, &abi.DataFrame{Data: b[:n]}, nil, nil)
			return
		}
	}
	if in.err == io.EOF || in.err == io.ErrUnexpectedEOF {
		c.p.answer(f, &abi.DataFrame{}, nil, nil)
		return
	}
	c.reply(f, in.err)
}

// part finds a stream with random access.
func (c *call) part(f *abi.DataFrame) (session.Part, error) {
	var list []session.Part
	switch f.Role {
	case abi.RolePart:
		list = c.grants.Parts
	case abi.RoleParent:
		list = c.grants.Parents
	case abi.RoleDict:
		list = c.grants.Dicts
	case abi.RoleLayerStored:
		if l := c.grants.Layer; l != nil && l.At != nil {
			list = []session.Part{{At: l.At, Size: l.Size}}
		}
	}
	if f.Index < 0 || f.Index >= len(list) || list[f.Index].At == nil {
		return session.Part{}, abi.Errorf(abi.ErrDenied, "%v %d was not granted", f.Role, f.Index)
	}
	return list[f.Index], nil
}

func (c *call) openPart(f *abi.DataFrame) {
	part, err := c.part(f)
	if err != nil {
		c.reply(f, err)
		return
	}
	if c.p.data.Descriptors() && c.sendFile(f, part.At, part.Size) {
		return
	}
	c.p.answer(f, &abi.DataFrame{Size: part.Size}, nil, nil)
}

func (c *call) readPart(f *abi.DataFrame) {
	part, err := c.part(f)
	switch {
	case err != nil:
	case f.Size < 0 || f.Size > abi.MaxData || f.Offset < 0 || f.Offset > part.Size:
		err = abi.Errorf(abi.ErrPlugin, "read of %d bytes at %d of a stream of %d", f.Size, f.Offset, part.Size)
	default:
		b := make([]byte, min(f.Size, part.Size-f.Offset))
		var n int
		if n, err = part.At.ReadAt(b, f.Offset); err == io.EOF || n == len(b) {
			c.p.answer(f, &abi.DataFrame{Data: b[:n]}, nil, nil)
			return
		}
		if !c.attach {
			err = c.fail(err)
		}
	}
	c.reply(f, err)
}
