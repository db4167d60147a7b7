package native

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"os"
	"sync"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
)

// output is one sink as it fills. The host counts and digests what really arrives.
type output struct {
	mu     sync.Mutex // one request at a time
	meter  *meter
	sink   session.Sink
	sum    hash.Hash // nil if the sink digests what it takes
	size   int64
	r      *os.File      // the pipe, if there is one
	done   chan struct{} // closed when it was drained
	err    error         // of the sink or the plugin; after done if there is a pipe
	closed bool          // Close or Abort was called
	stop   func() bool
}

// drainTimeout is how long the rest of an output may take to arrive after the plugin has closed it.
const drainTimeout = 2 * time.Second

func (c *call) openOutput(f *abi.DataFrame) {
	o := &output{meter: c.meter, done: make(chan struct{})}
	o.mu.Lock()
	defer o.mu.Unlock()
	c.mu.Lock()
	_, again := c.outputs[f.Index]
	var err error
	switch {
	case c.grants.OpenSink == nil || f.Index < 0:
		err = abi.Errorf(abi.ErrDenied, "output %d was not granted", f.Index)
	case f.Index >= c.grants.Limits.Sinks:
		err = abi.Errorf(abi.ErrLimit, "output %d: an operation may have %d", f.Index, c.grants.Limits.Sinks)
	case again:
		err = abi.Errorf(abi.ErrPlugin, "output %d was opened twice", f.Index)
	default:
		o.closed = true // until there is a sink
		c.outputs[f.Index] = o
	}
	c.mu.Unlock()
	if err != nil {
		c.reply(f, err)
		return
	}
	sink, err := c.grants.OpenSink(f.Index)
	if err != nil {
		c.reply(f, c.fail(err))
		return
	}
	o.sink, o.closed = sink, false
	if _, ok := sink.(session.Summer); !ok {
		o.sum = sha256.New()
	}
	if !c.p.data.Descriptors() {
		c.p.answer(f, &abi.DataFrame{}, nil, nil)
		return
	}
	r, w, err := newPipe(false)
	if err != nil {
		c.reply(f, c.fail(err))
		return
	}
	o.r = r
	o.stop = context.AfterFunc(c.ctx, func() { r.Close() })
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		o.err = c.fail(o.drain())
		close(o.done)
		r.Close() // a plugin that still writes notices
	}()
	c.p.answer(f, &abi.DataFrame{}, w, nil)
	w.Close()
}

// drain moves the pipe into the sink and returns the sink's error.
func (o *output) drain() error {
	buf := make([]byte, 256<<10)
	for {
		n, err := o.r.Read(buf)
		if n > 0 {
			if werr := o.take(buf[:n]); werr != nil {
				return werr
			}
		}
		switch {
		case err == io.EOF || errors.Is(err, os.ErrClosed): // closed here: the operation has ended
			return nil
		case err != nil:
			return abi.Errorf(abi.ErrIO, "output pipe: %w", err)
		}
	}
}

func (o *output) take(b []byte) error {
	if err := o.meter.take(len(b)); err != nil {
		return err
	}
	n, err := o.sink.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if o.sum != nil {
		o.sum.Write(b)
	}
	o.size += int64(len(b))
	return err
}

// digest returns that of everything that arrived.
func (o *output) digest() (d [32]byte) {
	if o.sum == nil {
		return o.sink.(session.Summer).Sum()
	}
	o.sum.Sum(d[:0])
	return d
}

func (o *output) abort() {
	if o.stop != nil {
		o.stop()
	}
	if o.r != nil {
		o.r.Close()
	}
	o.closed = true
	o.sink.Abort()
}

// output finds an open output and locks it.
func (c *call) output(f *abi.DataFrame) (*output, error) {
	c.mu.Lock()
	o := c.outputs[f.Index]
	c.mu.Unlock()
	if o == nil {
		return nil, abi.Errorf(abi.ErrPlugin, "output %d is not open", f.Index)
	}
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil, abi.Errorf(abi.ErrPlugin, "output %d was closed", f.Index)
	}
	return o, nil
}

// write appends the data of a frame.
func (c *call) write(f *abi.DataFrame) error {
	o, err := c.output(f)
	if err != nil {
		return err
	}
	defer o.mu.Unlock()
	switch {
	case o.r != nil:
		return abi.Errorf(abi.ErrPlugin, "output %d has a pipe", f.Index)
	case o.err == nil:
		o.err = c.fail(o.take(f.Data))
	}
	return o.err
}

// outputEnding answers why the pipe of an output broke.
func (c *call) outputEnding(f *abi.DataFrame) error {
	o, err := c.output(f)
	if err != nil {
		return err
	}
	defer o.mu.Unlock()
	if o.r == nil {
		return o.err
	}
	if err := c.wait(o.done); err != nil {
		return err
	}
	return o.err
}

// closeOutput completes an output if the plugin wrote what it says.
func (c *call) closeOutput(f *abi.DataFrame) error {
	o, err := c.output(f)
	if err != nil {
		return err
	}
	defer o.mu.Unlock()
	if len(f.Data) < abi.StreamInfoSize {
		return abi.Errorf(abi.ErrPlugin, "output %d: %d bytes of totals, want %d", f.Index, len(f.Data), abi.StreamInfoSize)
	}
	var info abi.StreamInfo
	info.Decode(f.Data)
	if err := c.drained(o, f.Index); err != nil {
		return err
	}
	err = o.err
	if got := o.digest(); err == nil && (info.Size != o.size || info.SHA256 != got) {
		err = c.fail(abi.Errorf(abi.ErrPlugin, "plugin %s says that output %d has %d bytes with digest sha256:%x, but wrote %d with sha256:%x",
			c.p.name, f.Index, info.Size, info.SHA256, o.size, got))
	}
	if err == nil {
		err = c.fail(o.sink.Close(info))
	}
	if err != nil {
		o.abort()
		return err
	}
	o.closed = true
	o.end()
	return nil
}

// drained waits for the end of o's pipe.
func (c *call) drained(o *output, index int) error {
	if o.r == nil {
		return nil
	}
	late := time.NewTimer(drainTimeout)
	defer late.Stop()
	select {
	case <-o.done:
		return contextError(c.ctx)
	case <-c.ctx.Done():
		return contextError(c.ctx)
	case <-late.C:
		return c.fail(abi.Errorf(abi.ErrPlugin, "plugin %s closed output %d but keeps its pipe open", c.p.name, index))
	}
}

// end gives up what only an open output needs.
func (o *output) end() {
	if o.stop != nil {
		o.stop()
	}
}

func (c *call) abortOutput(f *abi.DataFrame) error {
	o, err := c.output(f)
	if err != nil {
		return nil // it failed before, or was never there
	}
	defer o.mu.Unlock()
	if o.r != nil {
		o.r.Close()
		<-o.done
	}
	o.abort()
	return nil
}
