package gocode

// visit is the state of writing one node.
type visit struct {
	node
	v      int
	depth  int // open blocks of its own
	copied int // the first instruction that is not yet written
	stackUse
}

// node writes the instructions of one node.
func (f *function) node(v int) {
	w := &visit{node: f.nodes[v], v: v, copied: f.nodes[v].first}
	w.stackUse = f.uses[v]
	for i := w.first; i < w.last; i = max(i+1, w.copied) {
		if w.checkAt(i) {
			f.copyTo(w, i, 0)
			f.check(w)
		}
		if !f.branch(w, i) && !f.condition(w, i) {
			f.stackPointer(w, i)
		}
	}
	f.copyTo(w, w.last, 0)
	if next := f.next(v); w.falls && (next != f.follows[v] || f.via[[2]int{v, next}]) {
		f.jump(v, next, f.position(next), 0)
	}
}

// copyTo copies instructions up to i, and leaves out some from there on.
func (f *function) copyTo(w *visit, i, skip int) {
	if w.copied < i {
		f.out = append(f.out, f.src[f.ops[w.copied].Start:f.ops[i-1].End]...)
	}
	w.copied = i + skip
}

// branch writes what leads elsewhere, and reports whether that stands at i.
func (f *function) branch(w *visit, i int) bool {
	switch code := f.op(i); {
	case code == opNop:
		f.copyTo(w, i, 1)
	case code == opBlock, code == opLoop:
		w.depth++
	case code == opEnd:
		w.depth--
	case code == opIf && len(w.cold) > 0 && w.cold[0].at == i:
		c := w.cold[0]
		f.copyTo(w, i, c.end+1-i)
		if c.address > 0 {
			f.out = append(f.out, f.src[f.ops[c.address].Start:f.ops[c.address].End]...)
			f.out = appendU32(append(f.out, opLocalSet), f.local)
		}
		f.out = appendU32(append(f.out, opBrIf), f.to(w.v, c.to, w.depth))
		w.cold = w.cold[1:]
	case code == opI64Const && w.shared:
		f.copyTo(w, i, 1)
		f.out = appendU32(append(f.out, opLocalGet), f.local)
	case code == opIf && w.jumpsAt(i+1) && f.ifJump(i, w.last) && !f.via[[2]int{w.v, w.jumps[0].to}]:
		f.copyTo(w, i, 5)
		f.out = appendU32(append(f.out, opBrIf), f.to(w.v, w.jumps[0].to, w.depth))
		w.jumps = w.jumps[1:]
	case code == opIf:
		w.depth++
	case code == opI32Const && w.jumpsAt(i):
		f.copyTo(w, i, 3)
		f.jump(w.v, w.jumps[0].to, w.jumps[0].pc, w.depth)
		w.jumps = w.jumps[1:]
	case code == opCall && i+3 < w.last && f.leaves(i, w.open+w.depth):
		f.copyTo(w, i+1, 3)
		f.out = appendU32(append(f.out, opBr), uint32(w.depth+f.depth+f.outer(i+3, w.open+w.depth)))
		w.shift = below
	case (code == opBr || code == opBrIf) && int(f.ops[i].N) >= w.depth:
		f.copyTo(w, i, 1)
		f.out = appendU32(append(f.out, code), uint32(w.depth+f.depth+f.outer(i, w.open+w.depth)))
	default:
		return false
	}
	return true
}

// jumpsAt reports whether the next jump begins at i.
func (w *visit) jumpsAt(i int) bool { return len(w.jumps) > 0 && w.jumps[0].at == i }

// condition simplifies a negated condition, and reports whether one stands at i.
func (f *function) condition(w *visit, i int) bool {
	switch {
	case f.negated(i, w.last):
		f.copyTo(w, i, 2)
		f.out = append(f.out, inverse[f.op(i)])
	case f.isZero(i, w.last):
		f.copyTo(w, i, 2)
		if f.op(i) == opI64Eqz {
			f.out = append(f.out, opI64Const, 0, opI64Ne)
		}
	default:
		return false
	}
	return true
}

// jump writes an unconditional branch from v, within depth blocks.
func (f *function) jump(v, to int, pc uint32, depth int) {
	if f.via[[2]int{v, to}] {
		f.out = append(appendI32(append(f.out, opI32Const), pc), opLocalSet, pcLocal)
		to = f.root
	}
	f.out = appendU32(append(f.out, opBr), f.to(v, to, depth))
}

// position returns the first position that the br_table sends to basic block k.
func (f *function) position(k int) uint32 {
	for pc, to := range f.table {
		if int(to) == k {
			return uint32(pc)
		}
	}
	return 0
}

// inverse has the opposite of each comparison of integers.
var inverse = func() (t [256]byte) {
	// eq ne, lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u
	for _, base := range []byte{opI32Eq, opI64Eq} {
		for k, other := range []byte{1, 0, 8, 9, 6, 7, 4, 5, 2, 3} {
			t[base+byte(k)] = base + other
		}
	}
	return t
}()

// negated reports whether at i stands a comparison whose result is negated.
func (f *function) negated(i, last int) bool {
	return inverse[f.op(i)] != 0 && i+1 < last && f.op(i+1) == opI32Eqz
}

// isZero reports whether at i stands a comparison with zero, negated, of which only matters whether it is true.
func (f *function) isZero(i, last int) bool {
	return (f.op(i) == opI32Eqz || f.op(i) == opI64Eqz) && i+2 < last && f.op(i+1) == opI32Eqz && (f.op(i+2) == opIf || f.op(i+2) == opBrIf)
}
