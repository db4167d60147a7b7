package instrument

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/convhost/convhost/abi"
)

// buildGo runs the go command for the sandbox and returns the module that it writes behind -o.
func buildGo(t *testing.T, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "m.wasm")
	cmd := exec.Command("go", append([]string{args[0], args[1], "-o", out}, args[2:]...)...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "CGO_ENABLED=0")
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
	wasm := buildGo(t, "build", "-trimpath", "./testdata/switches")
	if m, err := Read(wasm, DefaultLimits()); err != nil || m.goVersion == "" {
		t.Fatalf("module of Go %q, %v", m.goVersion, err)
	}
	if got := runProgram(t, wasm, "/"); got != string(want) {
		t.Errorf("in the sandbox:\n%s\nnatively:\n%s", got, want)
	}
}

// TestStandardLibrary runs Go's own tests of its library and runtime.
func TestStandardLibrary(t *testing.T) {
	packages := []string{"iter", "sort"}
	if os.Getenv("CONVHOST_LARGE") != "" {
		packages = append(packages, "bytes", "compress/flate", "context", "encoding/json", "errors", "fmt", "maps", "regexp", "runtime",
			"slices", "strconv", "strings", "sync", "text/template")
	} else {
		t.Log("skipped: most packages of Go's library; CONVHOST_LARGE=1 runs them")
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		t.Run(p, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(strings.TrimSpace(string(root)), "src", filepath.FromSlash(p))
			out := runProgram(t, buildGo(t, "test", "-c", p), filepath.ToSlash(dir), "-test.short")
			if !strings.HasSuffix(strings.TrimSpace(out), "PASS") {
				t.Error(tail(out))
			}
		})
	}
}
