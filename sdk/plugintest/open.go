package plugintest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/native"
	"github.com/convhost/convhost/host/wasm"
	"github.com/convhost/convhost/internal/session"
)

// Opener starts a plugin for the time of a test. Use [Wasm], [Native] or [InProcess].
type Opener func(ctx context.Context) (plugin, error)

// plugin is one that runs. Its methods can be called from several goroutines.
type plugin interface {
	call(ctx context.Context, how conditions, op abi.Op, req []byte, grants session.Config) answer
	close() error
}

// conditions are what must not matter to a plugin.
type conditions struct {
	workers int  // cores of the host; 0: 2
	morsels bool // every call of the host gives as little as it may
}

// answer is what an operation came to.
type answer struct {
	resp    []byte
	err     error
	ignored error // of a call to the host, after which the plugin answered all the same
}

// InProcess tests a Go value, usually sdk.InProcess(plugin).
func InProcess(g abi.Guest) Opener {
	return func(context.Context) (plugin, error) {
		return &guests{get: func(context.Context) (abi.Guest, error) { return g, nil }, end: func() error { return nil }}, nil
	}
}

// Wasm tests a WebAssembly module in the sandbox.
func Wasm(path string) Opener {
	return func(ctx context.Context) (plugin, error) {
		code, err := os.ReadFile(path)
		if err != nil {
			return nil, abi.Errorf(abi.ErrNotFound, "%w", err)
		}
		rt, err := wasm.New(ctx, wasm.Config{})
		if err != nil {
			return nil, err
		}
		m, err := rt.Load(ctx, code)
		if err != nil {
			_ = rt.Close()
			return nil, err
		}
		return &guests{get: func(ctx context.Context) (abi.Guest, error) { return m.NewGuest(ctx) }, end: rt.Close}, nil
	}
}

// Native tests an executable, in a process of its own.
func Native(path string, args ...string) Opener {
	return func(context.Context) (plugin, error) {
		return &processes{cfg: native.Config{Path: path, Args: args}}, nil
	}
}

// guests are plugins behind abi.Guest: the host's half of every call is in this process.
type guests struct {
	get func(context.Context) (abi.Guest, error)
	end func() error
}

func (g *guests) close() error { return g.end() }

func (g *guests) call(ctx context.Context, how conditions, op abi.Op, req []byte, grants session.Config) (a answer) {
	guest, err := g.get(ctx)
	if err != nil {
		return answer{err: err}
	}
	if op == abi.OpDescribe {
		a.resp, a.err = protect(ctx, guest, op, req, session.Denied{})
		return a
	}
	if how.morsels {
		grants.Batch = 1 // one entry
	}
	s := session.New(ctx, grants)
	defer s.Abort()
	var h abi.Host = s
	if how.morsels {
		h = &morsels{Host: s}
	}
	a.resp, a.err = protect(ctx, guest, op, req, h)
	if cause := s.Err(); cause != nil {
		if a.err == nil {
			a.ignored = cause
		}
		a.err = cause
	}
	if a.err == nil {
		a.err = s.Finish()
	}
	return a
}

func protect(ctx context.Context, g abi.Guest, op abi.Op, req []byte, h abi.Host) (resp []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = abi.Errorf(abi.ErrPlugin, "plugin panicked in %s: %v", op, p)
		}
	}()
	return g.Call(ctx, op, req, h)
}

// processes are runs of one executable: it works on its own cores, so their number is set in its environment.
type processes struct {
	cfg     native.Config
	mu      sync.Mutex
	running map[int]*native.Plugin
}

func (p *processes) start(ctx context.Context, workers int) (*native.Plugin, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.running[workers]; r != nil {
		return r, nil
	}
	cfg := p.cfg
	if workers > 0 {
		cfg.Env = []string{"GOMAXPROCS=" + strconv.Itoa(workers)}
	}
	r, err := native.Start(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Path, err)
	}
	if p.running == nil {
		p.running = map[int]*native.Plugin{}
	}
	p.running[workers] = r
	return r, nil
}

func (p *processes) close() error {
	for _, r := range p.running {
		r.Close()
	}
	return nil
}

func (p *processes) call(ctx context.Context, how conditions, op abi.Op, req []byte, grants session.Config) (a answer) {
	if how.morsels {
		return answer{err: notApplicable("a native plugin brings its own half of the host")}
	}
	r, err := p.start(ctx, how.workers)
	if err != nil {
		return answer{err: err}
	}
	a.resp, a.err = r.Run(ctx, op, req, grants)
	return a
}

// morsels is a host that gives as little in one call as the contract allows.
type morsels struct{ abi.Host }

// Read implements abi.Host: pieces of odd sizes.
func (m *morsels) Read(h abi.Handle, p []byte) (int, error) {
	return m.Host.Read(h, p[:min(len(p), 1021)])
}

// Collect implements abi.Host: one record a call.
func (m *morsels) Collect(buf []byte, min int) (int, error) {
	if len(buf) > abi.CompletionSize {
		buf = buf[:abi.CompletionSize]
	}
	return m.Host.Collect(buf, min)
}
