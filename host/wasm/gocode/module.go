package gocode

import (
	"slices"
	"strings"
)

// Supported reports whether the compiler of this version, as the producers section of a module says it ("go1.26.8"), is one
// whose code was tested.
func Supported(version string) bool {
	v, ok := strings.CutPrefix(version, "go1.")
	if !ok {
		return false
	}
	minor, _, _ := strings.Cut(v, ".")
	return slices.Contains([]string{"24", "25", "26"}, minor)
}

// Module rewrites the functions of one module. First it has to [Module.See] all of them, then [Module.Settle].
type Module struct {
	seen    []seen
	unwinds map[uint32]bool // functions that always return 1
	budget  int             // what may still be done
	f       function
	r       reuse
}

// seen is what decides whether a function can return 0.
type seen struct {
	fn    uint32
	calls []uint32 // calls whose result it returns
}

// NewModule returns a Module that spends about budget steps on all functions together: Straighten does nothing any more when
// they are used up. A step is an instruction, an edge or the like.
func NewModule(budget int) *Module {
	return &Module{unwinds: map[uint32]bool{}, budget: budget}
}

// See notes whether function fn, of type (i32) -> (i32), can return 0. A function of Go returns 1 when the goroutine is
// switched or the stack is unwound, so one that only returns 1 never goes on behind its call. ops are its instructions up
// to the last end.
func (m *Module) See(fn uint32, src []byte, ops []Op) {
	b := &body{src, ops}
	s := seen{fn: fn}
	depth := uint32(0)
	for i, o := range ops {
		switch o.Code {
		case opBlock, opLoop, opIf:
			depth++
		case opEnd:
			depth--
		case opBr, opBrIf:
			if o.N >= depth {
				return
			}
		case opBrTable:
			if slices.Max(b.targets(i)) >= depth {
				return
			}
		case opReturn:
			last := i - 1
			if b.is(last, opLocalSet, spLocal) && b.is(last-1, opGlobalGet, spGlobal) {
				last -= 2
			}
			switch {
			case b.isConst(last, opI32Const, 1):
			case b.op(last) == opCall:
				s.calls = append(s.calls, ops[last].N)
			default:
				return
			}
		}
	}
	if n := len(ops); n >= 2 && (b.isConst(n-2, opI32Const, 1) || ops[n-2].Code == opUnreachable) {
		m.seen = append(m.seen, s)
		m.unwinds[fn] = true
	}
}

// Settle ends the calls of See.
func (m *Module) Settle() {
	for changed := true; changed; {
		changed = false
		m.seen = slices.DeleteFunc(m.seen, func(s seen) bool {
			for _, c := range s.calls {
				if !m.unwinds[c] {
					delete(m.unwinds, s.fn)
					changed = true
					return true
				}
			}
			return false
		})
	}
}

// Straighten appends to dst what ops, the instructions of a function of type (i32) -> (i32) in src up to its last end,
// become. local is the index of a local of type i64 that the function gets for it. It reports false, and returns dst, if they
// have to stay as they are.
func (m *Module) Straighten(dst, src []byte, ops []Op, local uint32) ([]byte, bool) {
	f := &m.f
	f.reset(m, src, ops)
	f.local = local
	if m.budget -= len(ops); m.budget < 0 || !f.parse() || !f.flow() {
		return dst, false
	}
	f.out = dst
	f.stackUses()
	f.write()
	return f.out, true
}
