package wasm

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
)

// BenchmarkPoll compares a computing Go plugin with the same without checks.
func BenchmarkPoll(b *testing.B) {
	code := mustBuild(b, goodGuest)
	rt, g := load(b, Config{}, code)
	plain, err := rt.rt.CompileModule(b.Context(), code)
	if err != nil {
		b.Fatal(err)
	}
	for _, req := range []string{"work", "sort"} {
		for name, g := range map[string]*Guest{"checked": g, "plain": {m: &Module{rt: rt, compiled: plain}}} {
			b.Run(req+"/"+name, func(b *testing.B) {
				for b.Loop() {
					if _, err := call1(b.Context(), g, req); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkStart measures what a process pays for a plugin that it compiled before: runtime, module and first answer.
func BenchmarkStart(b *testing.B) {
	code := mustBuild(b, goodGuest)
	dir := filepath.Join(b.TempDir(), "cache")
	start := func() time.Duration {
		begin := time.Now()
		rt, err := New(b.Context(), Config{CacheDir: dir})
		if err != nil {
			b.Fatal(err)
		}
		m, err := rt.Load(b.Context(), code)
		if err != nil {
			b.Fatal(err)
		}
		g, err := m.NewGuest(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := g.Call(b.Context(), abi.OpDescribe, []byte("echo x"), &fakeHost{}); err != nil {
			b.Fatal(err)
		}
		took := time.Since(begin)
		if err := rt.Close(); err != nil {
			b.Fatal(err)
		}
		return took
	}
	first := start()
	for b.Loop() {
		start()
	}
	b.ReportMetric(float64(first.Milliseconds()), "first-ms")
}

// BenchmarkInstance measures one call: instance, start of the Go runtime, answer.
func BenchmarkInstance(b *testing.B) {
	_, g := load(b, Config{}, mustBuild(b, goodGuest))
	for b.Loop() {
		if _, err := call1(b.Context(), g, "echo x"); err != nil {
			b.Fatal(err)
		}
	}
}
