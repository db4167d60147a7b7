package native

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	gorunner "github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas/lockfile"
	"github.com/convhost/convhost/internal/dataplane"
)

// process is one running subprocess with its two connections.
type process struct {
	name    string
	log     *slog.Logger
	client  *plugin.Client
	cc      *grpc.ClientConn
	run     *runner
	out     *printed
	data    dataplane.Conn
	scratch *lockfile.Scratch // of the control socket
	slots   chan struct{}     // frames in work
	served  chan struct{}     // closed when data has ended
	once    sync.Once

	mu    sync.Mutex
	calls map[uint64]*call
	fault error // why the process was given up
}

// maxFrames is how many requests of one plugin are worked on at a time; more wait on its socket.
const maxFrames = 64

// startProcess starts exe and connects. On an error nothing is left.
func startProcess(ctx context.Context, cfg *Config, exe *executable) (*process, error) {
	temp, err := socketDir(cfg.TempDir)
	if err != nil {
		return nil, err
	}
	scratch, err := lockfile.NewScratch(temp, socketPrefix)
	if err != nil {
		return nil, err
	}
	log := cfg.Log.With("plugin", cfg.Name)
	p := &process{
		name: cfg.Name, log: log, out: &printed{log: log}, scratch: scratch,
		slots: make(chan struct{}, maxFrames), served: make(chan struct{}), calls: map[uint64]*call{},
	}
	theirs, err := p.openSocket(cfg)
	if err == nil {
		cmd := exec.Command(exe.path, cfg.Args...)
		cmd.Args[0] = cfg.Path
		p.run, err = newRunner(cmd, cfg.Name, p.out)
	}
	if err == nil {
		p.client = plugin.NewClient(p.clientConfig(cfg, theirs))
		err = p.connect(ctx, cfg)
	}
	if theirs != nil {
		theirs.Close()
	}
	if p.data == nil || p.run == nil {
		close(p.served)
	} else {
		go p.serve()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

const (
	socketPrefix = "convhost-socket-"
	// maxSocketDir is what the path of a Unix socket (104 bytes on some systems, with its end) leaves for the directory of
	// the scratch directory, whose name ends in 12 random characters; go-plugin names the socket plugin and a number.
	maxSocketDir = 103 - len("/"+socketPrefix+"123456789012"+"/plugin4294967295")
)

// socketDir returns where the control socket can be: in temp ("": the system's directory for temporary files), or in
// /tmp if the path would be too long.
func socketDir(temp string) (string, error) {
	if temp == "" {
		temp = os.TempDir()
	}
	if len(temp) <= maxSocketDir || runtime.GOOS == "windows" {
		return temp, nil
	}
	if _, err := os.Stat("/tmp"); err != nil {
		return "", abi.Errorf(abi.ErrInvalid, "temporary directory %s has %d bytes, a native plugin's socket needs one of at most %d", temp, len(temp), maxSocketDir)
	}
	return "/tmp", nil
}

// openSocket makes the data socket if descriptors can be passed, and returns the plugin's end of it.
func (p *process) openSocket(cfg *Config) (theirs *os.File, err error) {
	if cfg.NoDescriptors {
		return nil, nil
	}
	p.data, theirs, err = dataplane.SocketPair()
	if errors.Is(err, abi.ErrUnsupported) {
		return nil, nil
	}
	return theirs, err
}

func (p *process) clientConfig(cfg *Config, socket *os.File) *plugin.ClientConfig {
	return &plugin.ClientConfig{
		HandshakeConfig:  dataplane.Handshake,
		Plugins:          plugin.PluginSet{dataplane.PluginName: hostPlugin{}},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     cfg.StartTimeout,
		Logger:           hclog.NewNullLogger(),
		SyncStdout:       p.out,
		SyncStderr:       p.out,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: p.scratch.Dir},
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithIdleTimeout(0), // a second connection could not be made
			grpc.WithInitialWindowSize(dataplane.Window), grpc.WithInitialConnWindowSize(dataplane.ConnWindow),
			grpc.WithReadBufferSize(dataplane.Buffer), grpc.WithWriteBufferSize(dataplane.Buffer),
		},
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, _ string) (gorunner.Runner, error) {
			cmd := p.run.cmd
			// Short: the path of a unix socket has some 100 bytes. The last setting of a variable counts.
			cmd.Env = append(append(append([]string{}, cfg.Env...), spec.Env...), plugin.EnvUnixSocketDir+"="+p.scratch.Dir)
			if socket != nil {
				cmd.ExtraFiles = []*os.File{socket}
				cmd.Env = append(cmd.Env, dataplane.EnvDataFD+"=3")
			}
			return p.run, nil
		},
	}
}

// connect starts the process, shakes hands and opens the data plane.
func (p *process) connect(ctx context.Context, cfg *Config) error {
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.StartTimeout,
		abi.Errorf(abi.ErrTimeout, "plugin %s did not answer within %v", p.name, cfg.StartTimeout))
	defer cancel()
	// go-plugin's own calls know no context.
	stop := context.AfterFunc(ctx, p.run.kill)
	defer stop()
	err := p.dispense()
	if err == nil && p.data == nil {
		// The stream lives as long as the process.
		p.data, err = dataplane.OpenData(context.WithoutCancel(ctx), p.cc)
	}
	if err != nil || !stop() {
		return p.startError(ctx, err)
	}
	p.scratch.Remove() // nobody connects again
	return nil
}

func (p *process) dispense() error {
	if _, err := p.client.Start(); err != nil {
		return err
	}
	c, err := p.client.Client()
	if err != nil {
		return err
	}
	raw, err := c.Dispense(dataplane.PluginName)
	if err != nil {
		return err
	}
	p.cc = raw.(*grpc.ClientConn)
	return c.Ping()
}

// startError says what kept the plugin from starting.
func (p *process) startError(ctx context.Context, err error) error {
	if cerr := contextError(ctx); cerr != nil {
		return abi.Errorf(abi.ClassOf(cerr), "start plugin %s: %w", p.name, cerr)
	}
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return abi.Errorf(abi.ErrUnsupported, "start plugin %s: not a program for this system: %w", p.name, syscall.ENOEXEC)
	case errors.Is(err, syscall.ENOENT): // the program itself is there
		return abi.Errorf(abi.ErrUnsupported, "start plugin %s: the interpreter or loader that it names does not exist on this system", p.name)
	case p.run.proc.Load() == nil:
		return abi.Errorf(abi.ErrIO, "start plugin %s: %w", p.name, err)
	}
	if v := p.run.first.version(); v >= 0 && v != abi.Major {
		return abi.Errorf(abi.ErrUnsupported, "plugin %s is made for version %d of the plugin contract, this host has version %d", p.name, v, abi.Major)
	}
	p.run.kill()
	<-p.run.exited
	if v := p.run.first.version(); v < 0 {
		return abi.Errorf(abi.ErrPlugin, "start plugin %s: it did not introduce itself as a plugin%s%s", p.name, p.run.first.quote(), p.lastWords())
	}
	text := strings.TrimSpace(strings.SplitN(err.Error(), "\n", 2)[0])
	return abi.Errorf(abi.ErrPlugin, "start plugin %s: %s%s", p.name, text, p.lastWords())
}

// hostPlugin gives go-plugin's connection to this package.
type hostPlugin struct{ plugin.NetRPCUnsupportedPlugin }

// GRPCServer is for plugins only.
func (hostPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return abi.Errorf(abi.ErrInternal, "a host has no server")
}

// GRPCClient returns the connection itself.
func (hostPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, cc *grpc.ClientConn) (any, error) {
	return cc, nil
}

// doomed tells whether the process is dead or was given up.
func (p *process) doomed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault != nil || p.run.hasExited()
}

// giveUp kills the process; why is the first reason that was found.
func (p *process) giveUp(why error) {
	p.mu.Lock()
	if p.fault == nil {
		p.fault = why
	}
	p.mu.Unlock()
	p.run.kill()
}

// lastWords quotes what the process printed at its end, for an error message.
func (p *process) lastWords() string {
	if w := p.out.words(); w != "" {
		return "; it printed: " + w
	}
	return ""
}

// close ends the process: politely if it listens, and for certain. It returns when nothing of it is left.
func (p *process) close() {
	p.once.Do(func() {
		if p.client != nil {
			p.mu.Lock()
			lost := p.fault != nil
			p.mu.Unlock()
			p.run.discard()
			if lost {
				p.run.kill()
				<-p.run.exited
			}
			timer := time.AfterFunc(2*time.Second, p.run.kill)
			p.client.Kill()
			timer.Stop()
			p.run.kill()
		}
		if p.data != nil {
			p.data.Close()
		}
		p.scratch.Remove()
	})
	<-p.served
}
