package wasm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/convhost/convhost/abi"
)

// Guest is a plugin ready to be called: an abi.Guest. Every Call runs in an instance of its own, which is discarded
// afterwards; the instance of the next call is made meanwhile.
type Guest struct{ m *Module }

var _ abi.Guest = (*Guest)(nil)

// NewGuest returns a Guest. It does not run anything yet.
func (m *Module) NewGuest(ctx context.Context) (*Guest, error) {
	if err := ctx.Err(); err != nil {
		return nil, abi.Errorf(abi.ClassOf(err), "plugin instance: %w", err)
	}
	return &Guest{m: m}, nil
}

// Close ends the Guest. Instances end with their Call, so there is nothing left to free.
func (g *Guest) Close() error { return nil }

// Call implements abi.Guest.
func (g *Guest) Call(ctx context.Context, op abi.Op, req []byte, host abi.Host) (resp []byte, err error) {
	rt := g.m.rt
	if len(req) > abi.MaxControl {
		return nil, abi.Errorf(abi.ErrLimit, "request of %d bytes, want at most %d", len(req), abi.MaxControl)
	}
	limit := abi.WithLimit(abi.Errorf(abi.ErrTimeout, "plugin ran longer than the limit of %v", rt.cfg.Timeout), abi.LimitPluginTime)
	ctx, cancel := context.WithTimeoutCause(ctx, rt.cfg.Timeout, limit)
	defer cancel()
	c := &call{
		ctx: ctx, rt: rt, host: host, op: op, req: req, quiet: time.Now(),
		mem: &memory{limit: uint64(rt.cfg.MemoryLimit)}, out: output{log: rt.cfg.Log},
	}
	if err := c.canceled(); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil { // the runtime panics when it cannot have the memory that the module starts with
			c.mem.Free()
			err = c.died(fmt.Errorf("%v", p))
		}
	}()
	status, err := c.run(g.m)
	if err != nil {
		return nil, c.died(err)
	}
	switch status {
	case abi.WasmOK:
		return c.resp, nil
	case abi.WasmFailed:
		return nil, c.failure()
	case abi.WasmUnknownOp:
		return nil, abi.Errorf(abi.ErrUnsupported, "plugin does not have the operation %v", op)
	}
	return nil, c.because(abi.Errorf(abi.ErrPlugin, "plugin returned %d from %v, want 0, 1 or 2", status, op))
}

// callKey is the context key of the running *call.
type callKey struct{}

// call is the state of one operation.
type call struct {
	ctx  context.Context
	rt   *Runtime
	host abi.Host
	op   abi.Op
	req  []byte
	mem  *memory
	out  output

	resp     []byte
	failed   bool
	guestErr error // given to fail

	hostErr  error // first error of the host after which the operation cannot succeed
	softErr  error // last error of the host of another kind
	lastErr  error // last error of the host
	failures int   // errors of the host
	logs     int   // messages logged

	used   bool      // called the host
	active bool      // called the host since the last poll
	quiet  time.Time // when it called the host last, as far as polls can tell
	wasi   wasiState
}

// context is what the guest's calls of the host come with.
func (c *call) context() context.Context { return context.WithValue(c.ctx, callKey{}, c) }

// run calls an instance.
func (c *call) run(m *Module) (int32, error) {
	in := m.take()
	if in == nil {
		var err error
		in, err = m.start(c)
		defer in.close()
		if err != nil {
			return 0, err
		}
	} else {
		defer in.close()
		c.mem, c.wasi = in.mem, in.wasi
	}
	if c.untouched() {
		m.prepare()
	}
	stack := []uint64{api.EncodeI32(int32(c.op))}
	if err := in.mod.ExportedFunction(abi.WasmCall).CallWithStack(c.context(), stack); err != nil {
		return 0, err
	}
	if err := c.canceled(); err != nil {
		return 0, &trap{err}
	}
	return api.DecodeI32(stack[0]), nil
}

// trap carries an error of a host function through the guest to Call.
type trap struct{ err error }

func (t *trap) Error() string { return t.err.Error() }
func (t *trap) Unwrap() error { return t.err }

// exit is a plugin's exit.
type exit struct{ code uint32 }

func (e *exit) Error() string { return fmt.Sprintf("exit %d", e.code) }

// canceled returns the error of a call that must end.
func (c *call) canceled() error {
	if c.ctx.Err() == nil {
		return nil
	}
	err := context.Cause(c.ctx)
	if class := abi.ClassOf(err); class == abi.ErrTimeout || class == abi.ErrCanceled {
		return abi.Errorf(class, "%v: %w", c.op, err)
	}
	return abi.Errorf(abi.ClassOf(c.ctx.Err()), "%v: %w", c.op, c.ctx.Err())
}

// poll is what the instrumented guest calls every few milliseconds.
func (c *call) poll() {
	if err := c.canceled(); err != nil {
		panic(&trap{err})
	}
	now := time.Now()
	if c.active {
		c.active, c.quiet = false, now
	} else if quiet := now.Sub(c.quiet); quiet > c.rt.cfg.Stall {
		panic(&trap{abi.WithLimit(abi.Errorf(abi.ErrTimeout, "plugin did not call the host for %v in %v", c.rt.cfg.Stall, c.op), abi.LimitPluginStall)})
	}
}

// died explains why a call did not return.
func (c *call) died(err error) error {
	var t *trap
	var e *exit
	var r runtime.Error
	why := c.out.why()
	switch {
	case errors.As(err, &t):
		return t.err
	case c.mem.over:
		return c.rt.limitError()
	case c.mem.failed != nil:
		return abi.Errorf(abi.ErrLimit, "memory for a plugin: %w", c.mem.failed)
	case errors.As(err, &r):
		return abi.Errorf(abi.ErrInternal, "host call of the plugin in %v: %w", c.op, r)
	case errors.As(err, &e) && why == "":
		return c.because(abi.Errorf(abi.ErrPlugin, "plugin exited with status %d in the middle of %v", e.code, c.op))
	case errors.As(err, &e):
		return c.because(abi.Errorf(abi.ErrPlugin, "plugin exited with status %d in the middle of %v: %s", e.code, c.op, why))
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	text = strings.TrimPrefix(text, "wasm error: ")
	if why != "" {
		text += ": " + why
	}
	return c.because(abi.Errorf(abi.ErrPlugin, "plugin crashed in %v: %s", c.op, text))
}

// failure is the error of a call that returned WasmFailed.
func (c *call) failure() error {
	switch {
	case c.mem.over && c.failed:
		return abi.WithLimit(abi.Errorf(abi.ErrLimit, "%v: %v", c.rt.limitError(), c.guestErr), abi.LimitPluginMemory)
	case c.mem.over:
		return c.rt.limitError()
	case !c.failed:
		return c.because(abi.Errorf(abi.ErrPlugin, "plugin failed in %v without saying why", c.op))
	}
	return c.because(c.guestErr)
}

// because puts the host's error behind a plugin's, when that is why the plugin failed.
func (c *call) because(err error) error {
	cause := c.hostErr
	if cause == nil && c.softErr != nil && abi.ClassOf(c.softErr) == abi.ClassOf(err) {
		cause = c.softErr
	}
	if cause == nil {
		return err
	}
	msg := err.Error()
	if text := cause.Error(); !strings.Contains(msg, text) {
		msg += ": " + text
	}
	return &causedError{msg, cause}
}

// causedError has the plugin's words and the host's error.
type causedError struct {
	msg   string
	cause error
}

func (e *causedError) Error() string { return e.msg }
func (e *causedError) Unwrap() error { return e.cause }
