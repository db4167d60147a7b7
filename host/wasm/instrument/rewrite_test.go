package instrument

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/convhost/convhost/abi"
)

func sec(id byte, parts ...string) string {
	b := strings.Join(parts, "")
	return string([]byte{id}) + string(appendU32(nil, uint32(len(b)))) + b
}

const magic = "\x00asm\x01\x00\x00\x00"

func fnBody(code string) string {
	return string(appendU32(nil, uint32(len(code)+1))) + code + "\x0b"
}

// tour names functions in every way there is: two imports, calls, an export, a start function, a table filled by an
// element segment and one by ref.func, a global with ref.func; it has bulk instructions, vectors and several values.
func tour() []byte {
	return []byte(magic +
		sec(secType, "\x03", "\x60\x00\x00", "\x60\x01\x7f\x01\x7f", "\x60\x02\x7f\x7f\x02\x7f\x7f") +
		sec(secImport, "\x02", "\x03env\x01a\x00\x01", "\x03env\x01b\x00\x01") +
		sec(secFunction, "\x04", "\x00\x01\x01\x02") + // 2 start, 3 f, 4 g, 5 swap
		sec(secTable, "\x01", "\x70\x00\x04") +
		sec(secMemory, "\x01", "\x00\x01") +
		sec(secGlobal, "\x02", "\x7f\x01\x41\x05\x0b", "\x70\x00\xd2\x04\x0b") +
		sec(secExport, "\x02", "\x01f\x00\x03", "\x06memory\x02\x00") +
		sec(secStart, "\x02") +
		sec(secElement, "\x02", "\x00\x41\x00\x0b\x02\x04\x01", "\x05\x70\x01\xd2\x03\x0b") +
		sec(secDataCount, "\x01") +
		sec(secCode, "\x04",
			fnBody("\x00\x41\x07\x24\x00"), // global 0 = 7
			// f(n): loop n times { sum = sum*3 + g(n) + table[0](n) }, then swap, memory.fill, vector; + global 0 + memory[9]
			fnBody("\x02\x01\x7f\x01\x7e\x03\x40"+
				"\x20\x01\x41\x03\x6c\x20\x00\x10\x04\x6a\x20\x00\x41\x00\x11\x01\x00\x6a\x21\x01"+
				"\x20\x00\x41\x01\x6b\x22\x00\x0d\x00\x0b"+
				"\x41\x08\x41\x06\x41\x04\xfc\x0b\x00"+ // memory.fill(8, 6, 4)
				"\x41\x10\x41\x00\x41\x02\xfc\x08\x00\x00"+ // memory.init(16, 0, 2)
				"\x20\x01\x23\x00\x6a\x41\x09\x2d\x00\x00\x6a\x41\x11\x2d\x00\x00\x6a"+
				"\x20\x00\x10\x05\x6b"+
				"\xfd\x0c\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x04\x00\x00\x00\xfd\x1b\x02\x6a"),
			fnBody("\x00\x20\x00\x10\x00\x10\x01"), // g(n) = b(a(n))
			fnBody("\x00\x20\x01\x20\x00")) +       // swap
		sec(secData, "\x01", "\x01\x02hi"))
}

// run instantiates a module with its imports and calls f.
func run(t *testing.T, wasm []byte, polls *int, n uint64) uint64 {
	t.Helper()
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	env := rt.NewHostModuleBuilder("env")
	env.NewFunctionBuilder().WithFunc(func(n uint32) uint32 { return n + 100 }).Export("a")
	env.NewFunctionBuilder().WithFunc(func(n uint32) uint32 { return n * 5 }).Export("b")
	host := rt.NewHostModuleBuilder(abi.WasmModule)
	host.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) { *polls++ }), nil, nil).Export(abi.WasmPoll)
	for _, b := range []wazero.HostModuleBuilder{env, host} {
		if _, err := b.Instantiate(ctx); err != nil {
			t.Fatal(err)
		}
	}
	mod, err := rt.Instantiate(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	res, err := mod.ExportedFunction("f").Call(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return res[0]
}

// TestSameResults runs a module with and without checks.
func TestSameResults(t *testing.T) {
	out, err := rewrite(tour(), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{1, 2, 10, 1_000_000} {
		var none, polls int
		want, got := run(t, tour(), &none, n), run(t, out, &polls, n)
		if got != want {
			t.Errorf("f(%d) is %d, want %d", n, got, want)
		}
		if (polls > 0) != (n > 100_000) {
			t.Errorf("f(%d) polled %d times", n, polls)
		}
	}
}

// TestLimits holds one function against each limit, at it and beyond.
func TestLimits(t *testing.T) {
	module := func(locals int, code string) []byte {
		return []byte(magic + sec(secType, "\x01\x60\x00\x00") + sec(secFunction, "\x01\x00") +
			sec(secCode, "\x01", fnBody("\x01"+string(appendU32(nil, uint32(locals)))+"\x7e"+code)))
	}
	nest := func(open string, n int) string { return strings.Repeat(open, n) + strings.Repeat("\x0b", n) }
	lim := DefaultLimits()
	lim.Nesting, lim.Loops, lim.Blocks, lim.Locals, lim.Work, lim.LoopWork, lim.BodyBytes = 50, 5, 100, 20, 1000, 60, 2000
	for _, tt := range []struct {
		name  string
		good  []byte
		wrong []byte
	}{
		{"nesting", module(1, nest("\x02\x40", 49)), module(1, nest("\x02\x40", 50))},
		{"nesting of loops", module(1, nest("\x03\x40", 5)), module(1, nest("\x03\x40", 6))},
		{"blocks", module(1, strings.Repeat("\x02\x40\x0b", 100)), module(1, strings.Repeat("\x02\x40\x0b", 101))},
		{"locals", module(20, ""), module(21, "")},
		{"complexity", module(10, strings.Repeat("\x02\x40\x0b", 70)), module(10, strings.Repeat("\x02\x40\x0b", 99))},
		{"loops", module(10, strings.Repeat("\x03\x40\x0b", 6)), module(10, strings.Repeat("\x03\x40\x0b", 7))},
		{"size of a body", module(1, strings.Repeat("\x01", 1990)), module(1, strings.Repeat("\x01", 2000))},
	} {
		if _, err := rewrite(tt.good, lim); err != nil {
			t.Errorf("%s at the limit: %v", tt.name, err)
		}
		var f *abi.FormatError
		if _, err := rewrite(tt.wrong, lim); !errors.Is(err, abi.ErrLimit) || !errors.As(err, &f) || f.Off <= 0 {
			t.Errorf("%s beyond the limit: %v", tt.name, err)
		}
	}
}

// TestMargins says how far the Go compiler's output stays below the limits.
func TestMargins(t *testing.T) {
	wasm, err := goModule()
	if err != nil {
		t.Fatal(err)
	}
	d := DefaultLimits()
	for name, lim := range map[string]Limits{
		"a quarter of the work":       {d.ModuleBytes, d.Functions, d.CodeBytes, d.BodyBytes, d.Locals, d.Nesting, d.Loops, d.Blocks, d.Work / 4, d.LoopWork, d.TotalWork, d.WorkPerByte},
		"half of all work":            {d.ModuleBytes, d.Functions, d.CodeBytes, d.BodyBytes, d.Locals, d.Nesting, d.Loops, d.Blocks, d.Work, d.LoopWork, d.TotalWork / 2, d.WorkPerByte / 2},
		"a tenth of bodies and loops": {d.ModuleBytes, d.Functions / 10, d.CodeBytes, d.BodyBytes / 10, d.Locals / 10, d.Nesting / 4, d.Loops / 10, d.Blocks / 4, d.Work, d.LoopWork / 10, d.TotalWork, d.WorkPerByte},
	} {
		if _, err := rewrite(wasm, lim); err != nil {
			t.Errorf("with %s: %v", name, err)
		}
	}
}

// FuzzRewrite: an accepted module validates with checks if and only if it does without.
func FuzzRewrite(f *testing.F) {
	f.Add(tour())
	f.Add([]byte(magic))
	f.Add([]byte(magic + sec(secType, "\x01\x60\x00\x00") + sec(secFunction, "\x01\x00") + sec(secCode, "\x01", fnBody("\x00\x03\x40\x0c\x00\x0b"))))
	for n, c := range "\x00\x01\x23\x41\x7f" {
		b := tour()
		b[len(b)/2+n*7] = byte(c)
		f.Add(b)
	}
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, wasm []byte) {
		lim := DefaultLimits()
		lim.ModuleBytes = 1 << 16
		out, err := rewrite(wasm, lim)
		if err != nil {
			if abi.ClassOf(err) == abi.ErrInternal {
				t.Errorf("error without a class: %v", err)
			}
			return
		}
		plain, checked := validates(ctx, wasm), validates(ctx, out)
		if plain == nil && checked != nil || plain != nil && checked == nil && !custom(plain) {
			t.Errorf("without checks: %v\nwith: %v", plain, checked)
		}
	})
}

// custom reports whether wazero objects to what the rewriting drops or bounds.
func custom(err error) bool {
	s := fmt.Sprint(err)
	return strings.Contains(s, "custom") || strings.Contains(s, "name") || strings.Contains(s, "table")
}
