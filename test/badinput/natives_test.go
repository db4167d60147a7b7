package badinput

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

// servePlugin makes this process a native plugin that does one thing when it is asked to convert.
func servePlugin(mode string) { sdk.Main(native(mode)) }

// native is a plugin in a process of its own.
type native string

// Describe implements sdk.Plugin.
func (native) Describe() abi.Description {
	return abi.Description{Name: "evil", Version: "1", Input: abi.RoleLayerStored}
}

// ConvertLayer implements sdk.Plugin.
func (n native) ConvertLayer(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	sink, err := l.OpenSink(0, abi.FilterNone, 0)
	if err != nil {
		return nil, err
	}
	stream, err := l.Open(abi.RoleLayerStored, 0)
	if err != nil {
		return nil, err
	}
	switch n {
	case "kill":
		self, _ := os.FindProcess(os.Getpid())
		_ = self.Signal(syscall.SIGKILL)
		select {}
	case "exit":
		os.Exit(0)
	case "fault":
		os.Stderr.WriteString("about to fall\n")
		var p *native
		go func() { _ = *p }() // not in the goroutine that the sdk protects
		select {}
	case "panic":
		panic("out of ideas")
	case "loop":
		for i := 0; ; i++ {
			runtime.KeepAlive(i)
		}
	case "flood":
		for err == nil {
			err = l.Write(sink, make([]byte, 1<<20))
		}
		return nil, err
	}
	if _, err := l.Copy(sink, stream, -1, -1); err != nil {
		return nil, err
	}
	if n == "open" {
		return &abi.ConvertResponse{Parts: []abi.Part{{MediaType: "application/x-evil"}}}, nil
	}
	if _, err := l.Close(sink); err != nil {
		return nil, err
	}
	part := abi.Part{MediaType: "application/x-evil"}
	if n == "lie" {
		part.Digest, part.Size = notSuch.String(), 5
	}
	return &abi.ConvertResponse{Parts: []abi.Part{part}}, nil
}

// program makes a native plugin of this test's program.
func program(mode string, class abi.Class, says ...string) func(*world) {
	return func(w *world) {
		w.image(goodLayer(w.Store))
		w.fails(class, says...)
		exe, err := os.Executable()
		w.must(err)
		w.format = "./convhost-plugin-" + mode
		if runtime.GOOS == "windows" {
			w.format += ".exe"
		}
		path := filepath.Join(w.dir, w.format)
		if os.Link(exe, path) == nil {
			return
		}
		from, err := os.Open(exe)
		w.must(err)
		defer from.Close()
		to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
		w.must(err)
		_, err = io.Copy(to, from)
		w.must(err)
		w.must(to.Close())
	}
}

// script makes a native plugin of a shell script.
func script(text string, class abi.Class, says ...string) func(*world) {
	return func(w *world) {
		if runtime.GOOS == "windows" {
			w.t.Skip("there are no shell scripts on windows")
		}
		w.image(goodLayer(w.Store))
		w.fails(class, says...)
		w.format = "./convhost-plugin-script"
		w.file(w.format, 0o755, []byte(text))
	}
}

// natives are the cases of native plugins.
var natives = []bad{
	{"nothing: a native plugin that copies the layer (works)", program("good", 0)},
	{"a plugin that is killed halfway", program("kill", abi.ErrPlugin, "killed")},
	{"exit with status 0 halfway", program("exit", abi.ErrPlugin, "exit status 0")},
	{"a crash", program("fault", abi.ErrPlugin, "nil pointer")},
	{"a panic", program("panic", abi.ErrPlugin, "out of ideas")},
	{"an endless loop, with `--limit-time=500ms`", func(w *world) {
		w.limits.PluginTime = 500 * time.Millisecond
		program("loop", abi.ErrTimeout, "500ms")(w)
	}},
	{"a flood of output", program("flood", abi.ErrLimit, "67108")},
	{"a digest that its output does not have", program("lie", abi.ErrPlugin, "output 0", notSuch.String())},
	{"an output that it leaves open", program("open", abi.ErrPlugin, "left output 0 open")},
	{"a file that is no program", script("just text", abi.ErrUnsupported, "not a program for this system")},
	{"a program that is no plugin", script("#!/bin/sh\necho hello\n", abi.ErrPlugin, "hello")},
	{"a program that fails at once", script("#!/bin/sh\necho no licence found >&2\nexit 3\n", abi.ErrPlugin, "no licence found")},
	{"a plugin for version 2 of the contract", script("#!/bin/sh\necho '1|2|unix|/nowhere|grpc|'\nsleep 5\n", abi.ErrUnsupported, "version 2", "version 1")},
	{"an interpreter that is not there", script("#!/no/such/interpreter\n", abi.ErrUnsupported, "interpreter")},
}
