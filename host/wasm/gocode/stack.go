package gocode

import "slices"

// A call pushes its return address below the stack pointer. That would be a new address, which a compiler has to hold against
// the size of the memory again. Therefore local 1 does not hold the stack pointer, but what is below it.
const below = 8

// maxFold bounds the distances from the stack pointer that become part of an instruction. Nobody has a stack that close to
// the end of the address space.
const maxFold = 1 << 15

// place is something at an instruction, and a distance from local 1.
type place struct {
	at     int
	offset uint32
}

// extent is how far from local 1 instructions use the stack.
type extent struct {
	place
	steps int // accesses each of which is further than those before
}

// stackUse is how a node uses the stack.
type stackUse struct {
	shift  uint32   // from local 1 to the stack pointer: below, or 0 from where a call pushes until it is back
	folds  []place  // stores whose addresses were simplified, the innermost last
	checks []extent // where to ask once whether everything up to a distance is within the memory
}

// checkAt reports whether there is a check before i.
func (u *stackUse) checkAt(i int) bool { return len(u.checks) > 0 && u.checks[0].at == i }

// check writes a load that only asks whether the memory is there: compilers leave out the load, and all further checks up to
// this distance.
func (f *function) check(w *visit) {
	f.out = append(f.out, opLocalGet, spLocal, opI32Load8U, 0)
	f.out = append(appendU32(f.out, w.checks[0].offset-1), opDrop)
	w.checks = w.checks[1:]
}

// stackPointer writes what has to do with the stack pointer.
func (f *function) stackPointer(w *visit, i int) {
	switch {
	case len(w.folds) > 0 && w.folds[len(w.folds)-1].at == i:
		f.copyTo(w, i, 1)
		f.access(i, w.folds[len(w.folds)-1].offset)
		w.folds = w.folds[:len(w.folds)-1]
	case f.is(i, opLocalSet, spLocal):
		f.copyTo(w, i, 0)
		f.out = append(f.out, opI32Const, below, opI32Sub)
		w.shift = below
	case f.is(i, opLocalTee, spLocal):
		f.copyTo(w, i, 1)
		f.out = append(f.out, opI32Const, below, opI32Sub, opLocalTee, spLocal, opI32Const, below, opI32Add)
		w.shift = below
	case !f.is(i, opLocalGet, spLocal):
	case w.shift == below && f.isPush(i, w.last):
		f.copyTo(w, i, 5)
		f.out = append(f.out, opLocalGet, spLocal, opGlobalSet, spGlobal)
		w.shift = 0
	case w.shift == below && f.isReturn(i, w.last) > 0:
		n, size := f.isReturn(i, w.last), uint32(below)
		for k := i; k < i+n; k += 5 {
			v, _ := f.constant(k + 1)
			size += v
		}
		f.copyTo(w, i, n)
		f.out = append(appendI32(append(f.out, opLocalGet, spLocal, opI32Const), size), opI32Add, opGlobalSet, spGlobal)
	case w.shift == below && f.isFrame(i, w.last):
		f.copyTo(w, i+4, 0)
		f.out = append(f.out, opI32Const, below, opI32Add)
		f.copyTo(w, i+5, 0)
	case f.loads(i + 1):
		f.copyTo(w, i+1, 1)
		f.access(i+1, w.shift)
	default:
		offset, skip := f.address(i, w.last)
		if offset < maxFold && f.loads(i+1+skip) {
			f.copyTo(w, i+1, skip+1)
			f.access(i+1+skip, offset+w.shift)
			return
		}
		f.copyTo(w, i+1, skip)
		if at := f.store(i+1+skip, w.last); at > 0 && offset < maxFold {
			w.folds = append(w.folds, place{at, offset + w.shift})
		} else if offset += w.shift; offset > 0 {
			f.out = append(appendI32(append(f.out, opI32Const), offset), opI32Add)
		}
	}
}

// access writes the load or store at i with a greater offset.
func (f *function) access(i int, more uint32) {
	align, offset := f.memarg(i)
	f.out = appendU32(append(f.out, f.op(i)), align)
	f.out = appendU32(f.out, offset+more)
}

// loads reports whether at i stands a load with a small offset.
func (f *function) loads(i int) bool {
	if f.op(i) < opI32Load || f.op(i) > opI64Load32U {
		return false
	}
	_, offset := f.memarg(i)
	return offset < maxFold
}

// address looks whether at i stands an address relative to the stack pointer as Go computes it: local.get 1,
// i64.extend_i32_u, i64.const, i64.add, i32.wrap_i64. It returns the distance, and the number of instructions behind the first.
func (f *function) address(i, last int) (offset uint32, skip int) {
	if i+4 >= last || f.op(i+1) != opI64ExtendU || f.op(i+2) != opI64Const || f.op(i+3) != opI64Add || f.op(i+4) != opI32WrapI64 {
		return 0, 0
	}
	offset, ok := f.constant(i + 2)
	if !ok || offset >= 1<<30 {
		return 0, 0
	}
	return offset, 4
}

// isFrame reports whether at i the stack pointer moves: local.get 1, i32.const, i32.sub or i32.add, local.tee 1, global.set 0.
func (f *function) isFrame(i, last int) bool {
	return i+4 < last && f.is(i, opLocalGet, spLocal) && f.op(i+1) == opI32Const && (f.op(i+2) == opI32Sub || f.op(i+2) == opI32Add) &&
		f.is(i+3, opLocalTee, spLocal) && f.is(i+4, opGlobalSet, spGlobal)
}

// isPush reports whether at i begins a call: the stack pointer moves by 8, the return address is stored, and behind the call
// the stack pointer is read again.
func (f *function) isPush(i, last int) bool {
	if !f.isFrame(i, last) || !f.isConst(i+1, opI32Const, below) || f.op(i+2) != opI32Sub ||
		!f.is(i+5, opLocalGet, spLocal) || f.op(i+6) != opI64Const || f.op(i+7) != opI64Store {
		return false
	}
	for i += 8; i+2 < last; i++ {
		switch code := f.op(i); {
		case code == opCall, code == opCallIndirect:
			return f.is(i+1, opGlobalGet, spGlobal) && f.is(i+2, opLocalSet, spLocal)
		case code == opI32Const, code == opI64Const, code == opI64ShrU, code == opI32WrapI64, f.is(i, opLocalSet, pcLocal), f.is(i, opLocalGet, pcLocal):
		default:
			return false
		}
	}
	return false
}

// isReturn reports whether at i the stack pointer moves up, over the frame and the return address, and the function returns
// then. It returns the number of instructions that move it, or 0.
func (f *function) isReturn(i, last int) int {
	n := 0
	for n < 10 && f.isFrame(i+n, last) && f.op(i+n+2) == opI32Add {
		if v, ok := f.constant(i + n + 1); !ok || v >= 1<<30 {
			return 0
		}
		n += 5
	}
	if n > 0 && i+n+1 < last && f.op(i+n) == opI32Const && f.op(i+n+1) == opReturn {
		return n
	}
	return 0
}

// stackUses finds how the nodes use the stack. From where the function has its frame all ask for as much as any of them uses,
// since what has been asked needs no answer again. Elsewhere to ask must be worth it.
func (f *function) stackUses() {
	f.uses = f.uses[:0]
	framed, most := f.framed(), uint32(0)
	inFrame := func(k int, e extent) bool { return k < f.blocks && framed > 0 && e.at >= framed }
	for k := range f.nodes {
		u := f.stackUse(&f.nodes[k])
		f.uses = append(f.uses, u)
		for _, e := range u.checks {
			if inFrame(k, e) {
				most = max(most, e.offset)
			}
		}
	}
	for k := range f.uses {
		u := &f.uses[k]
		u.checks = slices.DeleteFunc(u.checks, func(e extent) bool { return !inFrame(k, e) && e.steps < 3 })
		for j := range u.checks {
			if inFrame(k, u.checks[j]) {
				u.checks[j].offset = most
			}
		}
	}
}

// framed returns the instruction, in the first basic block, from which on local 1 is always the same distance below the function's
// arguments; 0 if there is none.
func (f *function) framed() int {
	framed := f.nodes[0].first
	for i := framed; i < f.tail; i++ {
		switch {
		case (f.is(i, opLocalSet, spLocal) || f.is(i, opLocalTee, spLocal)) && !f.is(i-1, opGlobalGet, spGlobal):
			return 0
		case !f.isFrame(i, f.tail):
		case f.isPush(i, f.tail):
			i += 4
		case f.isReturn(i, f.tail) > 0:
			i += f.isReturn(i, f.tail) - 1
		case framed > f.nodes[0].first, f.op(i+2) != opI32Sub, i >= f.nodes[0].last, len(f.nodes[0].jumps) > 0 && f.nodes[0].jumps[0].at < i:
			return 0
		default:
			i += 4
			framed = i + 1
		}
	}
	return framed
}

// stackUse finds where the stack pointer changes, and how far from it the stack is used.
func (f *function) stackUse(n *node) stackUse {
	u := stackUse{shift: below}
	shift, from, greater, most := uint32(below), n.first, 0, uint32(0)
	end := func(next int) {
		if greater > 0 {
			u.checks = append(u.checks, extent{place{from, most}, greater})
		}
		from, greater, most = next, 0, 0
	}
	access := func(i int, offset uint32) {
		_, more := f.memarg(i)
		if far := offset + more + width(f.op(i)); far > most {
			most = far
			greater++
		}
	}
	for i := n.first; i < n.last; i++ {
		switch {
		case f.is(i, opLocalSet, spLocal), f.is(i, opLocalTee, spLocal):
			end(i + 1)
			shift = below
		case !f.is(i, opLocalGet, spLocal):
		case shift == below && f.isPush(i, n.last):
			shift = 0
			i += 4
		case f.isFrame(i, n.last):
			end(i + 5)
			i += 4
		case f.loads(i + 1):
			access(i+1, shift)
		default:
			offset, skip := f.address(i, n.last)
			switch at := i + 1 + skip; {
			case offset >= maxFold:
			case f.loads(at):
				access(at, offset+shift)
			default:
				if at = f.store(at, n.last); at > 0 {
					access(at, offset+shift)
				}
			}
		}
	}
	end(n.last)
	return u
}

// width returns how many bytes a load or store touches.
func width(code byte) uint32 {
	switch code {
	case 0x29, 0x2b, 0x37, 0x39: // of 64 bits
		return 8
	case 0x2c, 0x2d, 0x30, 0x31, 0x3a, 0x3c: // of 8
		return 1
	case 0x2e, 0x2f, 0x32, 0x33, 0x3b, 0x3d: // of 16
		return 2
	}
	return 4
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
