package native

import (
	"bufio"
	"context"
	"os"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
)

// openSink opens output number index.
func (cl *client) openSink(index int) (session.Sink, error) {
	_, fd, err := cl.request(&abi.DataFrame{Kind: abi.DataOpenSink, Role: abi.RoleSink, Index: index})
	if err != nil {
		return nil, err
	}
	o := output{cl: cl, index: index}
	if fd == nil {
		return &framedOutput{output: o}, nil
	}
	f, err := pollable(fd)
	if err != nil {
		return nil, err
	}
	return &pipeOutput{output: o, f: f, w: bufio.NewWriterSize(f, 256<<10), stop: context.AfterFunc(cl.ctx, func() { f.Close() })}, nil
}

type output struct {
	cl    *client
	index int
}

func (o *output) tell(kind int32, data []byte) error {
	_, err := o.cl.ask(&abi.DataFrame{Kind: kind, Role: abi.RoleSink, Index: o.index, Data: data})
	return err
}

// pipeOutput is an output that the host drains.
type pipeOutput struct {
	output
	f    *os.File
	w    *bufio.Writer
	stop func() bool
}

// Write implements session.Sink.
func (o *pipeOutput) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	return n, o.broken(err)
}

// broken asks the host why the pipe broke.
func (o *pipeOutput) broken(err error) error {
	switch {
	case err == nil:
		return nil
	case o.cl.ctx.Err() != nil:
		return o.cl.ctx.Err()
	}
	if herr := o.tell(abi.DataEnd, nil); herr != nil {
		return herr
	}
	return abi.Errorf(abi.ErrIO, "output %d: %w", o.index, err)
}

// Close implements session.Sink.
func (o *pipeOutput) Close(info abi.StreamInfo) error {
	err := o.broken(o.w.Flush())
	o.stop()
	o.f.Close()
	if err != nil {
		return err
	}
	return o.tell(abi.DataCloseSink, info.Append(nil))
}

// Abort implements session.Sink.
func (o *pipeOutput) Abort() {
	o.stop()
	o.f.Close()
	_ = o.tell(abi.DataAbortSink, nil)
}

// framedOutput is an output whose bytes go in frames.
type framedOutput struct {
	output
	buf []byte
}

// Write implements session.Sink.
func (o *framedOutput) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if o.buf == nil {
			o.buf = make([]byte, 0, min(max(len(p)-n, 64<<10), abi.MaxData))
		}
		k := min(len(p)-n, abi.MaxData-len(o.buf))
		o.buf = append(o.buf, p[n:n+k]...)
		n += k
		if len(o.buf) == abi.MaxData {
			if err := o.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (o *framedOutput) flush() error {
	b := o.buf
	if o.buf = nil; len(b) == 0 { // gRPC may still hold b: never write into it again
		return nil
	}
	return o.tell(abi.DataWrite, b)
}

// Close implements session.Sink.
func (o *framedOutput) Close(info abi.StreamInfo) error {
	if err := o.flush(); err != nil {
		return err
	}
	return o.tell(abi.DataCloseSink, info.Append(nil))
}

// Abort implements session.Sink.
func (o *framedOutput) Abort() { _ = o.tell(abi.DataAbortSink, nil) }
