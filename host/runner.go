package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/native"
	"github.com/convhost/convhost/host/wasm"
	"github.com/convhost/convhost/internal/session"
)

// runner runs operations of one plugin; each runtime has one. It is called from several goroutines.
type runner interface {
	// run returns the plugin's answer after everything it promised was checked: the layer read to its end, all
	// outputs complete.
	run(ctx context.Context, op abi.Op, req []byte, grants session.Config) ([]byte, error)
	digest() string // identity of the code
	close() error
}

// nothing grants nothing: for Describe.
func nothing() session.Config { return session.Config{} }

// carriers opens runners.
type carriers struct {
	cfg     *config
	wasm    *wasm.Runtime
	runners []runner
}

func (c *carriers) open(ctx context.Context, cand candidate) (runner, error) {
	var r runner
	var err error
	switch cand.runtime {
	case RuntimeInProcess:
		b := c.cfg.builtin(cand.name)
		r = &guestRunner{guest: b.InProcess, id: inProcess + cand.name}
	case RuntimeNative:
		r, err = c.openNative(ctx, cand)
	default:
		r, err = c.openWasm(ctx, cand)
	}
	return r, err
}

func (c *carriers) openNative(ctx context.Context, cand candidate) (runner, error) {
	cmd := []string{cand.path}
	if cand.path == "" {
		cmd = c.cfg.builtin(cand.name).Native
	}
	p, err := native.Start(ctx, native.Config{Path: cmd[0], Args: cmd[1:], Name: cand.name, Log: c.cfg.log})
	if err != nil {
		return nil, err
	}
	return nativeRunner{p, c.cfg.limits.PluginTime}, nil
}

func (c *carriers) openWasm(ctx context.Context, cand candidate) (runner, error) {
	file, err := c.module(cand)
	if err != nil {
		return nil, err
	}
	if c.wasm == nil {
		c.wasm, err = wasm.New(ctx, wasm.Config{
			CacheDir: c.cfg.cacheDir, MemoryLimit: c.cfg.limits.PluginMemory,
			Timeout: c.cfg.limits.PluginTime, Stall: c.cfg.limits.PluginStall, Log: c.cfg.log,
		})
		if err != nil {
			return nil, err
		}
	}
	m, err := c.wasm.LoadPacked(ctx, file, unpackModule)
	if err != nil {
		return nil, err
	}
	return &wasmRunner{m}, nil
}

// maxModule bounds a module after decompression.
const maxModule = 64 << 20

// module reads the file of a wasm plugin.
func (c *carriers) module(cand candidate) ([]byte, error) {
	if cand.path == "" {
		return c.cfg.builtin(cand.name).Wasm()
	}
	return readLimited(cand.path)
}

// unpackModule decompresses a module if it is compressed.
func unpackModule(code []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(code, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule))
		if err != nil {
			return nil, abi.Errorf(abi.ErrInternal, "module: %w", err)
		}
		defer z.Close()
		out, err := z.DecodeAll(code, nil)
		if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
			return nil, abi.Errorf(abi.ErrLimit, "module is larger than %d bytes", maxModule)
		} else if err != nil {
			return nil, abi.Errorf(abi.ErrCorrupt, "module: %w", err)
		}
		return out, nil
	case !bytes.HasPrefix(code, []byte("\x1f\x8b")):
		return code, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(code))
	if err != nil {
		return nil, abi.Errorf(abi.ErrCorrupt, "module: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, abi.Errorf(abi.ErrCorrupt, "module: %w", err)
	}
	if len(out) > maxModule {
		return nil, abi.Errorf(abi.ErrLimit, "module is larger than %d bytes", maxModule)
	}
	return out, nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, abi.Errorf(abi.ErrIO, "%w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxModule+1))
	if err != nil {
		return nil, abi.Errorf(abi.ErrIO, "%w", err)
	}
	if len(b) > maxModule {
		return nil, abi.Errorf(abi.ErrLimit, "%s is larger than %d bytes", path, maxModule)
	}
	return b, nil
}

func (c *carriers) close() error {
	var errs []error
	for _, r := range c.runners {
		errs = append(errs, r.close())
	}
	if c.wasm != nil {
		errs = append(errs, c.wasm.Close())
	}
	return errors.Join(errs...)
}

// guestRunner calls a guest in this process.
type guestRunner struct {
	guest abi.Guest
	id    string
}

func (g *guestRunner) digest() string { return g.id }
func (g *guestRunner) close() error   { return nil }

func (g *guestRunner) run(ctx context.Context, op abi.Op, req []byte, grants session.Config) ([]byte, error) {
	return callGuest(ctx, g.guest, op, req, grants)
}

// callGuest runs one operation with a session in this process.
func callGuest(ctx context.Context, g abi.Guest, op abi.Op, req []byte, grants session.Config) (resp []byte, err error) {
	if op == abi.OpDescribe {
		return protect(ctx, g, op, req, session.Denied{})
	}
	s := session.New(ctx, grants)
	defer s.Abort()
	resp, err = protect(ctx, g, op, req, s)
	if cause := s.Err(); err != nil && cause != nil {
		err = cause // what really happened, not what the plugin made of it
	}
	if err == nil {
		err = s.Finish()
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// protect turns a panic of Go code into an error. A fault in memory that the runtime cannot survive still ends the process:
// that is the price of RuntimeInProcess.
func protect(ctx context.Context, g abi.Guest, op abi.Op, req []byte, h abi.Host) (resp []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = abi.Errorf(abi.ErrPlugin, "plugin panicked in %s: %v", op, p)
		}
	}()
	resp, err = g.Call(ctx, op, req, h)
	var c abi.Class
	if err != nil && !errors.As(err, &c) {
		if c = abi.ErrPlugin; ctx.Err() != nil {
			c = abi.ClassOf(ctx.Err())
		}
		err = abi.Errorf(c, "%w", err)
	}
	return resp, err
}

// wasmRunner makes an instance for each operation.
type wasmRunner struct{ m *wasm.Module }

func (w *wasmRunner) digest() string { return w.m.Digest() }
func (w *wasmRunner) close() error   { return nil }

func (w *wasmRunner) run(ctx context.Context, op abi.Op, req []byte, grants session.Config) ([]byte, error) {
	g, err := w.m.NewGuest(ctx)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return callGuest(ctx, g, op, req, grants)
}

// nativeRunner calls a plugin in a process of its own. One that takes too long is killed.
type nativeRunner struct {
	p     *native.Plugin
	limit time.Duration
}

func (n nativeRunner) digest() string { return n.p.Digest() }
func (n nativeRunner) close() error   { n.p.Close(); return nil }
func (n nativeRunner) run(ctx context.Context, op abi.Op, req []byte, grants session.Config) ([]byte, error) {
	if op == abi.OpAttach { // runs as long as it is served; who waits for it has the limit
		return n.p.Run(ctx, op, req, grants)
	}
	limit := abi.WithLimit(abi.Errorf(abi.ErrTimeout, "plugin ran longer than the limit of %v", n.limit), abi.LimitPluginTime)
	ctx, cancel := context.WithTimeoutCause(ctx, n.limit, limit)
	defer cancel()
	return n.p.Run(ctx, op, req, grants)
}
