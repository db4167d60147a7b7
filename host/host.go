package host

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/transport"
	"github.com/convhost/convhost/internal/accel"
)

// Host converts images. Make one with New, and Close it.
type Host struct {
	cfg     config
	pool    *accel.Pool
	plugins *registry
	events  sync.Mutex

	mu       sync.Mutex
	closed   bool
	attached map[string]*serving // by ID
	ops      sync.WaitGroup      // operations that run
	ctx      context.Context
	end      context.CancelFunc // ends them
}

type config struct {
	dirs      []string
	builtins  []Builtin
	cacheDir  string
	workDir   string
	stateDir  string
	jobs      int
	memory    int64
	limits    Limits
	log       *slog.Logger
	onEvent   func(Event)
	transport transport.Options
	dedup     dedup.Store
}

// Option configures a Host.
type Option func(*config)

// WithPluginDir adds a directory that is searched for plugins: NAME.wasm and executables named convhost-plugin-NAME.
// Earlier directories win over later ones, and all of them over built-in plugins.
func WithPluginDir(dirs ...string) Option {
	return func(c *config) { c.dirs = append(c.dirs, dirs...) }
}

// WithBuiltin adds plugins that come with the program.
func WithBuiltin(b ...Builtin) Option {
	return func(c *config) { c.builtins = append(c.builtins, b...) }
}

// WithCacheDir sets where compiled plugins are kept between runs. It holds native code that is executed: nobody else
// may write to it. The default is no cache: each Host compiles anew (about half a second a plugin).
func WithCacheDir(dir string) Option { return func(c *config) { c.cacheDir = dir } }

// WithWorkDir sets where the host keeps blobs while it works, in a directory of its own that it removes. Default: the
// system's temporary directory. What an earlier, killed process left there is removed first.
func WithWorkDir(dir string) Option { return func(c *config) { c.workDir = dir } }

// WithStateDir sets where attachments are written down; without one nothing can be attached. DefaultStateDir is where the
// command has them. Processes that use the same directory see each other's attachments. Nobody else may write to it.
func WithStateDir(dir string) Option { return func(c *config) { c.stateDir = dir } }

// WithJobs sets how many cores the host uses; default GOMAXPROCS.
func WithJobs(n int) Option { return func(c *config) { c.jobs = n } }

// WithLimits replaces the limits that protect the host against its input and its plugins.
func WithLimits(l Limits) Option { return func(c *config) { c.limits = l } }

// WithLogger sets where the host and its plugins log; default nowhere.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.log = l } }

// WithEvents sets a function that is told of progress. It is called by one goroutine at a time and must not block.
func WithEvents(fn func(Event)) Option { return func(c *config) { c.onEvent = fn } }

// WithTransport sets options of registries and archives: credentials, TLS, plain HTTP.
func WithTransport(o transport.Options) Option { return func(c *config) { c.transport = o } }

// New makes a Host. Plugins are looked up when they are first used.
func New(opts ...Option) (*Host, error) {
	c := config{jobs: runtime.GOMAXPROCS(0), limits: DefaultLimits(), log: slog.New(slog.DiscardHandler)}
	for _, o := range opts {
		o(&c)
	}
	c.limits = c.limits.withDefaults()
	if abs, err := filepath.Abs(c.stateDir); err == nil && c.stateDir != "" {
		c.stateDir = abs
	}
	if c.memory == 0 {
		c.memory = c.limits.InFlight
	}
	if c.jobs < 0 {
		return nil, abi.Errorf(abi.ErrInvalid, "%d jobs: want 1 or more, or 0 for the number of cores", c.jobs)
	}
	if c.jobs == 0 {
		c.jobs = runtime.GOMAXPROCS(0)
	}
	if c.transport.TempDir == "" {
		c.transport.TempDir = c.workDir
	}
	h := &Host{cfg: c, pool: accel.NewPool(c.jobs, c.memory)}
	h.ctx, h.end = context.WithCancel(context.Background())
	h.plugins = newRegistry(&h.cfg)
	return h, nil
}

// begin starts an operation, which ends with done or with the host. ErrInvalid after Close.
func (h *Host) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, abi.Errorf(abi.ErrInvalid, "the host is closed")
	}
	h.ops.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(h.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		h.ops.Done()
	}, nil
}

// Close detaches what this host serves, cancels what still runs, waits for it, ends native plugins and frees compiled ones. It may be called again.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	h.mu.Unlock()
	err := h.detachAll()
	h.end()
	h.ops.Wait()
	err = errors.Join(err, h.plugins.close())
	h.pool.Close()
	return err
}

func (h *Host) emit(e Event) {
	if h.cfg.onEvent != nil {
		h.events.Lock()
		defer h.events.Unlock()
		h.cfg.onEvent(e)
	}
}

// Plugins lists the plugins that can be found, by name; of several with one name the one that would be used. Plugins
// that cannot be loaded are listed with their error.
func (h *Host) Plugins(ctx context.Context) []PluginInfo {
	ctx, done, err := h.begin(ctx)
	if err != nil {
		return nil
	}
	defer done()
	return h.plugins.list(ctx)
}

// Plugin tells about one plugin by name or path, and loads it to ask.
func (h *Host) Plugin(ctx context.Context, format string, rt Runtime) (PluginInfo, error) {
	ctx, done, err := h.begin(ctx)
	if err != nil {
		return PluginInfo{}, err
	}
	defer done()
	p, err := h.plugins.get(ctx, format, rt)
	if err != nil {
		return PluginInfo{}, err
	}
	return p.info, nil
}
