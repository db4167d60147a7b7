package wasm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
)

// TestCache loads a module with a fresh, a filled and a damaged cache.
func TestCache(t *testing.T) {
	code := mod{}.bytes()
	dir := filepath.Join(t.TempDir(), "a", "cache")
	files := func() []string {
		names, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	call := func() {
		t.Helper()
		rt := newRuntime(t, Config{CacheDir: dir})
		if _, err := guest(t, rt, code).Call(t.Context(), abi.OpCheck, nil, &fakeHost{}); err != nil {
			t.Error(err)
		}
	}
	call()
	call()
	names := files()
	if len(names) == 0 {
		if _, err := New(t.Context(), Config{CacheDir: dir}); err == nil && runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
			t.Skip("wazero does not compile for this machine, so there is nothing to cache")
		}
		t.Fatal("nothing was cached")
	}
	for _, size := range []int64{0, 5, 30, 60} {
		if err := os.Truncate(files()[0], size); err != nil {
			t.Fatal(err)
		}
		call()
	}
	b, err := os.ReadFile(files()[0])
	if err != nil {
		t.Fatal(err)
	}
	b[60] ^= 1
	if err := os.WriteFile(files()[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	call()
}

// TestPacked loads a packed module: it is unpacked once, and again when what was kept is damaged.
func TestPacked(t *testing.T) {
	code := mod{}.bytes()
	packed := append([]byte("packed:"), code...)
	dir := t.TempDir()
	unpacked := 0
	load := func() {
		t.Helper()
		rt := newRuntime(t, Config{CacheDir: dir})
		m, err := rt.LoadPacked(t.Context(), packed, func(file []byte) ([]byte, error) {
			unpacked++
			return bytes.TrimPrefix(file, []byte("packed:")), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := digest.FromBytes(code).String(); m.Digest() != want {
			t.Errorf("digest is %s, want %s", m.Digest(), want)
		}
		g, err := m.NewGuest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Call(t.Context(), abi.OpCheck, nil, &fakeHost{}); err != nil {
			t.Error(err)
		}
	}
	load()
	if load(); unpacked != 1 {
		t.Errorf("unpacked %d times, want once", unpacked)
	}
	names, err := filepath.Glob(filepath.Join(dir, "checked-*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("kept: %v, %v", names, err)
	}
	good, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	for n, bad := range [][]byte{nil, good[:3], good[:checkedHead], good[:len(good)-1], append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1)} {
		if err := os.WriteFile(names[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if load(); unpacked != 2+n {
			t.Errorf("damage %d was not seen", n)
		}
	}
	rt := newRuntime(t, Config{})
	if _, err := rt.LoadPacked(t.Context(), packed, func([]byte) ([]byte, error) { return nil, abi.ErrCorrupt }); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("unpacking fails with %v", err)
	}
}

// TestCacheOfOthers refuses directories in which somebody else could place code.
func TestCacheOfOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions are not checked on Windows")
	}
	dir := t.TempDir()
	for _, mode := range []os.FileMode{0o777, 0o770, 0o720, 0o1777} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := New(t.Context(), Config{CacheDir: dir}); !errors.Is(err, abi.ErrDenied) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(dir, "wazero-x")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(sub, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), Config{CacheDir: dir}); !errors.Is(err, abi.ErrDenied) {
		t.Errorf("a directory within that others can write to: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), Config{CacheDir: file}); err == nil {
		t.Error("a file is accepted as directory")
	}
	if os.Getuid() == 0 {
		other := t.TempDir()
		if err := os.Chown(other, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if _, err := New(t.Context(), Config{CacheDir: other}); !errors.Is(err, abi.ErrDenied) {
			t.Errorf("a directory of another user: %v", err)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{{MemoryLimit: 1}, {MemoryLimit: 5 << 30}, {MemoryLimit: -1}, {Timeout: -1}, {Stall: -time.Second}} {
		if _, err := New(t.Context(), cfg); !errors.Is(err, abi.ErrInvalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// TestInterpreter runs and ends guests without machine code.
func TestInterpreter(t *testing.T) {
	rt := newRuntime(t, Config{Interpreter: true, Stall: 100 * time.Millisecond})
	g := guest(t, rt, mod{}.bytes())
	if _, err := g.Call(t.Context(), abi.OpCheck, nil, &fakeHost{}); err != nil {
		t.Error(err)
	}
	spin := guest(t, rt, mod{call: []byte{0, 0x03, 0x40, 0x0c, 0, 0x0b, 0x41, 0}}.bytes())
	if _, err := spin.Call(t.Context(), abi.OpCheck, nil, &fakeHost{}); !errors.Is(err, abi.ErrTimeout) {
		t.Error(err)
	}
}
