package instrument

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/convhost/convhost/abi"
)

// madeByGo is the custom section that says so.
var madeByGo = sec(secCustom, "\x09producers", "\x01\x0cprocessed-by\x01\x0eGo cmd/compile\x08go1.26.8")

// choices decides about a made-up function; what runs out of bytes decides for 0.
type choices struct{ b []byte }

func (c *choices) n(n int) int {
	if len(c.b) == 0 {
		return 0
	}
	v := int(c.b[0])
	c.b = c.b[1:]
	return v % n
}

// goFunction writes a function in the shape of Go's compiler. What it did shows in memory: a sum over the basic blocks that
// ran (0), what is left to run (8), the position at which it wants to go on after it switched away (16), and its frame.
type goFunction struct {
	c     *choices
	table []int // position → basic block
	first []int // basic block → its first position
	out   []byte
	open  int // label blocks
	depth int // blocks within the basic block
}

const (
	frame   = 64 // where the stack pointer stands
	pointer = 64 // distance of a pointer in the frame, which is 0 or leads behind it
	calls   = 0  // function indexes: switches away sometimes
	panics  = 1  // always returns 1
)

func (g *goFunction) op(code ...byte) { g.out = append(g.out, code...) }

func (g *goFunction) constant(code byte, v int) { g.out = appendI32(append(g.out, code), uint32(v)) }

// makeFunction returns a body, without the groups of locals.
func makeFunction(c *choices) []byte {
	g := &goFunction{c: c}
	blocks := 1 + c.n(14)
	for k := range blocks {
		g.first = append(g.first, len(g.table))
		for range 1 + c.n(3) {
			g.table = append(g.table, k)
		}
	}
	loop := c.n(8) > 0
	g.op(opGlobalGet, 0, opLocalSet, 1, opBlock, emptyBlock)
	if loop {
		g.op(opLoop, emptyBlock)
	}
	for range blocks {
		g.op(opBlock, emptyBlock)
	}
	g.op(opLocalGet, 0, opBrTable)
	g.out = appendU32(g.out, uint32(len(g.table)-1))
	for _, k := range g.table {
		g.out = appendU32(g.out, uint32(k))
	}
	for k := range blocks {
		g.op(opEnd)
		g.open = blocks - 1 - k
		g.block(k, loop)
	}
	if loop {
		g.op(opEnd)
	}
	g.op(0x00, opEnd, opI32Const, 1, opEnd)
	return g.out
}

// outside is the label of the way out.
func (g *goFunction) outside(loop bool) uint32 {
	n := g.depth + g.open
	if loop {
		n++
	}
	return uint32(n)
}

func (g *goFunction) block(k int, loop bool) {
	c := g.c
	// sum = sum*31 + k+1 + x
	g.op(opI32Const, 0, opI32Const, 0, 0x29, 3, 0)
	g.constant(opI64Const, 31)
	g.op(0x7e)
	g.constant(opI64Const, k+1)
	g.op(0x7c, opLocalGet, 2, 0x7c, 0x37, 3, 0)
	// if left == 0 return 0, left--
	g.op(opI32Const, 0, 0x29, 3, 8, 0x50, opIf, emptyBlock, opI32Const, 0, opReturn, opEnd)
	g.op(opI32Const, 0, opI32Const, 0, 0x29, 3, 8, opI64Const, 0x7f, 0x7c, 0x37, 3, 8)
	for range c.n(6) {
		switch c.n(15) {
		case 0: // x = frame[n]
			g.op(opLocalGet, 1, 0x29, 3, byte(8*c.n(4)), opLocalSet, 2)
		case 1: // frame[n] = x + k, by an address
			g.address(8 * c.n(6))
			g.op(opLocalGet, 2)
			g.constant(opI64Const, k)
			g.op(0x7c, 0x37, 3, byte(8*c.n(3)))
		case 2: // frame[n] = frame[m], by addresses
			g.address(8 * c.n(6))
			g.address(8 * c.n(6))
			g.op(0x29, 3, 0, 0x37, 3, 0)
		case 3: // x = the address of frame[n], added to
			g.address(8 * c.n(6))
			g.op(0xad, opLocalGet, 2, 0x7c, opLocalSet, 2)
		case 4:
			g.condition()
			g.jump(g.target(k), loop, true)
		case 5: // a body that never ends
			g.condition()
			g.op(opIf, emptyBlock)
			g.depth++
			g.call(panics, 0, loop)
			g.depth--
			g.op(opEnd)
		case 6: // a block within the basic block
			g.op(opBlock, emptyBlock)
			g.depth++
			g.condition()
			g.op(opBrIf, 0, 0x01)
			switch c.n(5) {
			case 0:
				g.op(opLocalGet, 2, opI64Const, 5, 0x7c, opLocalSet, 2)
			case 1:
				g.op(opLocalGet, 2, opLocalSet, 3)
			case 2:
				g.op(opLocalGet, 1, 0x29, 3, pointer, opLocalSet, 3)
			case 3:
				g.op(opLocalGet, 1, 0x29, 3, pointer, 0xa7, 0x29, 3, 0, opLocalSet, 2)
			case 4:
				g.op(opLocalGet, 2, opLocalGet, 1, 0x29, 3, byte(8*c.n(4)), 0x7c, opLocalSet, 2)
			}
			g.condition()
			g.jump(g.target(k), loop, true)
			g.depth--
			g.op(opEnd)
		case 7: // x += frame[n]
			g.op(opLocalGet, 2, opLocalGet, 1, 0x29, 3, byte(8*c.n(4)), 0x7c, opLocalSet, 2)
		case 8: // the pointer in the frame, to somewhere behind it
			g.op(opLocalGet, 1, opLocalGet, 2)
			g.constant(opI64Const, 0x70)
			g.op(0x83)
			g.constant(opI64Const, 0x88)
			g.op(0x84, 0x37, 3, pointer)
		case 9: // x = *pointer
			g.op(opLocalGet, 1, 0x29, 3, pointer, 0xa7, 0x29, 3, 0, opLocalSet, 2)
		case 10: // *pointer = x, and frame[n] = x
			g.op(opLocalGet, 1, 0x29, 3, pointer, 0xa7, opLocalGet, 2, 0x37, 3, 0)
			g.op(opLocalGet, 1, opLocalGet, 2, 0x37, 3, byte(8*c.n(4)))
		case 11: // p = &frame[n], *p = k, x = frame[n]
			n := 8 * c.n(6)
			g.address(n)
			g.op(0xad, opLocalSet, 2, opLocalGet, 2, 0xa7, opI64Const, byte(k), 0x37, 3, 0)
			g.op(opLocalGet, 1, 0x29, 3, byte(n), opLocalSet, 2)
		case 12: // a variable of the package
			g.constant(opI64Const, 200)
			g.op(0xa7, 0x29, 3, 0, opLocalGet, 2, 0x7c, opLocalSet, 2)
			g.constant(opI64Const, 192)
			g.op(0xa7, opLocalGet, 2, 0x37, 3, 8)
		case 13: // x = the low half of frame[n], perhaps after the upper half has changed
			n := byte(8 * c.n(6))
			g.condition()
			g.op(opIf, emptyBlock, opLocalGet, 1, opLocalGet, 2, 0x3e, 2, n+byte(4*c.n(2)), opEnd)
			g.op(opLocalGet, 1, 0x35, 2, n, opLocalGet, 1, 0x29, 3, n, 0x7c, opLocalSet, 2)
		case 14: // y = x, frame[n] = x, or the other way round
			from, to := byte(2), byte(3)
			if c.n(2) > 0 {
				from, to = to, from
			}
			g.op(opLocalGet, from, opLocalSet, to, opLocalGet, 1, opLocalGet, from, 0x37, 3, byte(8*c.n(4)))
		}
	}
	switch c.n(5) {
	case 0, 1:
		if k+1 < len(g.first) {
			g.call(calls, g.first[k+1], loop)
		}
	case 2:
		g.jump(g.target(k), loop, false)
	case 3:
		g.op(opI32Const, 0, opReturn)
	}
}

// target is a position that basic block k may jump to: often a loop.
func (g *goFunction) target(k int) int {
	switch g.c.n(4) {
	case 0:
		return g.first[k]
	case 1:
		return g.first[max(k-1, 0)]
	}
	return g.c.n(len(g.table))
}

// address pushes the address of what is n bytes above the stack pointer as Go does.
func (g *goFunction) address(n int) {
	g.op(opLocalGet, 1, 0xad)
	g.constant(opI64Const, n)
	g.op(0x7c, 0xa7)
}

// condition pushes a bit of the sum, asked for in one of Go's ways.
func (g *goFunction) condition() {
	g.op(opI32Const, 0, 0x29, 3, 0)
	g.constant(opI64Const, g.c.n(60))
	g.op(0x88, opI64Const, 3, 0x83)
	switch g.c.n(4) {
	case 0:
		g.op(0x50)
	case 1:
		g.op(0x50, 0x45)
	case 2:
		g.constant(opI64Const, g.c.n(4))
		g.op(byte(0x51 + g.c.n(10)))
	case 3:
		g.constant(opI64Const, g.c.n(4))
		g.op(byte(0x51+g.c.n(10)), 0x45)
	}
}

// jump goes to a position.
func (g *goFunction) jump(pc int, loop, conditional bool) {
	if !loop {
		if conditional {
			g.op(0x1a)
		}
		return
	}
	if conditional {
		g.op(opIf, emptyBlock)
		g.depth++
	}
	g.constant(opI32Const, pc)
	g.op(opLocalSet, 0, opBr)
	g.out = appendU32(g.out, uint32(g.depth+g.open))
	if conditional {
		g.depth--
		g.op(opEnd)
	}
}

// call calls fn, which may want to come back at position pc.
func (g *goFunction) call(fn byte, pc int, loop bool) {
	g.op(opLocalGet, 1, opI32Const, 8, opI32Sub, opLocalTee, 1, opGlobalSet, 0, opLocalGet, 1)
	g.constant(opI64Const, pc)
	g.op(0x37, 3, 0, opI32Const, 0, opCall, fn, opGlobalGet, 0, opLocalSet, 1, opBrIf)
	g.out = appendU32(g.out, g.outside(loop))
}

// goModuleOf has the function as export f, and what it calls.
func goModuleOf(body []byte) []byte {
	goCode := func(code string) string { return fnBody("\x01\x01\x7f" + code) }
	// notes where to come back, takes the return address off the stack, changes the caller's frame, and returns a bit of the sum
	switching := goCode("\x41\x10\x23\x00\x29\x03\x00\x37\x03\x00" + "\x23\x00\x41\x08\x6a\x24\x00" + "\x23\x00\x41\x00\x29\x03\x00\x37\x03\x08" + "\x41\x00\x29\x03\x00\x42\x05\x88\x42\x01\x83\xa7")
	return []byte(magic +
		sec(secType, "\x01", "\x60\x01\x7f\x01\x7f") +
		sec(secFunction, "\x03\x00\x00\x00") +
		sec(secMemory, "\x01\x00\x01") +
		sec(secGlobal, "\x01\x7f\x01\x41"+string(appendI32(nil, frame))+"\x0b") +
		sec(secExport, "\x02\x01f\x00\x02\x06memory\x02\x00") +
		sec(secCode, "\x03", switching,
			goCode("\x41\x10\x42\x7f\x37\x03\x00"+"\x41\x01"), // -1: never
			string(appendU32(nil, uint32(len(body)+5)))+"\x02\x01\x7f\x02\x7e"+string(body)) +
		madeByGo)
}

// trace runs f until it ends, and returns what it did.
func trace(t *testing.T, ctx context.Context, wasm []byte) string {
	t.Helper()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(ctx)
	host := rt.NewHostModuleBuilder(abi.WasmModule)
	host.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) {}), nil, nil).Export(abi.WasmPoll)
	if _, err := host.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	mod, err := rt.Instantiate(ctx, wasm)
	if err != nil {
		t.Fatalf("%v\n%x", err, wasm)
	}
	mem := mod.Memory()
	mem.WriteUint64Le(8, 200)
	var out strings.Builder
	for pc := uint64(0); ; {
		res, err := mod.ExportedFunction("f").Call(ctx, pc)
		switch {
		case err != nil:
			fmt.Fprint(&out, strings.SplitN(err.Error(), "\n", 2)[0])
		case res[0] == 1:
			next, _ := mem.ReadUint64Le(16)
			fmt.Fprintf(&out, "%d ", int64(next))
			if int64(next) >= 0 {
				pc = next
				continue
			}
		}
		b, _ := mem.Read(0, 256)
		fmt.Fprintf(&out, "%x", b)
		return out.String()
	}
}

// checkStraight compares a function with what becomes of it. It returns whether anything did.
func checkStraight(t *testing.T, ctx context.Context, decisions []byte) bool {
	body := makeFunction(&choices{decisions})
	wasm := goModuleOf(body)
	out, err := rewrite(wasm, DefaultLimits())
	if err != nil {
		t.Fatalf("%v\n%x", err, wasm)
	}
	if want, got := trace(t, ctx, wasm), trace(t, ctx, out); got != want {
		t.Fatalf("%x\nbecomes\n%x\nwhich does\n%s\nwant\n%s", wasm, out, got, want)
	}
	plain, err := rewrite(wasm[:len(wasm)-len(madeByGo)], DefaultLimits())
	return err == nil && !bytes.Equal(plain, out)
}

// decisions makes some for a function.
func decisions(r *rand.Rand) []byte {
	b := make([]byte, 20+r.IntN(400))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestStraighten compares functions in Go's shape before and after: with loops, also of several entries and across calls,
// switches at any call, bodies that never end, frames, and pointers from and into them.
func TestStraighten(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	changed := 0
	const all = 10000
	for range all {
		if checkStraight(t, t.Context(), decisions(r)) {
			changed++
		}
	}
	if changed < all*9/10 {
		t.Errorf("only %d of %d functions became straight", changed, all)
	}
}

// FuzzStraighten is TestStraighten for functions that the fuzzer decides about.
func FuzzStraighten(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{3, 1, 4, 1, 5, 9, 2, 6}, 30))
	f.Add(bytes.Repeat([]byte{13, 4, 2, 4, 0, 5}, 50))
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 4096 {
			checkStraight(t, ctx, b)
		}
	})
}

// FuzzLiar rewrites modules that say that Go made them, whatever they are: to an error or to something, in bounded time.
func FuzzLiar(f *testing.F) {
	f.Add(append(tour(), madeByGo...))
	for k := range 8 {
		f.Add(goModuleOf(makeFunction(&choices{bytes.Repeat([]byte{13, byte(k), 2, 4, 0, 5, 9}, 20+k)})))
	}
	f.Fuzz(func(t *testing.T, wasm []byte) {
		lim := DefaultLimits()
		lim.ModuleBytes = 1 << 16
		out, err := rewrite(wasm, lim)
		if err == nil && len(out) > 4*len(wasm)+1000 {
			t.Errorf("%d bytes become %d", len(wasm), len(out))
		}
		if err != nil && abi.ClassOf(err) == abi.ErrInternal {
			t.Errorf("error without a class: %v", err)
		}
	})
}
