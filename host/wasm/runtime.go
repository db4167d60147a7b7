package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/internal/private"
	"github.com/convhost/convhost/host/wasm/instrument"
)

// Config configures a Runtime. The zero value is usable.
type Config struct {
	CacheDir    string        // where compiled modules are kept; "": in memory only
	MemoryLimit int64         // most bytes of linear memory of one instance; 0: 256 MiB; at most 4 GiB
	Timeout     time.Duration // most time of one call; 0: one hour
	Stall       time.Duration // most time without a call to the host; 0: 30 s
	Interpreter bool          // do not compile: slow, but without machine code
	Log         *slog.Logger  // output of plugins (debug level); nil: discarded

	// Limits for modules; zero: instrument.DefaultLimits.
	Limits instrument.Limits
}

const (
	pageSize       = 64 << 10
	defaultMemory  = 256 << 20
	maxMemory      = 4 << 30
	defaultTimeout = time.Hour
	defaultStall   = 30 * time.Second
)

// Runtime compiles and runs modules.
type Runtime struct {
	cfg   Config
	rt    wazero.Runtime
	cache wazero.CompilationCache

	mu      sync.Mutex
	modules []*Module // loaded, to be closed with it
}

// New returns a Runtime. Errors: ErrDenied for a cache directory that others could write to, ErrInvalid for a
// configuration out of range, ErrIO.
func New(ctx context.Context, cfg Config) (*Runtime, error) {
	if cfg.MemoryLimit == 0 {
		cfg.MemoryLimit = defaultMemory
	}
	if cfg.MemoryLimit < pageSize || cfg.MemoryLimit > maxMemory {
		return nil, abi.Errorf(abi.ErrInvalid, "memory limit of plugins is %d bytes, want %d to %d", cfg.MemoryLimit, int64(pageSize), int64(maxMemory))
	}
	cfg.MemoryLimit = min(cfg.MemoryLimit&^(pageSize-1), maxMemory-pageSize)
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Stall == 0 {
		cfg.Stall = defaultStall
	}
	if cfg.Timeout < 0 || cfg.Stall < 0 {
		return nil, abi.Errorf(abi.ErrInvalid, "time limits of plugins are %v and %v, want more than 0", cfg.Timeout, cfg.Stall)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if cfg.Limits == (instrument.Limits{}) {
		cfg.Limits = instrument.DefaultLimits()
	}
	cache, err := openCache(cfg.CacheDir)
	if err != nil {
		return nil, err
	}
	rc := wazero.NewRuntimeConfig()
	if cfg.Interpreter {
		rc = wazero.NewRuntimeConfigInterpreter()
	}
	// The allocator enforces the memory limit, because it can tell that it did.
	rc = rc.WithCompilationCache(cache).WithCoreFeatures(api.CoreFeaturesV2).WithDebugInfoEnabled(false).WithMemoryLimitPages(1<<16 - 1)
	r := &Runtime{cfg: cfg, rt: wazero.NewRuntimeWithConfig(ctx, rc), cache: cache}
	if err := errors.Join(r.addHost(ctx), r.addWASI(ctx)); err != nil {
		_ = r.Close()
		return nil, abi.Errorf(abi.ErrInternal, "wasm runtime: %w", err)
	}
	return r, nil
}

// Close frees all modules and instances. No call may be running.
func (r *Runtime) Close() error {
	ctx := context.Background()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.modules {
		m.drop()
	}
	return errors.Join(r.rt.Close(ctx), r.cache.Close(ctx))
}

// openCache creates the directory for compiled code and checks that nobody else can write to it.
func openCache(dir string) (wazero.CompilationCache, error) {
	if dir == "" {
		return wazero.NewCompilationCache(), nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, abi.Errorf(abi.ErrIO, "cache of compiled plugins: %w", err)
	}
	if err := checkPrivate(dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, abi.Errorf(abi.ErrIO, "cache of compiled plugins: %w", err)
	}
	for _, e := range entries {
		if err := checkPrivate(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, abi.Errorf(abi.ErrIO, "cache of compiled plugins: %w", err)
	}
	return cache, nil
}

// checkPrivate refuses a path that somebody else could change.
func checkPrivate(path string) error {
	fi, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a temporary file of another process
	}
	if err != nil {
		return abi.Errorf(abi.ErrIO, "cache of compiled plugins: %w", err)
	}
	if why := private.OthersCanWrite(fi); why != "" {
		return abi.Errorf(abi.ErrDenied, "cache of compiled plugins %s %s; it holds code that this program runs", path, why)
	}
	return nil
}

// limitError says that the memory limit was reached.
func (r *Runtime) limitError() error {
	return abi.WithLimit(abi.Errorf(abi.ErrLimit, "plugin needs more than the memory limit of %s", megabytes(r.cfg.MemoryLimit)), abi.LimitPluginMemory)
}

func megabytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
