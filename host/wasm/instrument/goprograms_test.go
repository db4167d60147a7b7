package instrument

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/convhost/convhost/abi"
)

// goCommand is the go command of a version in dir.
func goCommand(version, dir string, args ...string) *exec.Cmd {
	if version == runtime.Version() {
		version = "local"
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0", "GOTOOLCHAIN="+version)
	return cmd
}

// goModuleDir makes a folder with a module of the version.
func goModuleDir(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	minor := strings.Join(strings.Split(strings.TrimPrefix(version, "go"), ".")[:2], ".")
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module test\n\ngo "+minor+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// buildGo runs the go command of a version for the sandbox and returns the module that it writes behind -o.
func buildGo(t *testing.T, version, dir string, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "m.wasm")
	cmd := goCommand(version, dir, append([]string{args[0], args[1], "-o", out}, args[2:]...)...)
	cmd.Env = append(cmd.Env, "GOOS=wasip1", "GOARCH=wasm")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// runProgram rewrites a program and runs it in dir. It returns what the program printed.
func runProgram(t *testing.T, wasm []byte, dir string, args ...string) string {
	t.Helper()
	ctx := context.Background()
	lim := DefaultLimits()
	lim.TotalWork *= 4 // package reflect's tests have huge functions
	code, err := rewrite(wasm, lim)
	if err != nil {
		t.Fatal(err)
	}
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	host := rt.NewHostModuleBuilder(abi.WasmModule)
	host.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) {}), nil, nil).Export(abi.WasmPoll)
	if _, err := host.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cfg := wazero.NewModuleConfig().WithArgs(append([]string{"program"}, args...)...).WithStdout(&out).WithStderr(&out).WithRandSource(rand.Reader).
		WithSysWalltime().WithSysNanotime().WithSysNanosleep().WithEnv("PWD", dir).WithEnv("TMPDIR", "/tmp").WithFSConfig(wazero.NewFSConfig().WithReadOnlyDirMount("/", "/").WithDirMount(t.TempDir(), "/tmp"))
	_, err = rt.InstantiateWithConfig(ctx, code, cfg)
	if exit, ok := err.(*sys.ExitError); err != nil && (!ok || exit.ExitCode() != 0) {
		t.Errorf("%v\n%s", err, tail(out.String()))
	}
	return out.String()
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// TestSwitches compares what a program prints in the sandbox with what it prints natively.
func TestSwitches(t *testing.T) {
	want, err := exec.Command("go", "run", "./testdata/switches").Output()
	if err != nil {
		t.Fatal(err)
	}
	wasm := buildGo(t, runtime.Version(), ".", "build", "-trimpath", "./testdata/switches")
	if m, err := Read(wasm, DefaultLimits()); err != nil || m.goVersion == "" {
		t.Fatalf("module of Go %q, %v", m.goVersion, err)
	}
	if got := runProgram(t, wasm, "/"); got != string(want) {
		t.Errorf("in the sandbox:\n%s\nnatively:\n%s", got, want)
	}
}

// TestStandardLibrary runs Go's own tests of its library and runtime, also those of all other versions that are supported.
func TestStandardLibrary(t *testing.T) {
	packages := map[string][]string{runtime.Version(): {"iter", "sort"}}
	if os.Getenv("CONVHOST_LARGE") != "" {
		packages["go1.24.0"] = []string{"iter", "runtime", "sync"}
		packages["go1.25.0"] = packages["go1.24.0"]
		packages[runtime.Version()] = []string{"bytes", "compress/flate", "context", "encoding/json", "errors", "fmt", "iter", "maps", "regexp",
			"runtime", "slices", "sort", "strconv", "strings", "sync", "text/template"}
	} else {
		t.Log("skipped: most packages of Go's library, and other versions of Go; CONVHOST_LARGE=1 runs them")
	}
	for version, names := range packages {
		module := goModuleDir(t, version)
		root, err := goCommand(version, module, "env", "GOROOT").Output()
		if err != nil {
			t.Logf("skipped: %s is not to be had: %v", version, err)
			continue
		}
		for _, p := range names {
			t.Run(version+"/"+p, func(t *testing.T) {
				t.Parallel()
				wasm := buildGo(t, version, module, "test", "-c", p)
				if m, err := Read(wasm, DefaultLimits()); err != nil || m.goVersion != version {
					t.Fatalf("module of Go %q, %v", m.goVersion, err)
				}
				if n := len(hastened(t, wasm)); n != 2 {
					t.Errorf("%d functions of the library are known, want 2", n)
				}
				dir := filepath.Join(strings.TrimSpace(string(root)), "src", filepath.FromSlash(p))
				out := runProgram(t, wasm, filepath.ToSlash(dir), "-test.short")
				if !strings.HasSuffix(strings.TrimSpace(out), "PASS") {
					t.Error(tail(out))
				}
			})
		}
	}
}
