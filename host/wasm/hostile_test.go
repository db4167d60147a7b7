package wasm

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
)

// spinners are guests that never return, each in its own way.
func spinners(t *testing.T, rt *Runtime) map[string]func(context.Context) error {
	out := map[string]func(context.Context) error{}
	goGuest := guest(t, rt, mustBuild(t, goodGuest))
	for _, req := range []string{"spin", "memset", "recurse"} {
		out["go "+req] = func(ctx context.Context) error { _, err := call1(ctx, goGuest, req); return err }
	}
	// loop; br 0 — a chain of calls that doubles 40 times without a loop — memory.fill of 64 KiB for ever — the same in start-up
	loop := []byte{0x03, 0x40, 0x0c, 0, 0x0b}
	recursion := []byte{0x20, 0, 0x45, 0x04, 0x40, 0x05, // if n != 0
		0x20, 0, 0x41, 1, 0x6b, 0x10, 1, 0x1a, 0x20, 0, 0x41, 1, 0x6b, 0x10, 1, 0x1a, 0x0b, 0x41, 0}
	fill := []byte{0x03, 0x40, 0x41, 0, 0x41, 0, 0x41, 0x80, 0x80, 4, 0xfc, 11, 0, 0x0c, 0, 0x0b}
	for name, m := range map[string]mod{
		"loop":      {call: join([]byte{0}, loop, []byte{0x41, 0})},
		"init":      {init: join([]byte{0}, loop)},
		"start":     {init: join([]byte{0}, loop), extra: nil},
		"fill":      {call: join([]byte{0}, fill, []byte{0x41, 0})},
		"recursion": {call: append([]byte{0}, recursion...)},
	} {
		g := guest(t, rt, m.bytes())
		op := abi.Op(60) // the depth of the recursion
		out[name] = func(ctx context.Context) error { _, err := g.Call(ctx, op, nil, &fakeHost{}); return err }
	}
	return out
}

// TestSpinCanBeEnded cancels guests that never call the host, collects garbage meanwhile, and lets the time limit and
// the stall limit end them.
func TestSpinCanBeEnded(t *testing.T) {
	rt, good := load(t, Config{Stall: time.Minute}, mustBuild(t, goodGuest))
	for name, run := range spinners(t, rt) {
		t.Run("cancel "+name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- run(ctx) }()
			time.Sleep(100 * time.Millisecond)
			start := time.Now()
			runtime.GC()
			if took := time.Since(start); took > time.Second {
				t.Errorf("garbage collection took %v beside a spinning guest", took)
			}
			start = time.Now()
			cancel()
			select {
			case err := <-done:
				if took := time.Since(start); !errors.Is(err, context.Canceled) || abi.ClassOf(err) != abi.ErrCanceled || took > time.Second {
					t.Errorf("after %v: %v", took, err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("still running 5 s after it was cancelled")
			}
			works(t, good)
		})
	}
	quick := newRuntime(t, Config{CacheDir: cacheDir, Stall: 200 * time.Millisecond})
	for name, run := range spinners(t, quick) {
		if err := run(t.Context()); !errors.Is(err, abi.ErrTimeout) || !strings.Contains(err.Error(), "did not call the host") {
			t.Errorf("stalled %s: %v", name, err)
		}
	}
}

func TestTimeLimit(t *testing.T) {
	_, g := load(t, Config{Timeout: 300 * time.Millisecond, Stall: 100 * time.Millisecond}, mustBuild(t, goodGuest))
	start := time.Now()
	_, err := call1(t.Context(), g, "spinlog message")
	if !errors.Is(err, abi.ErrTimeout) || !strings.Contains(err.Error(), "longer than the limit") || time.Since(start) > 2*time.Second {
		t.Errorf("a plugin that keeps calling the host: %v after %v", err, time.Since(start))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := call1(ctx, g, "spin"); !errors.Is(err, abi.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's deadline: %v", err)
	}
	works(t, g)
}

// TestFloods checks that output and log messages are bounded.
func TestFloods(t *testing.T) {
	var lines countingHandler
	_, g := load(t, Config{Log: slog.New(&lines)}, mustBuild(t, goodGuest))
	if got, err := call1(t.Context(), g, "flood"); err != nil || got != "done" {
		t.Errorf("256 MiB of output: %q, %v", got, err)
	}
	if n := lines.n.Load(); n == 0 || n > maxLines {
		t.Errorf("%d lines of output logged", n)
	}
	host := &fakeHost{}
	if _, err := g.Call(t.Context(), abi.OpCheck, []byte("logs message"), host); err != nil {
		t.Error(err)
	}
	if n := host.logs.Load(); n != maxLogs {
		t.Errorf("%d messages arrived, want %d", n, maxLogs)
	}
}

type countingHandler struct{ n atomic.Int64 }

func (h *countingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *countingHandler) Handle(_ context.Context, r slog.Record) error {
	h.n.Add(1)
	return nil
}
func (h *countingHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *countingHandler) WithGroup(string) slog.Handler      { return h }

// TestConcurrency runs good and bad guests of one module side by side.
func TestConcurrency(t *testing.T) {
	_, g := load(t, Config{MemoryLimit: 64 << 20, Stall: 3 * time.Second}, mustBuild(t, goodGuest))
	var wg sync.WaitGroup
	for _, req := range []string{"echo a", "panic", "spin", "echo b", "grow", "exit", "echo c", "deadlock", "recurse", "echo d"} {
		wg.Go(func() {
			got, err := call1(context.Background(), g, req)
			if want, ok := strings.CutPrefix(req, "echo "); ok && (err != nil || got != want) {
				t.Errorf("%s: %q, %v", req, got, err)
			} else if !ok && err == nil {
				t.Errorf("%s succeeded", req)
			}
		})
	}
	wg.Wait()
	works(t, g)
}
