package gocode

// jump is an edge out of a basic block.
type jump struct {
	at int    // the instruction it begins with
	to int    // node
	pc uint32 // what Go's code writes to local 0 for it
}

// aside is an edge to the body of an if that was moved out of line.
type aside struct {
	at, end int // the if and its end
	to      int // node
	address int // the i64.const that the body stores as its return address, if bodies share one node; else 0
}

// node is a basic block, or the body of an if that was moved out of line.
type node struct {
	first, last int // instructions, the last excluded
	open        int // blocks and ifs of the source that are open around it, the loop of the function not counted
	jumps       []jump
	cold        []aside
	shared      bool // the body of several ifs, which bring the return address
	falls       bool // goes on with the next basic block
	entry       bool // the br_table may lead to it
}

// function is a function in Go's shape.
type function struct {
	m *Module
	body
	head   int      // instructions before the loop or the first block: the stack pointer's, and the way out's
	table  []uint32 // position → basic block
	blocks int      // basic blocks; the first nodes
	tail   int      // the end behind the last basic block
	loop   bool     // there was a loop
	local  uint32   // a local of type i64 that nobody else uses
	nodes  []node
	uses   []stackUse // of the nodes
	graph
	writer
}

func (f *function) reset(m *Module, src []byte, ops []Op) {
	f.m, f.src, f.ops = m, src, ops
	f.nodes = f.nodes[:0]
}

// parse finds the shape that the package comment shows.
func (f *function) parse() bool {
	if !f.is(0, opGlobalGet, spGlobal) || !f.is(1, opLocalSet, spLocal) {
		return false
	}
	i := 2
	wayOut := f.plain(i, opBlock) && (f.plain(i+1, opLoop) || f.wayOut(i))
	if wayOut {
		i++
	}
	f.head = i
	if f.loop = f.plain(i, opLoop); f.loop {
		i++
	}
	f.blocks = 0
	for ; f.plain(i, opBlock); i++ {
		f.blocks++
	}
	if f.blocks == 0 || !f.is(i, opLocalGet, pcLocal) || f.op(i+1) != opBrTable || f.op(i+2) != opEnd {
		return false
	}
	f.table = f.targets(i + 1)
	for _, t := range f.table {
		if int(t) >= f.blocks {
			return false
		}
	}
	return f.parseBlocks(i + 3)
}

// wayOut reports whether the block at i, of a function without a loop, is left to return 1: the function ends in
// unreachable, end, i32.const 1, end.
func (f *function) wayOut(i int) bool {
	n := len(f.ops)
	return n > i+4 && f.isConst(n-2, opI32Const, 1) && f.op(n-3) == opEnd && f.op(n-4) == opUnreachable
}

// parseBlocks splits the instructions from i on into basic blocks.
func (f *function) parseBlocks(i int) bool {
	depth, falls := 0, true
	n := node{first: i, open: f.blocks - 1, entry: true}
	for ; i < len(f.ops); i++ {
		o := &f.ops[i]
		switch o.Code {
		case opBlock, opLoop, opIf:
			depth++
		case opElse, opBrTable:
			return false // Go makes none
		case opEnd:
			if depth > 0 {
				if depth--; depth == 0 {
					falls = true
				}
				continue
			}
			n.last, n.falls = i, falls
			f.nodes = append(f.nodes, n)
			if n.open == 0 {
				f.tail = i
				f.findEntries()
				return true
			}
			falls = true
			n = node{first: i + 1, open: n.open - 1}
		case opBr, opBrIf:
			switch to := int(o.N) - depth; {
			case to < 0: // within the basic block
			case to < n.open:
				return false
			case to == n.open && f.loop:
				j, ok := f.jumpAt(i - 2)
				if !ok || i-2 < n.first {
					return false
				}
				n.jumps = append(n.jumps, j)
			}
			if o.Code == opBr && depth == 0 {
				falls = false
			}
		case opReturn, opUnreachable:
			if depth == 0 {
				falls = false
			}
		}
	}
	return false
}

// jumpAt reads a jump: i32.const, local.set 0, br.
func (f *function) jumpAt(i int) (jump, bool) {
	if f.op(i) != opI32Const || !f.is(i+1, opLocalSet, pcLocal) || f.op(i+2) != opBr {
		return jump{}, false
	}
	pc, ok := f.constant(i)
	to := min(int(pc), len(f.table)-1)
	return jump{i, int(f.table[to]), pc}, ok
}

// findEntries marks the blocks at which a goroutine can come back: the first, those behind a call, and those that begin with
// a call, which could be that of runtime.deferreturn.
func (f *function) findEntries() {
	for k := range f.nodes {
		n := &f.nodes[k]
		i := n.first
		if k > 0 && f.op(i-2) == opBrIf {
			n.entry = true
		}
		for f.op(i) == opNop {
			i++
		}
		if f.is(i, opLocalGet, spLocal) && f.isConst(i+1, opI32Const, 8) && f.op(i+2) == opI32Sub {
			n.entry = true
		}
	}
}

// ifJump reports whether the if at i is nothing but a jump: if, i32.const, local.set 0, br, end.
func (f *function) ifJump(i, last int) bool {
	return i+4 < last && f.plain(i, opIf) && f.op(i+4) == opEnd
}

// moveCold makes nodes of the bodies of ifs that end in a call which never goes on. Checks for nil, which are most of them, differ
// only in the return address: they share one.
func (f *function) moveCold() {
	shared := map[uint32]int{} // called function → node
	for k := range f.blocks {
		depth := 0
		for i := f.nodes[k].first; i < f.nodes[k].last; i++ {
			switch f.op(i) {
			case opBlock, opLoop:
				depth++
			case opEnd:
				depth--
			case opIf:
				open := f.nodes[k].open + depth + 1
				end := f.coldEnd(i, f.nodes[k].last, open)
				if end == 0 {
					depth++
					continue
				}
				c := aside{at: i, end: end, to: len(f.nodes)}
				body := node{first: i + 1, last: end, open: open}
				if callee, ok := f.bareCall(i+1, end); ok {
					c.address, body.shared = i+7, true
					if to, ok := shared[callee]; ok {
						c.to = to
					} else {
						shared[callee] = c.to
					}
				}
				f.nodes[k].cold = append(f.nodes[k].cold, c)
				if c.to == len(f.nodes) {
					f.nodes = append(f.nodes, body)
				}
				i = end
			}
		}
	}
}

// bareCall reports whether from i to end stands nothing but a call without arguments, and which.
func (f *function) bareCall(i, end int) (callee uint32, ok bool) {
	if end != i+13 || !f.isPush(i, end) || !f.isConst(i+8, opI32Const, 0) || f.op(i+9) != opCall {
		return 0, false
	}
	_, offset := f.memarg(i + 7)
	return f.ops[i+9].N, offset == 0
}

// coldEnd returns the end of the if at i, within open blocks, if its body is straight and ends in a call that never returns 0;
// 0 otherwise.
func (f *function) coldEnd(i, last, open int) int {
	if !f.plain(i, opIf) {
		return 0
	}
	for i++; i+4 < last; i++ {
		switch f.op(i) {
		case opBlock, opLoop, opIf, opEnd, opBr, opBrIf, opReturn, opCallIndirect, opUnreachable:
			return 0
		case opCall:
			if f.leaves(i, open) && f.op(i+4) == opEnd {
				return i + 4
			}
			return 0
		}
	}
	return 0
}

// leaves reports whether at i, within open blocks, stands a call that never returns 0, with what follows: global.get 0,
// local.set 1, and a br_if to the way out that is always taken.
func (f *function) leaves(i, open int) bool {
	return f.op(i) == opCall && f.m.unwinds[f.ops[i].N] && f.is(i+1, opGlobalGet, spGlobal) && f.is(i+2, opLocalSet, spLocal) &&
		f.op(i+3) == opBrIf && f.outer(i+3, open) >= 0
}

// outer returns how many blocks further out than the loop the branch at i, within open blocks, leads; less than 0 for none.
func (f *function) outer(i, open int) int {
	if f.loop {
		open++
	}
	return int(f.ops[i].N) - open
}
