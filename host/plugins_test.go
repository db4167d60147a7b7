package host

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/sdk"
)

const nydusModule = "../cmd/convhost/plugins/nydus.wasm.zst"

// nativeCopy puts this program, which serves the format "copy" when a host starts it, into dir.
func nativeCopy(t testing.TB, dir, name string) string {
	t.Helper()
	exe := must(os.Executable())(t)
	dst := filepath.Join(dir, name)
	if runtime.GOOS == "windows" {
		dst += ".exe"
	}
	if os.Link(exe, dst) == nil {
		return dst
	}
	in := must(os.Open(exe))(t)
	defer in.Close()
	out := must(os.OpenFile(dst, os.O_CREATE|os.O_WRONLY, 0o755))(t)
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return dst
}

func writeFile(t testing.TB, p, body string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(p, []byte(body), mode); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDiscovery: earlier directories win over later ones, and all over what is built in; within one the sandbox.
func TestDiscovery(t *testing.T) {
	first, second, third := t.TempDir(), t.TempDir(), t.TempDir()
	nativeCopy(t, second, "convhost-plugin-copy")
	broken := writeFile(t, filepath.Join(third, "copy.wasm"), "\x00asm\x01\x00\x00\x00\x01", 0o644)
	writeFile(t, filepath.Join(first, "README.txt"), "no plugin", 0o644)
	writeFile(t, filepath.Join(first, "Bad Name.wasm"), "no plugin", 0o644)
	writeFile(t, filepath.Join(first, "convhost-plugin-"), "no plugin", 0o755)
	if err := os.Mkdir(filepath.Join(first, "convhost-plugin-folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		dirs    []string
		rt      Runtime
		want    Runtime
		builtin bool
		class   abi.Class
	}{
		{"built in only", []string{first}, "", RuntimeInProcess, true, 0},
		{"missing directory", []string{filepath.Join(first, "absent")}, "", RuntimeInProcess, true, 0},
		{"directory wins", []string{first, second}, "", RuntimeNative, false, 0},
		{"the runtime decides", []string{second}, RuntimeInProcess, RuntimeInProcess, true, 0},
		{"earlier directory wins", []string{second, third}, "", RuntimeNative, false, 0},
		{"a broken one is not passed over", []string{third, second}, "", "", false, abi.ErrCorrupt},
		{"the runtime passes over it", []string{third, second}, RuntimeNative, RuntimeNative, false, 0},
		{"no such runtime", []string{second}, RuntimeWasm, "", false, abi.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnv(t, []sdk.Plugin{&copier{}}, WithPluginDir(c.dirs...))
			info, err := e.Plugin(t.Context(), "copy", c.rt)
			if c.class != 0 {
				want(t, err, c.class)
				return
			}
			e.ok(err)
			same(t, "runtime, name, built in", []any{info.Runtime, info.Name, info.Path == ""}, []any{c.want, "copy", c.builtin})
		})
	}
	t.Run("list", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{}, &copier{name: "zeta"}, &copier{name: "alpha"}}, WithPluginDir(third))
		for range 2 {
			var got []string
			for _, p := range e.Plugins(t.Context()) {
				line := p.Name
				if p.Err != nil {
					line += "!"
				}
				got = append(got, line)
			}
			same(t, "plugins", got, "[alpha copy! zeta]")
		}
		_, err := e.Plugin(t.Context(), broken, "")
		want(t, err, abi.ErrCorrupt)
	})
	t.Run("a broken one does not hide the others", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{name: "other"}}, WithPluginDir(third))
		s := graphtest.NewStore()
		src := e.source(s, s.Image(threeLayers(s)))
		e.convert(src, "other", e.ref("out"))
		rs, err := e.Verify(t.Context(), VerifyRequest{Source: src, Converted: e.ref("out")})
		e.ok(err)
		same(t, "verified", len(rs), 1)
	})
}

// TestPathPlugins: a file can be named directly, whatever it is called.
func TestPathPlugins(t *testing.T) {
	dir := t.TempDir()
	exe := nativeCopy(t, dir, "anything")
	text := writeFile(t, filepath.Join(dir, "text"), "hello", 0o644)
	for name, c := range map[string]struct {
		path  string
		rt    Runtime
		class abi.Class
	}{
		"text":               {text, "", abi.ErrCorrupt},
		"empty":              {writeFile(t, filepath.Join(dir, "empty.wasm"), "", 0o644), "", abi.ErrCorrupt},
		"broken compression": {writeFile(t, filepath.Join(dir, "z.wasm"), "\x28\xb5\x2f\xfdxxxx", 0o644), "", abi.ErrCorrupt},
		"wrong runtime":      {exe, RuntimeInProcess, abi.ErrInvalid},
		"program as module":  {exe, RuntimeWasm, abi.ErrCorrupt},
		"module as program":  {nydusModule, RuntimeNative, abi.ErrInvalid},
		"absent":             {filepath.Join(dir, "absent"), "", abi.ErrNotFound},
		"a folder":           {dir + "/", "", abi.ErrIO},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, nil)
			_, err := e.Plugin(t.Context(), c.path, c.rt)
			want(t, err, c.class)
			if !strings.Contains(err.Error(), filepath.Base(c.path)) {
				t.Errorf("%v does not name the file", err)
			}
		})
	}
	t.Run("native", func(t *testing.T) {
		e := newEnv(t, nil)
		s := graphtest.NewStore()
		src := e.source(s, s.Image(threeLayers(s)))
		e.convert(src, exe, e.ref("out"))
		_, err := e.Verify(t.Context(), VerifyRequest{Source: src, Converted: e.ref("out"), Format: exe, Runtime: RuntimeNative})
		e.ok(err)
	})
	t.Run("file and name differ in a plugin directory", func(t *testing.T) {
		d := t.TempDir()
		nativeCopy(t, d, "convhost-plugin-other")
		e := newEnv(t, nil, WithPluginDir(d))
		_, err := e.Plugin(t.Context(), "other", "")
		want(t, err, abi.ErrPlugin)
	})
}

// TestRuntimesAgree: the same bytes, whatever carries the plugin.
func TestRuntimesAgree(t *testing.T) {
	exe := must(os.Executable())(t)
	e := newEnv(t, nil, WithCacheDir(t.TempDir()), WithBuiltin(Builtin{Name: "nydus", InProcess: sdk.InProcess(nydus.New()),
		Native: []string{exe, "nydus"}, Wasm: func() ([]byte, error) { return os.ReadFile(nydusModule) }}))
	var roots []digest.Digest
	for _, rt := range []Runtime{"", RuntimeWasm, RuntimeNative, RuntimeInProcess} {
		dest := e.ref("out-" + string(rt))
		rs, err := e.Convert(t.Context(), ConvertRequest{Source: demo, Targets: []Target{{Format: "nydus", Dest: dest, Runtime: rt}}, Verify: true})
		e.ok(err)
		roots = append(roots, rs[0].Root.Digest)
		if rt == "" {
			same(t, "default", rs[0].Plugin.Runtime, RuntimeWasm)
		}
		_, err = e.Verify(t.Context(), VerifyRequest{Source: demo, Converted: dest, Runtime: rt})
		e.ok(err)
		cs, err := e.Check(t.Context(), CheckRequest{Image: dest, Runtime: rt, Deep: true})
		e.ok(err)
		for _, c := range cs {
			same(t, "problems", len(c.Problems), 0)
		}
	}
	for _, r := range roots {
		same(t, "root", r, roots[0])
	}
}

// TestDescriptions: a plugin that does not say what the contract asks for is refused.
func TestDescriptions(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *abi.Description)
		class  abi.Class
	}{
		"version":      {func(d *abi.Description) { d.Major = 2 }, abi.ErrUnsupported},
		"name":         {func(d *abi.Description) { d.Name = "Copy it" }, abi.ErrPlugin},
		"another name": {func(d *abi.Description) { d.Name = "other" }, abi.ErrPlugin},
		"operations":   {func(d *abi.Description) { d.Ops = nil }, abi.ErrUnsupported},
		"input":        {func(d *abi.Description) { d.Input = abi.RoleSink }, abi.ErrPlugin},
		"feature":      {func(d *abi.Description) { d.Needs = []string{"teleportation"} }, abi.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, nil, WithBuiltin(Builtin{Name: "copy", InProcess: guestFunc(func() ([]byte, error) {
				d := abi.Description{Name: "copy", Major: abi.Major, Ops: []abi.Op{abi.OpConvertLayer}, Input: abi.RoleLayerTar}
				c.change(&d)
				return abi.Marshal(&d), nil
			})}))
			_, err := e.Plugin(t.Context(), "copy", "")
			want(t, err, c.class)
		})
	}
	for name, answer := range map[string]guestFunc{
		"garbage": func() ([]byte, error) { return []byte{0xff}, nil },
		"panic":   func() ([]byte, error) { panic("oops") },
		"eof":     func() ([]byte, error) { return nil, io.EOF },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, nil, WithBuiltin(Builtin{Name: "copy", InProcess: answer}))
			_, err := e.Plugin(t.Context(), "copy", "")
			want(t, err, abi.ErrPlugin)
		})
	}
}

type guestFunc func() ([]byte, error)

func (g guestFunc) Call(context.Context, abi.Op, []byte, abi.Host) ([]byte, error) { return g() }

// TestLoading: who waits for a plugin can give up; a plugin is loaded once; a failure is tried again when it is asked for.
func TestLoading(t *testing.T) {
	var calls atomic.Int32
	gate := make(chan struct{})
	d := abi.Description{Name: "copy", Major: abi.Major, Ops: []abi.Op{abi.OpConvertLayer}, Input: abi.RoleLayerTar}
	e := newEnv(t, nil, WithBuiltin(Builtin{Name: "copy", InProcess: guestFunc(func() ([]byte, error) {
		<-gate
		if calls.Add(1) == 1 {
			return nil, abi.Errorf(abi.ErrIO, "not today")
		}
		return abi.Marshal(&d), nil
	})}))
	first := make(chan error, 1)
	go func() {
		_, err := e.Plugin(t.Context(), "copy", "")
		first <- err
	}()
	time.Sleep(10 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := e.Plugin(ctx, "copy", "")
	want(t, err, abi.ErrTimeout)
	close(gate)
	want(t, <-first, abi.ErrIO)
	for range 3 {
		_, err := e.Plugin(t.Context(), "copy", "")
		e.ok(err)
	}
	same(t, "calls", calls.Load(), 2)
}
