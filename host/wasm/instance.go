package wasm

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
)

// instance is a module with a memory of its own, initialized. It serves one call.
type instance struct {
	mod  api.Module
	mem  *memory
	wasi wasiState
}

func (in *instance) close() {
	if in.mod != nil {
		_ = in.mod.Close(context.Background())
	}
	in.mem.Free()
}

// start makes an instance and initializes it for c. It returns one to be closed even if it fails.
func (m *Module) start(c *call) (*instance, error) {
	in := &instance{mem: c.mem}
	mod, err := m.rt.rt.InstantiateModule(experimental.WithMemoryAllocator(c.context(), c.mem), m.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return in, err
	}
	in.mod = mod
	err = mod.ExportedFunction(abi.WasmInitialize).CallWithStack(c.context(), nil)
	in.wasi = c.wasi
	return in, err
}

// untouched reports whether nobody saw anything of the guest yet.
func (c *call) untouched() bool { return !c.used && len(c.out.tail) == 0 }

// spare is the instance for the next call of a module. It is made while a call runs: all instances begin alike, since the
// clock and the random numbers of each are the same.
type spare struct {
	mu     sync.Mutex
	ready  *instance
	cancel context.CancelFunc // ends the making of one; nil if none is made
	closed bool
	making sync.WaitGroup
}

// take returns the spare instance, or nil.
func (m *Module) take() *instance {
	s := &m.spare
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.ready
	s.ready = nil
	return in
}

// prepare has a spare instance made if there is none. It is for modules of which one instance was initialized without the host:
// then all are.
func (m *Module) prepare() {
	s := &m.spare
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ready != nil || s.cancel != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), m.rt.cfg.Stall)
	s.cancel = cancel
	s.making.Go(func() {
		in := m.tryStart(&call{
			ctx: ctx, rt: m.rt, host: session.Denied{}, quiet: time.Now(),
			mem: &memory{limit: uint64(m.rt.cfg.MemoryLimit)}, out: output{log: slog.New(slog.DiscardHandler)},
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		cancel()
		s.ready, s.cancel = in, nil
	})
}

// tryStart is start for an instance that waits for its call; nil if it fails, which is for a call to see.
func (m *Module) tryStart(c *call) (in *instance) {
	defer func() {
		if recover() != nil { // the memory that the module starts with is not to be had
			c.mem.Free()
			in = nil
		}
	}()
	in, err := m.start(c)
	if err != nil || !c.untouched() {
		in.close()
		return nil
	}
	return in
}

// drop ends the spare instance, and that any more are made.
func (m *Module) drop() {
	s := &m.spare
	s.mu.Lock()
	s.closed = true
	if s.cancel != nil {
		s.cancel()
	}
	s.mu.Unlock()
	s.making.Wait()
	if in := m.take(); in != nil {
		in.close()
	}
}
