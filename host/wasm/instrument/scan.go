package instrument

import (
	"fmt"

	"github.com/convhost/convhost/abi"
)

// checkedLength is the number of instructions from which on a function without calls is worth a check, and the number
// that one unit of the budget stands for.
const checkedLength = 1024

// loopChunk is how many instructions a function may run in loops before it spends them.
const loopChunk = 32 * checkedLength

// body is what the first pass learns about one function.
type body struct {
	code    int   // offset of the first instruction
	groups  span  // the groups of locals
	ngroups int   // their number
	locals  int   // parameters and locals
	loops   []int // instructions within each loop, in order of their headers
	length  int   // instructions
	bulk    bool  // has memory.copy and the like
	entry   bool  // needs a check at its entry
}

// scanner is the first pass over function bodies.
type scanner struct {
	m     *Module
	stack []int // open blocks: index into loops, -1 for others
	total int   // work of the functions so far
}

// scan reads one body from r, which spans exactly it.
func (s *scanner) scan(r *reader, t FuncType, b *body) {
	*b = body{loops: b.loops[:0]}
	s.locals(r, t, b)
	b.code = r.pos
	s.stack = append(s.stack[:0], -1)
	var in instr
	blocks, depth, calls, covered, straight := 0, 0, false, false, true
	for len(s.stack) > 0 && r.err == nil {
		r.next(&in)
		b.length++
		switch in.op {
		case opLoop:
			if straight && len(b.loops) == 0 && b.length < checkedLength {
				covered = true // nothing happens between the entry and this header: one check does for both
			}
			s.stack = append(s.stack, len(b.loops))
			b.loops = append(b.loops, -b.length)
			blocks++
			if depth++; depth > s.m.lim.Loops {
				r.fail(abi.ErrLimit, "nesting of loops", fmt.Sprint(depth), fmt.Sprintf("at most %d", s.m.lim.Loops))
			}
		case opBlock, opIf:
			s.stack = append(s.stack, -1)
			blocks++
		case opEnd:
			if i := s.stack[len(s.stack)-1]; i >= 0 {
				b.loops[i] += b.length
				depth--
			}
			s.stack = s.stack[:len(s.stack)-1]
		case opBrTable:
			blocks += in.targets
		case opBr, opBrIf:
			blocks++
		case opCall, opCallIndirect:
			calls = true
		case opPrefixBulk:
			b.bulk = b.bulk || bulkShift(in.sub) >= 0
		}
		straight = straight && !leaves(in.op)
		s.check(r, &in, b, blocks)
	}
	if r.err == nil && r.pos != r.end {
		r.bad("function body", fmt.Sprintf("%d bytes after its last end", r.left()), "none")
	}
	if covered {
		b.loops[0] = b.length
	}
	b.entry = !covered && (calls || b.length > checkedLength)
	s.complexity(r, b, blocks)
}

// leaves reports whether control may go elsewhere than to the next instruction.
func leaves(op byte) bool {
	switch op {
	case opIf, opElse, opEnd, opBr, opBrIf, opBrTable, opReturn, opCall, opCallIndirect, 0x00:
		return true
	}
	return false
}

// locals reads the groups of local variables.
func (s *scanner) locals(r *reader, t FuncType, b *body) {
	b.ngroups = r.count("groups of locals", 1<<16, 2)
	b.groups.start = r.pos
	n := uint64(len(t.Params))
	for range b.ngroups {
		n += uint64(r.u32("number of locals"))
		if c := r.byte("type of locals"); r.err == nil && !valueType(c) {
			r.fail(abi.ErrUnsupported, "type of locals", fmt.Sprintf("0x%x", c), "a number, vector or reference")
		}
		if n > uint64(s.m.lim.Locals) {
			r.fail(abi.ErrLimit, "locals of a function", fmt.Sprint(n), fmt.Sprintf("at most %d", s.m.lim.Locals))
			return
		}
	}
	b.groups.end = r.pos
	b.locals = int(n)
}

// check holds indices within what the module had before the rewriting, so that it cannot name what is added.
func (s *scanner) check(r *reader, in *instr, b *body, blocks int) {
	limit, field := 0, ""
	switch in.op {
	case opCall, opRefFunc:
		limit, field = s.m.imported[KindFunc]+len(s.m.funcTypes), "function index"
	case opCallIndirect:
		limit, field = len(s.m.types), "type index"
	case 0x20, 0x21, 0x22:
		limit, field = b.locals, "local index"
	case opGlobalGet, opGlobalSet:
		limit, field = s.m.imported[KindGlobal]+s.m.globals, "global index"
	default:
		if len(s.stack) > s.m.lim.Nesting {
			r.fail(abi.ErrLimit, "nesting of blocks", fmt.Sprint(len(s.stack)), fmt.Sprintf("at most %d", s.m.lim.Nesting))
		}
		if blocks > s.m.lim.Blocks {
			r.fail(abi.ErrLimit, "blocks and branches of a function", fmt.Sprint(blocks), fmt.Sprintf("at most %d", s.m.lim.Blocks))
		}
		return
	}
	if r.err == nil && uint64(in.index) >= uint64(limit) {
		r.pos = in.start
		r.bad(field, in.index, fmt.Sprintf("less than %d", limit))
	}
}

// complexity refuses functions that take the compiler too long.
func (s *scanner) complexity(r *reader, b *body, blocks int) {
	if r.err != nil {
		return
	}
	work, loops := b.locals*blocks+blocks*blocks/32, b.locals*len(b.loops)
	s.total += work
	lim := s.m.lim
	if work > lim.Work {
		r.fail(abi.ErrLimit, "complexity of a function", fmt.Sprintf("%d locals × %d blocks and branches", b.locals, blocks),
			fmt.Sprintf("a product of at most %d", lim.Work))
	}
	if loops > lim.LoopWork {
		r.fail(abi.ErrLimit, "complexity of a function", fmt.Sprintf("%d locals × %d loops", b.locals, len(b.loops)),
			fmt.Sprintf("a product of at most %d", lim.LoopWork))
	}
	if most := lim.TotalWork + lim.WorkPerByte*len(r.b); s.total > most {
		r.fail(abi.ErrLimit, "complexity of all functions", fmt.Sprint(s.total), fmt.Sprintf("at most %d", most))
	}
}

// bulkShift returns by how many bits the length operand of a bulk instruction is shifted to get units of the budget;
// -1 if the instruction has none. A unit is about 5 ns: 128 bytes, or 16 table elements.
func bulkShift(sub uint32) int {
	switch sub {
	case 8, 10, 11: // memory.init, memory.copy, memory.fill
		return 7
	case 12, 14, 17: // table.init, table.copy, table.fill
		return 4
	}
	return -1
}
