package gocode

import "slices"

// number finds values that are computed again. If it finds that an address is taken, it is to be done once more.
func (r *reuse) number() bool {
	r.stack, r.kept, r.edits, r.consts = r.stack[:0], r.kept[:0], r.edits[:0], r.consts[:0]
	r.scopes, r.made = r.scopes[:0], r.made[:0]
	r.values = append(r.values[:0], places{-1, -1})
	r.forget()
	for i := range r.ops {
		if !r.step(i) {
			return false
		}
	}
	return true
}

func (r *reuse) forget() {
	r.slots = r.slots[:0]
	clear(r.locals)
}

func (r *reuse) push(o operand) { r.stack = append(r.stack, o) }

func (r *reuse) pop() operand {
	k := len(r.stack) - 1
	if k < 0 {
		return operand{kind: isLost, start: -1}
	}
	o := r.stack[k]
	r.stack = r.stack[:k]
	return o
}

// use pops a value that becomes part of another: an address within the frame is known to more than this function from then on.
func (r *reuse) use() operand {
	o := r.pop()
	r.taken = r.taken || o.kind == isStack || o.kind == isMoved
	return o
}

// lose forgets the operand stack.
func (r *reuse) lose() {
	for len(r.stack) > 0 {
		r.use()
	}
}

func (r *reuse) fresh() value {
	r.values = append(r.values, places{-1, -1})
	return value(len(r.values) - 1)
}

// step looks at instruction i.
func (r *reuse) step(i int) bool {
	switch code := r.op(i); {
	case code >= opLocalGet && code <= opLocalTee && int(r.ops[i].N) >= len(r.locals):
		return false
	case code == opLocalGet && r.ops[i].N == spLocal:
		r.push(operand{kind: isStack, start: i})
	case code == opLocalGet:
		l := &r.locals[r.ops[i].N]
		if l.value == 0 {
			*l = known{value: r.fresh(), born: i}
		}
		r.push(operand{start: i, value: l.value})
	case code == opLocalSet, code == opLocalTee:
		r.set(i, r.pop())
	case code >= opI32Load && code <= opI64Load32U:
		r.load(i, r.pop())
	case code >= opI32Store && code <= opI64Store32:
		v := r.use()
		r.store(i, r.pop(), v)
	case code >= opI32Const && code <= opF64Const:
		o := operand{start: i}
		if n, ok := r.constant(i); ok && code <= opI64Const {
			o.kind, o.addr = isConst, n
		}
		r.push(o)
	case code == opI32WrapI64:
		r.wrap(i, r.use())
	case code == opI32Add, code == opI32Sub:
		b, a := r.pop(), r.pop()
		o := operand{start: -1}
		if b.kind == isConst && (a.kind == isStack || a.kind == isMoved) {
			o.kind = isMoved
		} else {
			r.stack = append(r.stack, a, b)
			r.use()
			r.use()
		}
		r.push(o)
	case code >= opI32Eqz && code <= opI32GeU: // a comparison gives nothing away
		for range operands(code) {
			r.pop()
		}
		r.push(operand{start: -1})
	case code >= opI32Eqz && code <= opI64Extend32S:
		for range operands(code) {
			r.use()
		}
		r.push(operand{start: -1, value: r.fresh()})
	case code == opGlobalGet:
		r.push(operand{start: -1})
	case code == opGlobalSet && r.ops[i].N == spGlobal, code == opDrop:
		r.pop()
	case code == opGlobalSet:
		r.use()
	case code == opSelect:
		r.pop()
		r.use()
		r.use()
		r.push(operand{start: -1, value: r.fresh()})
	case code == opNop:
	default:
		return r.leave(i, code)
	}
	return true
}

// leave looks at instruction i, behind which the operand stack is another one.
func (r *reuse) leave(i int, code byte) bool {
	if code == opIf || code == opBrIf || code == opBrTable {
		r.pop()
	}
	r.lose()
	switch code {
	case opBlock, opIf, opLoop:
		if code == opLoop {
			r.forget() // it may come from further below
		}
		r.scopes = append(r.scopes, scope{i, len(r.made), code == opLoop})
	case opEnd:
		if k := len(r.scopes) - 1; k >= 0 {
			if !r.scopes[k].loop {
				r.merge(r.scopes[k])
			}
			r.scopes = r.scopes[:k]
		}
	case opElse:
		return false
	case opBr, opBrIf, opBrTable, opReturn, opUnreachable:
	default: // calls, and whatever else there is
		r.forget()
	}
	return true
}

// merge forgets what has been learnt within a block: branches to its end may have passed it by.
func (r *reuse) merge(s scope) {
	later := func(k known) bool { return k.born > s.at }
	r.slots = slices.DeleteFunc(r.slots, later)
	for k := range r.locals {
		if later(r.locals[k]) {
			r.locals[k].value = 0
		}
	}
	for _, m := range r.made[s.made:] {
		if m.wide {
			r.values[m.value].wide = -1
		} else {
			r.values[m.value].wrapped = -1
		}
	}
	r.made = r.made[:s.made]
}

// set looks at a local.set or local.tee of o.
func (r *reuse) set(i int, o operand) {
	n := r.ops[i].N
	switch {
	case n == spLocal:
		r.slots = r.slots[:0]
		for k := range r.stack {
			if r.stack[k].kind == isStack {
				r.stack[k].kind = isMoved // it is what was in local 1
			}
		}
	case o.kind == isStack || o.kind == isMoved:
		r.taken = true
	}
	if o.value == 0 {
		o.value = r.fresh()
	}
	r.locals[n] = known{value: o.value, born: i}
	if r.op(i) == opLocalTee {
		kind := isOther
		if n == spLocal {
			kind = isMoved
		}
		r.push(operand{kind: kind, start: -1, value: o.value})
	}
}

// keep notes that value v, or its low half, is on top of the operand stack behind instruction i.
func (r *reuse) keep(i int, v value, wide bool) {
	r.kept = append(r.kept, kept{at: i, wide: wide})
	r.made = append(r.made, made{v, wide})
	if wide {
		r.values[v].wide = len(r.kept) - 1
	} else {
		r.values[v].wrapped = len(r.kept) - 1
	}
}

// holder returns where value v is: a local of the function, or an index of kept.
func (r *reuse) holder(v value) (local uint32, kept int, ok bool) {
	for n := range r.locals {
		if r.locals[n].value == v && n != spLocal {
			return uint32(n), -1, true
		}
	}
	kept = r.values[v].wide
	return 0, kept, kept >= 0
}

// load looks at a load from a.
func (r *reuse) load(i int, a operand) {
	code := r.op(i)
	_, offset := r.memarg(i)
	o := operand{start: -1}
	switch {
	case a.kind == isStack && a.start == i-1 && readsWide(code):
		o.start = i - 1
		k := slices.IndexFunc(r.slots, func(s known) bool { return s.offset == offset && s.load == code })
		if k < 0 {
			o.value = r.fresh()
			r.slot(known{offset: offset, load: code, value: o.value, born: i})
			r.keep(i, o.value, true)
			break
		}
		o.value = r.slots[k].value
		if local, kept, ok := r.holder(o.value); ok {
			r.edits = append(r.edits, edit{i - 1, i, kept, local})
		} else {
			r.keep(i, o.value, true)
		}
	case a.kind == isConst:
		r.constAccess(i, a, offset)
		o.value = r.fresh()
	case readsWide(code):
		o.value = r.fresh()
	}
	r.push(o)
}

// readsWide reports whether a load gives an i64.
func readsWide(code byte) bool { return code == opI64Load || code >= 0x30 && code <= opI64Load32U }

func (r *reuse) slot(s known) {
	if len(r.slots) == maxSlots {
		r.slots = slices.Delete(r.slots, 0, 1)
	}
	r.slots = append(r.slots, s)
}

func (r *reuse) constAccess(i int, a operand, offset uint32) {
	if a.start >= 0 && r.op(a.start+1) == opI32WrapI64 && uint64(a.addr)+uint64(offset) < 1<<31 {
		r.consts = append(r.consts, constAccess{a.start, i, a.addr})
	}
}

// store looks at a store of v to a.
func (r *reuse) store(i int, a, v operand) {
	code := r.op(i)
	_, offset := r.memarg(i)
	switch {
	case a.kind == isStack:
		end := offset + width(code)
		r.slots = slices.DeleteFunc(r.slots, func(s known) bool { return s.offset < end && offset < s.offset+width(s.load) })
		if code != opI64Store || v.kind == isLost {
			return
		}
		if v.value == 0 {
			v.value = r.fresh()
		}
		r.slot(known{offset: offset, load: opI64Load, value: v.value, born: i})
		if _, _, ok := r.holder(v.value); !ok {
			r.keep(i-1, v.value, true)
		}
	case a.kind == isMoved, a.kind == isLost, r.taken:
		r.slots = r.slots[:0]
	}
	if a.kind == isConst {
		r.constAccess(i, a, offset)
	}
}

// wrap looks at an i32.wrap_i64 of o.
func (r *reuse) wrap(i int, o operand) {
	if o.kind == isConst {
		r.push(operand{kind: isConst, start: o.start, addr: o.addr})
		return
	}
	r.push(operand{start: -1})
	if o.value == 0 {
		return
	}
	p := &r.values[o.value]
	if p.wrapped < 0 {
		r.keep(i, o.value, false)
		return
	}
	if o.start < 0 {
		return
	}
	if k := len(r.edits) - 1; k >= 0 && r.edits[k].first >= o.start {
		r.edits = r.edits[:k]
	}
	if p.wide >= 0 && r.kept[p.wide].at >= o.start {
		p.wide = -1 // it would not be there
	}
	r.edits = append(r.edits, edit{o.start, i, p.wrapped, 0})
}
