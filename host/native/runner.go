package native

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/convhost/convhost/abi"
)

// runner is go-plugin's runner.Runner for one subprocess. It differs from go-plugin's own in that the process dies
// with the host, its group is killed as a whole, its exit is known at once even if something it started keeps its
// pipes open, and stderr is ours.
type runner struct {
	cmd   *exec.Cmd
	name  string
	out   *printed
	first *firstLine // stdout
	noise io.ReadCloser

	proc   atomic.Pointer[os.Process] // once it runs
	files  []*os.File                 // our ends of the pipes
	begun  atomic.Bool                // Start was called, or never will be
	stderr chan struct{}
	exited chan struct{}
	state  *os.ProcessState // after exited
	once   sync.Once
}

func newRunner(cmd *exec.Cmd, name string, out *printed) (*runner, error) {
	or, ow, err := os.Pipe()
	if err != nil {
		return nil, abi.Errorf(abi.ErrIO, "plugin %s: %w", name, err)
	}
	er, ew, err := os.Pipe()
	if err != nil {
		or.Close()
		ow.Close()
		return nil, abi.Errorf(abi.ErrIO, "plugin %s: %w", name, err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, ow, ew
	cmd.SysProcAttr = processAttributes()
	return &runner{
		cmd: cmd, name: name, out: out, first: &firstLine{r: or, known: make(chan struct{})}, noise: io.NopCloser(strings.NewReader("")),
		files: []*os.File{or, er}, stderr: make(chan struct{}), exited: make(chan struct{}),
	}, nil
}

// Start implements runner.Runner. The thread that starts the process stays until the process ends: on Linux the
// kernel ties the child's life to it.
func (r *runner) Start(context.Context) error {
	r.begun.Store(true)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := r.cmd.Start()
		r.cmd.Stdout.(*os.File).Close()
		r.cmd.Stderr.(*os.File).Close()
		if err != nil {
			close(r.stderr)
			close(r.exited)
			r.closeFiles()
			started <- err
			return
		}
		r.proc.Store(r.cmd.Process)
		started <- nil
		go func() {
			defer close(r.stderr)
			r.out.read(r.files[1])
		}()
		r.wait()
	}()
	return <-started
}

func (r *runner) wait() {
	_ = r.cmd.Wait()
	r.state = r.cmd.ProcessState
	killGroup(r.cmd.Process.Pid) // what it left behind
	late, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	for _, read := range []chan struct{}{r.stderr, r.first.known} {
		select {
		case <-read:
		case <-late.Done(): // somebody holds the pipe
		}
	}
	close(r.exited)
	r.closeFiles()
}

// discard frees a runner that was never started.
func (r *runner) discard() {
	if r.begun.Swap(true) {
		return
	}
	r.cmd.Stdout.(*os.File).Close()
	r.cmd.Stderr.(*os.File).Close()
	r.closeFiles()
	close(r.stderr)
	close(r.exited)
}

func (r *runner) closeFiles() {
	r.once.Do(func() {
		for _, f := range r.files {
			f.Close()
		}
	})
}

// kill ends the process at once; it may be called at any time.
func (r *runner) kill() {
	proc := r.proc.Load()
	if proc == nil || r.hasExited() { // the number may belong to somebody else by now
		return
	}
	killGroup(proc.Pid)
	_ = proc.Kill()
}

func (r *runner) hasExited() bool {
	select {
	case <-r.exited:
		return true
	default:
		return false
	}
}

// Wait implements runner.AttachedRunner.
func (r *runner) Wait(context.Context) error {
	<-r.exited
	<-r.stderr
	return nil
}

// Kill implements runner.AttachedRunner.
func (r *runner) Kill(context.Context) error {
	r.kill()
	return nil
}

// Stdout implements runner.Runner.
func (r *runner) Stdout() io.ReadCloser { return r.first }

// Stderr implements runner.Runner: go-plugin has nothing to read there.
func (r *runner) Stderr() io.ReadCloser { return r.noise }

// Name implements runner.Runner.
func (r *runner) Name() string { return r.name }

// ID implements runner.AttachedRunner.
func (r *runner) ID() string {
	if proc := r.proc.Load(); proc != nil {
		return strconv.Itoa(proc.Pid)
	}
	return ""
}

// Diagnose implements runner.Runner.
func (r *runner) Diagnose(context.Context) string { return "" }

// PluginToHost implements runner.AddrTranslator.
func (r *runner) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

// HostToPlugin implements runner.AddrTranslator.
func (r *runner) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

// firstLine keeps the first line that passes: go-plugin's handshake.
type firstLine struct {
	r     *os.File
	mu    sync.Mutex
	line  []byte
	done  bool
	known chan struct{} // closed when done, or when no line will come
}

// Read implements io.Reader.
func (f *firstLine) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.done {
		b, _, found := bytes.Cut(p[:n], []byte("\n"))
		f.line = append(f.line, b...)
		if f.done = found || len(f.line) > 4<<10 || err != nil; f.done {
			close(f.known)
		}
	}
	if err != nil {
		err = io.EOF // closed because the process is gone
	}
	return n, err
}

// quote is for an error about what is no handshake.
func (f *firstLine) quote() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.line) == 0 {
		return ""
	}
	return fmt.Sprintf(", but printed %.100q", f.line)
}

// Close implements io.Closer.
func (f *firstLine) Close() error { return f.r.Close() }

// version returns the plugin's protocol version, the second field of the handshake, or -1.
func (f *firstLine) version() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fields := strings.Split(string(f.line), "|"); len(fields) >= 4 {
		if v, err := strconv.Atoi(fields[1]); err == nil {
			return v
		}
	}
	return -1
}
