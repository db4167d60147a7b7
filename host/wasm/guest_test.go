package wasm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/convhost/convhost/abi"
)

// builder builds one test guest, once for all tests.
func builder(dir string) func() ([]byte, error) {
	return sync.OnceValues(func() ([]byte, error) {
		tmp, err := os.MkdirTemp("", "guest")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(tmp)
		out := filepath.Join(tmp, "guest.wasm")
		cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, "./"+dir)
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
		if msg, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, msg)
		}
		return os.ReadFile(out)
	})
}

var goodGuest = builder("testdata/guest")

func mustBuild(t testing.TB, build func() ([]byte, error)) []byte {
	t.Helper()
	code, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func newRuntime(t testing.TB, cfg Config) *Runtime {
	t.Helper()
	rt, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Close(); err != nil {
			t.Error(err)
		}
	})
	return rt
}

// load returns the test guest in a runtime that shares a cache directory with the other tests.
func load(t testing.TB, cfg Config, code []byte) (*Runtime, *Guest) {
	t.Helper()
	cfg.CacheDir = cacheDir
	rt := newRuntime(t, cfg)
	return rt, guest(t, rt, code)
}

func guest(t testing.TB, rt *Runtime, code []byte) *Guest {
	t.Helper()
	m, err := rt.Load(t.Context(), code)
	if err != nil {
		t.Fatal(err)
	}
	g, err := m.NewGuest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

var cacheDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wasmcache")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cacheDir = filepath.Join(dir, "cache")
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func call1(ctx context.Context, g *Guest, req string) (string, error) {
	resp, err := g.Call(ctx, abi.OpConvertLayer, []byte(req), &fakeHost{})
	return string(resp), err
}

// works checks that a runtime still runs a good guest.
func works(t *testing.T, g *Guest) {
	t.Helper()
	if got, err := call1(context.Background(), g, "echo still here"); err != nil || got != "still here" {
		t.Errorf("a good call afterwards: %q, %v", got, err)
	}
}

func TestCall(t *testing.T) {
	_, g := load(t, Config{}, mustBuild(t, goodGuest))
	for _, want := range []string{"", "hello", strings.Repeat("x", 3<<20)} {
		if got, err := call1(t.Context(), g, "echo "+want); err != nil || got != want {
			t.Errorf("echo of %d bytes: %d bytes, %v", len(want), len(got), err)
		}
	}
	first, err := call1(t.Context(), g, "now")
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := call1(t.Context(), g, "now"); again != first {
		t.Errorf("two instances differ: %s, %s", first, again)
	}
	if got, err := call1(t.Context(), g, "clock"); err != nil || got != "true true [0 0 0 0 0 0 0 0] true true 0 []" {
		t.Errorf("clock, files, arguments: %q, %v", got, err)
	}
}

// TestGarbageCollection checks that the plugin's own collector works although its clock is not real.
func TestGarbageCollection(t *testing.T) {
	_, g := load(t, Config{MemoryLimit: 32 << 20}, mustBuild(t, goodGuest))
	got, err := call1(t.Context(), g, "garbage")
	t.Logf("1 GiB of garbage in a plugin: %s (collections, MiB), %v", got, err)
	if err != nil {
		t.Error(err)
	}
}

// TestDeaths lets plugins die in all ways that Go and the runtime have.
func TestDeaths(t *testing.T) {
	rt, g := load(t, Config{MemoryLimit: 64 << 20}, mustBuild(t, goodGuest))
	for _, tt := range []struct {
		req   string
		class abi.Class
		want  string
	}{
		{"panic at the disco", abi.ErrPlugin, "panic: at the disco"},
		{"nil xx", abi.ErrPlugin, "nil pointer dereference"},
		{"exit ", abi.ErrPlugin, "exited with status 0 in the middle of ConvertLayer"},
		{"exit xxx", abi.ErrPlugin, "exited with status 3"},
		{"deadlock", abi.ErrPlugin, "asleep"},
		{"grow", abi.ErrLimit, "more than the memory limit of 64 MiB"},
		{"pointer", abi.ErrPlugin, "pointer out of bounds: 64 bytes at 0xfffffff0"},
		{"huge", abi.ErrLimit, "buffer of 4294967295 bytes"},
		{"out", abi.ErrPlugin, "pointer out of bounds: 32 bytes at 0xfffffff8"},
		{"overlap", abi.ErrPlugin, "overlapping buffers"},
		{"handle", abi.ErrPlugin, "handle 77"},
		{"ignore", abi.ErrPlugin, "handle 77"},
		{"silent", abi.ErrPlugin, "without saying why"},
		{"status", abi.ErrPlugin, "returned 99"},
		{"unknown", abi.ErrUnsupported, "operation ConvertLayer"},
	} {
		t.Run(tt.req, func(t *testing.T) {
			_, err := call1(t.Context(), g, tt.req)
			if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v (%v), want %v with %q", err, abi.ClassOf(err), tt.class, tt.want)
			}
			works(t, g)
		})
	}
	_ = rt
}
