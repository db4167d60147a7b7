package wasm

import (
	"sync"
	"testing"

	"github.com/convhost/convhost/abi"
)

// hasSpare waits until no spare instance is being made.
func hasSpare(m *Module) bool {
	m.spare.making.Wait()
	m.spare.mu.Lock()
	defer m.spare.mu.Unlock()
	return m.spare.ready != nil
}

// TestSpare makes an instance for the next call, uses it, and closes one that nobody used.
func TestSpare(t *testing.T) {
	rt, g := load(t, Config{}, mustBuild(t, goodGuest))
	var first string
	for i := range 4 {
		ready := g.m.spare.ready
		got, err := call1(t.Context(), g, "echo x")
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = string(got)
		}
		if string(got) != first {
			t.Errorf("call %d gives %q, the first %q", i, got, first)
		}
		if !hasSpare(g.m) {
			t.Fatalf("no spare instance after call %d", i)
		}
		if i > 0 && g.m.spare.ready == ready {
			t.Error("the spare instance was not used")
		}
	}
	in := g.m.spare.ready
	if err := rt.Close(); err != nil {
		t.Fatal(err)
	}
	if !in.mod.IsClosed() || in.mem.space != nil || hasSpare(g.m) {
		t.Error("the spare instance was not closed with the runtime")
	}
	if g.m.prepare(); hasSpare(g.m) {
		t.Error("a spare instance was made after the end")
	}
}

// TestCloseModule closes one of two modules with its spare instance, and then the runtime.
func TestCloseModule(t *testing.T) {
	rt := newRuntime(t, Config{})
	one, two := guest(t, rt, mod{}.bytes()), guest(t, rt, mod{memory: []byte{0, 2}}.bytes())
	for _, g := range []*Guest{one, two} {
		if _, err := g.Call(t.Context(), abi.OpDescribe, nil, &fakeHost{}); err != nil || !hasSpare(g.m) {
			t.Fatal(err, "or no spare instance")
		}
	}
	in := one.m.spare.ready
	if err := one.m.Close(); err != nil || !in.mod.IsClosed() {
		t.Errorf("%v, spare instance closed: %v", err, in.mod.IsClosed())
	}
	if len(rt.modules) != 1 || rt.modules[0] != two.m {
		t.Errorf("the runtime holds %d modules, want the other", len(rt.modules))
	}
}

// TestNoSpare: what a plugin does with the host before its first call must happen in a call.
func TestNoSpare(t *testing.T) {
	rt := newRuntime(t, Config{})
	asks := mod{imports: [][]byte{importFunc(abi.WasmModule, "ctl_read", 2)}, init: []byte{0, 0x41, 0, 0x41, 0, 0x10, 0, 0x1a}}
	for name, m := range map[string]mod{"asks the host": asks, "does nothing": {}} {
		g := guest(t, rt, m.bytes())
		if _, err := g.Call(t.Context(), abi.OpDescribe, nil, &fakeHost{}); err != nil {
			t.Fatal(err)
		}
		if has, want := hasSpare(g.m), name == "does nothing"; has != want {
			t.Errorf("a module that %s before its first call: spare instance %v, want %v", name, has, want)
		}
	}
}

// TestSpareOnce makes calls side by side: each has an instance of its own.
func TestSpareOnce(t *testing.T) {
	_, g := load(t, Config{}, mustBuild(t, goodGuest))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				if got, err := call1(t.Context(), g, "echo x"); err != nil || string(got) != "x" {
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}
