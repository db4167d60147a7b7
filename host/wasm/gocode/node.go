package gocode

// node writes the instructions of one node.
func (f *function) node(v int) {
	n := &f.nodes[v]
	jumps, cold := n.jumps, n.cold
	var folds []fold
	depth := 0
	copied := n.first
	// copyTo copies instructions up to i, and leaves out some from there on.
	copyTo := func(i, skip int) {
		if copied < i {
			f.out = append(f.out, f.src[f.ops[copied].Start:f.ops[i-1].End]...)
		}
		copied = i + skip
	}
	for i := n.first; i < n.last; i = max(i+1, copied) {
		o := &f.ops[i]
		switch code := o.Code; {
		case code == opNop:
			copyTo(i, 1)
		case code == opBlock, code == opLoop:
			depth++
		case code == opEnd:
			depth--
		case code == opIf && len(cold) > 0 && cold[0].at == i:
			copyTo(i, f.nodes[cold[0].to].last+1-i)
			f.out = appendU32(append(f.out, opBrIf), f.to(v, cold[0].to, depth))
			cold = cold[1:]
		case code == opIf && len(jumps) > 0 && jumps[0].at == i+1 && f.ifJump(i, n.last) && !f.via[[2]int{v, jumps[0].to}]:
			copyTo(i, 5)
			f.out = appendU32(append(f.out, opBrIf), f.to(v, jumps[0].to, depth))
			jumps = jumps[1:]
		case code == opIf:
			depth++
		case code == opI32Const && len(jumps) > 0 && jumps[0].at == i:
			copyTo(i, 3)
			f.jump(v, jumps[0].to, jumps[0].pc, depth)
			jumps = jumps[1:]
		case code == opCall && i+3 < n.last && f.leaves(i, n.open+depth):
			copyTo(i+1, 3)
			f.out = appendU32(append(f.out, opBr), uint32(depth+f.depth+f.outer(i+3, n.open+depth)))
		case (code == opBr || code == opBrIf) && int(o.N) >= depth:
			copyTo(i, 1)
			f.out = appendU32(append(f.out, code), uint32(depth+f.depth+f.outer(i, n.open+depth)))
		case f.negated(i, n.last):
			copyTo(i, 2)
			f.out = append(f.out, inverse[code])
		case f.isZero(i, n.last):
			copyTo(i, 2)
			if code == opI64Eqz {
				f.out = append(f.out, opI64Const, 0, opI64Ne)
			}
		case f.address(i, n.last):
			offset, _ := f.constant(i + 2)
			copyTo(i+1, 4)
			if at := f.store(i+5, n.last); at > 0 && offset < maxFold {
				folds = append(folds, fold{at, offset})
			} else {
				f.out = append(appendI32(append(f.out, opI32Const), offset), opI32Add)
			}
		case len(folds) > 0 && folds[len(folds)-1].at == i:
			align, offset := f.memarg(i)
			copyTo(i, 1)
			f.out = appendU32(append(f.out, code), align)
			f.out = appendU32(f.out, offset+folds[len(folds)-1].offset)
			folds = folds[:len(folds)-1]
		}
	}
	copyTo(n.last, 0)
	if next := f.next(v); n.falls && (next != f.follows[v] || f.via[[2]int{v, next}]) {
		f.jump(v, next, f.position(next), 0)
	}
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

// fold is a store to which a constant part of its address moves.
type fold struct {
	at     int
	offset uint32
}

// maxFold is less than the frames of functions can have, and less than what lies behind the end of a memory for certain.
const maxFold = 1 << 15

// address reports whether at i stands an address relative to the stack pointer, as Go computes it: local.get 1,
// i64.extend_i32_u, i64.const, i64.add, i32.wrap_i64.
func (f *function) address(i, last int) bool {
	if i+4 >= last || !f.is(i, opLocalGet, spLocal) || f.op(i+1) != opI64ExtendU || f.op(i+2) != opI64Const ||
		f.op(i+3) != opI64Add || f.op(i+4) != opI32WrapI64 {
		return false
	}
	_, ok := f.constant(i + 2)
	return ok
}

// store returns the store that takes the address on top of the stack before i, 0 if that is something else or out of sight.
func (f *function) store(i, last int) int {
	for above := 0; i < last; i++ { // values above the address
		pops, pushes := 0, 1
		switch code := f.op(i); {
		case code >= opI32Store && code <= opI64Store32:
			if _, offset := f.memarg(i); above == 1 && offset < maxFold {
				return i
			}
			pops, pushes = 2, 0
		case code == opLocalGet, code == opGlobalGet, code >= opI32Const && code <= opF64Const:
		case code == opNop:
			pushes = 0
		case code == opLocalSet, code == opDrop:
			pops, pushes = 1, 0
		case code >= opI32Load && code <= opI64Load32U, code == opLocalTee:
			pops = 1
		case code == opSelect:
			pops = 3
		case code >= opI32Eqz && code <= opI64Extend32S:
			pops = operands(code)
		default:
			return 0
		}
		if pops > above || f.ops[i].N == spLocal && (f.op(i) == opLocalSet || f.op(i) == opLocalTee) {
			return 0
		}
		above += pushes - pops
	}
	return 0
}

// operands returns how many operands a numeric instruction takes: comparisons and arithmetic two, tests, bit counts, functions of one
// number and conversions one.
func operands(code byte) int {
	switch {
	case code == opI32Eqz, code == opI64Eqz, code >= 0x67 && code <= 0x69, code >= 0x79 && code <= 0x7b,
		code >= 0x8b && code <= 0x91, code >= 0x99 && code <= 0x9f, code >= opI32WrapI64:
		return 1
	}
	return 2
}
