package instrument

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/convhost/convhost/host/wasm/gocode"
)

// hastened returns the functions of a module that package gocode knows a faster beginning for: each as a module with an
// export f, as it was and with that beginning.
func hastened(t *testing.T, wasm []byte) (pairs [][2][]byte) {
	t.Helper()
	m, err := Read(wasm, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{m: m}
	w.eachBody(func(i int, r *reader, b *body) {
		typ := m.types[m.funcTypes[i]]
		code := r.b[r.pos:r.end]
		first := gocode.Hasten(typ.Params, typ.Results, code)
		if first == nil {
			return
		}
		locals := string(appendU32(nil, uint32(b.ngroups))) + string(r.b[b.groups.start:b.groups.end])
		module := func(code string) []byte {
			return []byte(magic + sec(secType, "\x01\x60\x03", typ.Params, "\x01", typ.Results) + sec(secFunction, "\x01\x00") +
				sec(secMemory, "\x01\x00\x01") + sec(secExport, "\x02\x01f\x00\x00\x06memory\x02\x00") +
				sec(secCode, "\x01", string(appendU32(nil, uint32(len(locals)+len(code)))), locals, code))
		}
		pairs = append(pairs, [2][]byte{module(string(code)), module(string(first) + string(code))})
	})
	return pairs
}

// TestHasten compares functions of Go's library with what becomes of them, for equal and unequal bytes of all small lengths.
func TestHasten(t *testing.T) {
	wasm, err := goModule()
	if err != nil {
		t.Fatal(err)
	}
	pairs := hastened(t, wasm)
	if len(pairs) != 2 {
		t.Fatalf("%d functions are known, want 2", len(pairs))
	}
	for k, p := range pairs {
		was, is := instantiate(t, p[0]), instantiate(t, p[1])
		r := rand.New(rand.NewPCG(uint64(k), 1))
		for n := range uint64(40) {
			for range 100 {
				a, b := r.Uint64N(32), 100+r.Uint64N(32)
				for _, m := range []api.Module{was, is} {
					for j := range uint32(100) {
						m.Memory().WriteByte(j, byte(j*7))
						m.Memory().WriteByte(uint32(b)+j, byte((uint32(a)+j)*7))
					}
				}
				for range r.IntN(3) { // places that differ
					at, v := uint32(b)+r.Uint32N(42), byte(r.Uint32())
					was.Memory().WriteByte(at, v)
					is.Memory().WriteByte(at, v)
				}
				if r.IntN(20) == 0 {
					b = a
				}
				want, err := was.ExportedFunction("f").Call(t.Context(), a, b, n)
				if err != nil {
					t.Fatal(err)
				}
				got, err := is.ExportedFunction("f").Call(t.Context(), a, b, n)
				if err != nil || sign(got[0]) != sign(want[0]) {
					t.Fatalf("function %d of %d bytes at %d and %d: %d, %v, want %d", k, n, a, b, got, err, want)
				}
			}
		}
		end := uint64(1 << 16) // nothing behind the memory is read
		for n := range uint64(20) {
			if _, err := is.ExportedFunction("f").Call(t.Context(), end-n, end-n-100, n); err != nil {
				t.Errorf("function %d, %d bytes at the end of the memory: %v", k, n, err)
			}
		}
	}
}

// sign is what matters of a result of memcmp.
func sign(v uint64) int {
	switch {
	case int32(v) < 0:
		return -1
	case v == 0:
		return 0
	}
	return 1
}

func instantiate(t *testing.T, wasm []byte) api.Module {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { rt.Close(ctx) })
	mod, err := rt.Instantiate(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	return mod
}
