package native

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
)

// call is the host's side of one running operation: it answers the plugin's frames from the grants.
type call struct {
	p      *process
	id     uint64
	ctx    context.Context // ends with the operation
	attach bool            // reads may fail and be tried again
	cancel context.CancelFunc
	grants session.Config
	meter  *meter
	wg     sync.WaitGroup // frames in work, pumps

	mu      sync.Mutex
	ended   bool
	cause   error // first error of the host's side
	layer   *input
	outputs map[int]*output
}

// newCall registers an operation for the frames of the data plane.
func (p *process) newCall(ctx context.Context, id uint64, op abi.Op, grants session.Config) *call {
	c := &call{p: p, id: id, grants: grants, attach: op == abi.OpAttach, outputs: map[int]*output{}}
	c.ctx, c.cancel = context.WithCancel(ctx)
	if c.grants.Limits.Sinks == 0 {
		c.grants.Limits.Sinks = session.DefaultLimits().Sinks
	}
	c.meter = c.newMeter()
	p.mu.Lock()
	p.calls[id] = c
	p.mu.Unlock()
	return c
}

// fail remembers the first error of the host's side; what happens after the end of the operation is no cause of it.
func (c *call) fail(err error) error {
	if err == nil || c.ctx.Err() != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = err
	}
	return err
}

// finish ends the operation: it cuts what is still open, waits, and makes the caller's error of the plugin's and ours.
func (c *call) finish(err error) error {
	c.p.mu.Lock()
	delete(c.p.calls, c.id)
	c.p.mu.Unlock()
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.cancel()
	hung := time.AfterFunc(grace, func() {
		c.p.giveUp(abi.Errorf(abi.ErrPlugin, "plugin %s does not take its answers", c.p.name))
	})
	c.wg.Wait()
	hung.Stop()
	c.meter.close()
	if c.layer != nil {
		c.layer.close()
	}
	for i, o := range c.outputs {
		if !o.closed {
			o.abort()
			if err == nil && c.cause == nil {
				err = abi.Errorf(abi.ErrPlugin, "plugin %s left output %d open", c.p.name, i)
			}
		}
	}
	switch {
	case c.cause == nil:
		return err
	case err == nil: // the plugin looked away
		return c.cause
	case errors.Is(err, c.cause):
		return err
	}
	return &causedError{plugin: err, cause: c.cause}
}

// causedError is a plugin's error that began on the host's side. It reads as the plugin's and is both.
type causedError struct{ plugin, cause error }

func (e *causedError) Error() string   { return e.plugin.Error() }
func (e *causedError) Unwrap() []error { return []error{e.cause, e.plugin} }

// serve receives the plugin's frames until the data plane ends.
func (p *process) serve() {
	defer close(p.served)
	for {
		f, fd, err := p.data.Recv()
		if err != nil {
			if !errors.Is(err, abi.ErrPlugin) && !errors.Is(err, abi.ErrLimit) {
				select { // usually the process is just gone
				case <-p.run.exited:
					return
				case <-time.After(grace):
				}
				err = abi.Errorf(abi.ErrPlugin, "closed its data plane: %w", err)
			}
			p.giveUp(abi.Errorf(abi.ErrPlugin, "plugin %s: %w", p.name, err))
			return
		}
		if fd != nil {
			fd.Close()
			p.giveUp(abi.Errorf(abi.ErrPlugin, "plugin %s sent a descriptor", p.name))
			return
		}
		p.frame(f)
	}
}

// frame works on one frame: what is quick at once, and the rest beside.
func (p *process) frame(f *abi.DataFrame) {
	p.mu.Lock()
	c := p.calls[f.Call]
	p.mu.Unlock()
	if c == nil || !c.begin() {
		p.answer(f, nil, nil, abi.Errorf(abi.ErrPlugin, "call %d does not run", f.Call))
		return
	}
	switch f.Kind {
	case abi.DataLog:
		c.log(slog.Level(f.Size), string(f.Data))
		c.wg.Done()
	case abi.DataProgress:
		if c.grants.Progress != nil {
			c.grants.Progress(f.Offset, f.Size)
		}
		c.wg.Done()
	case abi.DataConsumed:
		if c.grants.Read != nil && f.Size > 0 && f.Size == int64(int(f.Size)) {
			c.grants.Read(int(f.Size))
		}
		c.wg.Done()
	case abi.DataSync:
		p.answer(f, nil, nil, nil)
		c.wg.Done()
	default:
		p.slots <- struct{}{}
		go func() {
			defer func() { <-p.slots; c.wg.Done() }()
			c.serve(f)
		}()
	}
}

// begin counts one more piece of work, unless the call has ended.
func (c *call) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.wg.Add(1)
	return true
}

func (c *call) log(level slog.Level, msg string) {
	if c.grants.Log != nil {
		c.grants.Log.Log(c.ctx, level, msg)
	}
}

// serve answers one request.
func (c *call) serve(f *abi.DataFrame) {
	switch f.Kind {
	case abi.DataOpen:
		c.openLayer(f)
	case abi.DataRead:
		c.readLayer(f)
	case abi.DataEnd:
		c.reply(f, c.ending(f))
	case abi.DataOpenAt:
		c.openPart(f)
	case abi.DataReadAt:
		c.readPart(f)
	case abi.DataOpenSink:
		c.openOutput(f)
	case abi.DataWrite:
		c.reply(f, c.write(f))
	case abi.DataCloseSink:
		c.reply(f, c.closeOutput(f))
	case abi.DataAbortSink:
		c.reply(f, c.abortOutput(f))
	case abi.DataReady:
		c.reply(f, c.ready(f))
	default:
		c.reply(f, abi.Errorf(abi.ErrUnsupported, "frame of unknown kind %d", f.Kind))
	}
}

// ready hands on that an image is attached.
func (c *call) ready(f *abi.DataFrame) error {
	if !c.attach || c.grants.Ready == nil {
		return abi.Errorf(abi.ErrPlugin, "plugin %s says that an image is attached, which it was not asked for", c.p.name)
	}
	resp := new(abi.AttachResponse)
	if err := abi.Unmarshal(f.Data, resp); err != nil {
		return c.fail(err)
	}
	return c.fail(c.grants.Ready(resp))
}

func (c *call) reply(f *abi.DataFrame, err error) { c.p.answer(f, nil, nil, err) }

// answer sends an answer to req, or an error.
func (p *process) answer(req, a *abi.DataFrame, fd *os.File, err error) {
	if req.Seq == 0 {
		return
	}
	if a == nil || err != nil {
		a, fd = &abi.DataFrame{}, nil
	}
	a.Call, a.Seq, a.Kind = req.Call, req.Seq, req.Kind
	if err != nil {
		a.Failed, a.Error = true, abi.DetailOf(err)
	}
	_ = p.data.Send(a, fd) // an error ends serve as well
}

// wait waits for done, or the end of the operation.
func (c *call) wait(done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-c.ctx.Done():
		return contextError(c.ctx)
	}
}

// closeOnce is a ReadCloser that is closed once.
type closeOnce struct {
	io.ReadCloser
	once sync.Once
}

func (r *closeOnce) Close() (err error) {
	r.once.Do(func() { err = r.ReadCloser.Close() })
	return err
}
