package native

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/dataplane"
	"github.com/convhost/convhost/internal/session"
)

// Config says which plugin to run and how.
type Config struct {
	Path   string       // the executable
	SHA256 string       // expected digest of the executable, hex, with or without "sha256:"; "" accepts any
	Name   string       // for messages and logs; "": the file's name
	Args   []string     // arguments; usually none
	Env    []string     // the whole environment, "K=V"; nothing is inherited
	Log    *slog.Logger // what the plugin logs and prints; nil: dropped
	// TempDir holds the control socket for the moment of connecting; "": the system's.
	TempDir string
	// StartTimeout is how long a process may take until it answers; 0: 10 seconds.
	StartTimeout time.Duration
	// NoDescriptors sends the bytes of streams over gRPC, as it is always done on Windows.
	NoDescriptors bool
}

// Plugin is one executable and the process that runs it. It is safe for concurrent use.
type Plugin struct {
	cfg Config
	exe *executable

	mu     sync.Mutex
	proc   *process // nil: none running
	closed bool
	lastID uint64
}

// grace is how long a cancelled call may take to end before its process is killed.
const grace = 700 * time.Millisecond

// Start verifies the executable and starts it. Errors: ErrNotFound, ErrDenied or ErrIO for the file, ErrDigest for
// another digest than expected, ErrUnsupported for another major version of the contract or another system's
// executable, ErrPlugin if it does not behave as a plugin, ErrTimeout.
func Start(ctx context.Context, cfg Config) (*Plugin, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = 10 * time.Second
	}
	exe, err := openExecutable(cfg.Path, cfg.SHA256)
	if err != nil {
		return nil, err
	}
	if cfg.Name == "" {
		cfg.Name = exe.name
	}
	p := &Plugin{cfg: cfg, exe: exe}
	if _, err := p.process(ctx); err != nil {
		exe.close()
		return nil, err
	}
	return p, nil
}

// Digest returns the digest of the executable: "sha256:…".
func (p *Plugin) Digest() string { return p.exe.digest }

// Run runs one operation: req and the result are encoded messages. grants may be used until Run returns, and its Pool
// is not used. The error is the plugin's, of its class; where the host's side of a stream failed, errors.Is finds
// that error too. ErrPlugin: the process died, or broke the contract.
func (p *Plugin) Run(ctx context.Context, op abi.Op, req []byte, grants session.Config) ([]byte, error) {
	if len(req) > dataplane.MaxPayload {
		return nil, abi.Errorf(abi.ErrLimit, "request of %d bytes is larger than the limit of %d", len(req), dataplane.MaxPayload)
	}
	if err := contextError(ctx); err != nil {
		return nil, err
	}
	proc, err := p.process(ctx)
	if err != nil {
		return nil, err
	}
	c := proc.newCall(ctx, p.nextID(), op, grants)
	resp, err := proc.invoke(ctx, c, op, req)
	err = c.finish(err)
	if err != nil && proc.doomed() {
		p.drop(proc)
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// Close ends the process. Calls that run fail.
func (p *Plugin) Close() {
	p.mu.Lock()
	proc := p.proc
	closed := p.closed
	p.proc, p.closed = nil, true
	p.mu.Unlock()
	if proc != nil {
		proc.close()
	}
	if !closed {
		p.exe.close()
	}
}

func (p *Plugin) nextID() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastID++
	return p.lastID
}

// process returns the running process, or starts one.
func (p *Plugin) process(ctx context.Context) (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, abi.Errorf(abi.ErrInvalid, "plugin %s was closed", p.cfg.Name)
	}
	if old := p.proc; old != nil {
		if !old.doomed() {
			return old, nil
		}
		p.proc = nil
		old.close()
	}
	proc, err := startProcess(ctx, &p.cfg, p.exe)
	if err != nil {
		return nil, err
	}
	p.proc = proc
	return proc, nil
}

// drop forgets a process that is dead or will be.
func (p *Plugin) drop(proc *process) {
	p.mu.Lock()
	if p.proc == proc {
		p.proc = nil
	}
	p.mu.Unlock()
	proc.close()
}

// contextError returns ctx's error with its class, or nil.
func contextError(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return abi.Errorf(abi.ClassOf(ctx.Err()), "%w", context.Cause(ctx))
}
