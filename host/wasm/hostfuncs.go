package wasm

import (
	"context"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero/api"

	"github.com/convhost/convhost/abi"
)

const (
	maxFailures = 1000    // errors of the host that a plugin may ignore in one call
	maxLogs     = 1000    // messages in one call
	maxMessage  = 4 << 10 // bytes of a message
	maxError    = 1 << 20 // bytes of an encoded error
)

// hostFunc is one import. Parameters and the result are on the stack; the upper halves of 32-bit ones are garbage.
type hostFunc func(c *call, m guestMemory, s []uint64)

// hostFuncs implements abi.WasmImports.
var hostFuncs = map[string]hostFunc{
	"ctl_read":   func(c *call, m guestMemory, s []uint64) { s[0] = m.give(s[0], s[1], c.req) },
	"ctl_write":  (*call).ctlWrite,
	"fail":       (*call).fail,
	"last_error": (*call).lastError,
	"open": func(c *call, _ guestMemory, s []uint64) {
		h, err := c.host.Open(abi.Role(i32(s[0])), int(i32(s[1])))
		s[0] = c.result(int64(h), err)
	},
	"open_sink": func(c *call, _ guestMemory, s []uint64) {
		h, err := c.host.OpenSink(int(i32(s[0])), abi.SinkFilter(i32(s[1])), int(i32(s[2])))
		s[0] = c.result(int64(h), err)
	},
	"read": func(c *call, m guestMemory, s []uint64) {
		n, err := c.host.Read(handle(s[0]), m.view(s[1], s[2]))
		s[0] = c.result(int64(n), err)
	},
	"read_at": func(c *call, m guestMemory, s []uint64) {
		n, err := c.host.ReadAt(handle(s[0]), m.view(s[1], s[2]), int64(s[3]))
		s[0] = c.result(int64(n), err)
	},
	"size": func(c *call, _ guestMemory, s []uint64) {
		n, err := c.host.Size(handle(s[0]))
		s[0] = c.result(n, err)
	},
	"write": func(c *call, m guestMemory, s []uint64) {
		s[0] = c.result(0, c.host.Write(handle(s[0]), m.small(s[1], s[2])))
	},
	"copy": func(c *call, _ guestMemory, s []uint64) {
		n, err := c.host.Copy(handle(s[0]), handle(s[1]), int64(s[2]), int64(s[3]))
		s[0] = c.result(n, err)
	},
	"info": func(c *call, m guestMemory, s []uint64) {
		out := m.view(s[1], s[2])
		info, err := c.host.Info(handle(s[0]))
		if err == nil {
			copy(out, info.Append(nil))
		}
		s[0] = c.result(0, err)
	},
	"close": func(c *call, m guestMemory, s []uint64) {
		out := m.view(s[1], s[2])
		info, err := c.host.Close(handle(s[0]))
		if err == nil {
			copy(out, info.Append(nil))
		}
		s[0] = c.result(0, err)
	},
	"entries": func(c *call, m guestMemory, s []uint64) {
		n, err := c.host.Entries(handle(s[0]), m.view(s[1], s[2]), handle(s[3]))
		s[0] = c.result(int64(n), err)
	},
	"new_plan": func(c *call, m guestMemory, s []uint64) {
		spec, err := abi.DecodePlanSpec(m.small(s[0], s[1]))
		var h abi.Handle
		if err == nil {
			h, err = c.host.NewPlan(&spec)
		}
		s[0] = c.result(int64(h), err)
	},
	"job_stream": func(c *call, _ guestMemory, s []uint64) {
		n, err := c.host.JobStream(handle(s[0]), handle(s[1]), int64(s[2]), s[3])
		s[0] = c.result(int64(n), err)
	},
	"job_bytes": func(c *call, m guestMemory, s []uint64) {
		n, err := c.host.JobBytes(handle(s[0]), m.small(s[1], s[2]), s[3])
		s[0] = c.result(int64(n), err)
	},
	"job_range": func(c *call, m guestMemory, s []uint64) {
		r, err := abi.DecodeRange(m.small(s[2], s[3]))
		if err == nil {
			err = c.host.JobRange(handle(s[0]), handle(s[1]), r, s[4])
		}
		s[0] = c.result(0, err)
	},
	"collect": func(c *call, m guestMemory, s []uint64) {
		n, err := c.host.Collect(m.view(s[0], s[1]), int(i32(s[2])))
		s[0] = c.result(int64(n), err)
	},
	"close_plan": func(c *call, m guestMemory, s []uint64) {
		out := m.view(s[1], s[2])
		info, err := c.host.ClosePlan(handle(s[0]))
		if err == nil {
			copy(out, info.Append(nil))
		}
		s[0] = c.result(0, err)
	},
	"sum":    (*call).sum,
	"encode": (*call).encode,
	"decode": (*call).decode,
	"log":    (*call).logMessage,
	"progress": func(c *call, _ guestMemory, s []uint64) {
		c.host.Progress(int64(s[0]), int64(s[1]))
		s[0] = 0
	},
}

func i32(v uint64) int32         { return api.DecodeI32(v) }
func handle(v uint64) abi.Handle { return abi.Handle(api.DecodeI32(v)) }

// addHost makes the module of host functions.
func (r *Runtime) addHost(ctx context.Context) error {
	b := r.rt.NewHostModuleBuilder(abi.WasmModule)
	types := func(s string) (out []api.ValueType) {
		for _, c := range s {
			if c == 'i' {
				out = append(out, api.ValueTypeI32)
			} else {
				out = append(out, api.ValueTypeI64)
			}
		}
		return out
	}
	for _, f := range abi.WasmImports {
		fn := hostFuncs[f.Name]
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, s []uint64) {
			c := ctx.Value(callKey{}).(*call)
			c.enter()
			fn(c, guestMemory{mod.Memory()}, s)
		}), types(f.Params), types(f.Result)).Export(f.Name)
	}
	b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, _ api.Module, _ []uint64) {
		ctx.Value(callKey{}).(*call).poll()
	}), nil, nil).Export(abi.WasmPoll)
	_, err := b.Instantiate(ctx)
	return err
}

// enter begins every host function.
func (c *call) enter() {
	c.active, c.used = true, true
	if c.ctx.Err() != nil {
		panic(&trap{c.canceled()})
	}
}

// result encodes what a host function returns, and remembers errors.
func (c *call) result(v int64, err error) uint64 {
	if err == nil {
		return uint64(v)
	}
	class := abi.ClassOf(err)
	c.lastErr = err
	c.failures++
	switch {
	case class == abi.ErrUnsupported || class == abi.ErrNotFound:
		c.softErr = err
	case c.hostErr == nil:
		c.hostErr = err
	}
	if class == abi.ErrCanceled || class == abi.ErrTimeout || c.failures > maxFailures {
		panic(&trap{err})
	}
	return uint64(-int64(class))
}

func (c *call) ctlWrite(m guestMemory, s []uint64) {
	b := m.view(s[0], s[1])
	if len(b) > abi.MaxControl {
		panic(&trap{abi.Errorf(abi.ErrLimit, "response of the plugin has %d bytes, want at most %d", len(b), abi.MaxControl)})
	}
	c.resp = append([]byte(nil), b...)
	s[0] = 0
}

func (c *call) fail(m guestMemory, s []uint64) {
	b := m.view(s[1], s[2])
	if len(b) > maxError {
		panic(&trap{abi.Errorf(abi.ErrPlugin, "error of the plugin has %d bytes, want at most %d", len(b), maxError)})
	}
	c.failed = true
	if len(b) > 0 {
		c.guestErr = abi.UnmarshalError(b)
	} else {
		class := abi.Class(i32(s[0]))
		c.guestErr = (&abi.ErrorDetail{Class: class, Message: fmt.Sprintf("plugin failed in %v: %v", c.op, class)}).Err()
	}
	s[0] = 0
}

func (c *call) lastError(m guestMemory, s []uint64) {
	var b []byte
	if c.lastErr != nil {
		b = abi.MarshalError(c.lastErr)
	}
	s[0] = m.give(s[0], s[1], b)
}

func (c *call) sum(m guestMemory, s []uint64) {
	src, dst := m.small(s[1], s[2]), m.view(s[3], 32)
	sum, err := c.host.Sum(abi.Digest(i32(s[0])), src)
	if err == nil {
		copy(dst, sum[:])
	}
	s[0] = c.result(0, err)
}

func (c *call) encode(m guestMemory, s []uint64) {
	apart(s[2], s[3], s[4], s[5])
	src, dst := m.small(s[2], s[3]), m.view(s[4], s[5])
	out, err := c.host.Encode(abi.Codec(i32(s[0])), int(i32(s[1])), dst[:0], src)
	if err == nil && len(out) <= len(dst) {
		copy(dst, out)
	}
	s[0] = c.result(int64(len(out)), err)
}

func (c *call) decode(m guestMemory, s []uint64) {
	apart(s[1], s[2], s[3], s[4])
	src, dst := m.small(s[1], s[2]), m.small(s[3], s[4])
	out, err := c.host.Decode(abi.Codec(i32(s[0])), dst[:0], src, len(dst))
	copy(dst, out)
	s[0] = c.result(int64(len(out)), err)
}

func (c *call) logMessage(m guestMemory, s []uint64) {
	b := m.view(s[1], s[2])
	if c.logs++; c.logs <= maxLogs {
		c.host.Log(int(i32(s[0])), strings.ToValidUTF8(string(b[:min(len(b), maxMessage)]), "\uFFFD"))
	}
	s[0] = 0
}

// guestMemory is a plugin's memory during one host function. Pointers out of bounds end the plugin.
type guestMemory struct{ api.Memory }

// view returns the bytes at ptr.
func (m guestMemory) view(ptr, n uint64) []byte {
	if m.Memory == nil {
		panic(&trap{abi.Errorf(abi.ErrPlugin, "plugin called the host before it had memory")})
	}
	if api.DecodeU32(n) == 0 {
		return nil
	}
	b, ok := m.Read(api.DecodeU32(ptr), api.DecodeU32(n))
	if !ok {
		panic(&trap{abi.Errorf(abi.ErrPlugin, "plugin passed a pointer out of bounds: %d bytes at 0x%x, its memory has %d bytes",
			api.DecodeU32(n), api.DecodeU32(ptr), m.Size())})
	}
	return b
}

// small is view for buffers that have a limit of their own.
func (m guestMemory) small(ptr, n uint64) []byte {
	if api.DecodeU32(n) > abi.MaxSmallBuffer {
		panic(&trap{abi.Errorf(abi.ErrLimit, "plugin passed a buffer of %d bytes, want at most %d", api.DecodeU32(n), abi.MaxSmallBuffer)})
	}
	return m.view(ptr, n)
}

// give writes b to the buffer at ptr if it fits, and returns its length.
func (m guestMemory) give(ptr, size uint64, b []byte) uint64 {
	if dst := m.view(ptr, size); len(b) <= len(dst) {
		copy(dst, b)
	}
	return uint64(len(b))
}

// apart refuses a source and a destination that overlap.
func apart(src, slen, dst, dlen uint64) {
	a, b := uint64(api.DecodeU32(src)), uint64(api.DecodeU32(dst))
	an, bn := uint64(api.DecodeU32(slen)), uint64(api.DecodeU32(dlen))
	if an > 0 && bn > 0 && a < b+bn && b < a+an {
		panic(&trap{abi.Errorf(abi.ErrPlugin, "plugin passed overlapping buffers: %d bytes at 0x%x and %d bytes at 0x%x", an, a, bn, b)})
	}
}
