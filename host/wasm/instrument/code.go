package instrument

import (
	"fmt"

	"github.com/convhost/convhost/abi"
)

// codeSection writes all bodies with their checks.
func (w *writer) codeSection() []byte {
	st := newStraightener(w.m)
	if st != nil {
		w.eachBody(st.see)
		st.code.Settle()
	}
	sp := w.m.sec[secCode]
	out := appendU32(make([]byte, 0, (sp.end-sp.start)/8*9), uint32(len(w.m.funcTypes)))
	var scratch []byte
	w.eachBody(func(i int, r *reader, b *body) {
		if st != nil {
			r, b = st.straighten(i, r, b)
		}
		scratch = w.body(r, b, scratch[:0])
		out = append(appendU32(out, uint32(len(scratch))), scratch...)
	})
	return out
}

// eachBody calls do with every body: r stands at its first instruction and ends with it.
func (w *writer) eachBody(do func(i int, r *reader, b *body)) {
	m := w.m
	r := m.section(secCode)
	n := r.count("number of bodies", m.lim.Functions, 3)
	if r.err == nil && n != len(m.funcTypes) {
		r.bad("number of bodies", n, fmt.Sprintf("%d, the number of functions", len(m.funcTypes)))
	}
	if r.err == nil && r.left() > m.lim.CodeBytes {
		r.fail(abi.ErrLimit, "code section", fmt.Sprint(r.left()), fmt.Sprintf("at most %d bytes", m.lim.CodeBytes))
	}
	s := &scanner{m: m}
	var b body
	for i := 0; i < n && r.err == nil; i++ {
		size := r.count("size of a body", m.lim.BodyBytes, 1)
		if r.err != nil {
			break
		}
		sub := &reader{b: r.b, pos: r.pos, end: r.pos + size}
		s.scan(sub, m.types[m.funcTypes[i]], &b)
		if sub.err != nil {
			r.err = sub.err
			break
		}
		sub.pos = b.code
		do(i, sub, &b)
		r.pos += size
	}
	w.done(r, "code section")
}

// body writes one function. The checks need two more locals, which are added behind the others: the first counts down
// instructions within loops, the second holds the length of a bulk operation.
func (w *writer) body(r *reader, b *body, out []byte) []byte {
	groups := r.b[b.groups.start:b.groups.end]
	if b.bulk || len(b.loops) > 0 {
		out = append(appendU32(out, uint32(b.ngroups+1)), groups...)
		out = append(out, 2, typeI32)
	} else {
		out = append(appendU32(out, uint32(b.ngroups)), groups...)
	}
	if b.entry {
		out = w.spend(out, 1+b.length/checkedLength)
	}
	loops := b.loops
	var in instr
	copied := r.pos
	for r.err == nil && r.left() > 0 {
		r.next(&in)
		switch in.op {
		case opCall, opRefFunc:
			out = append(out, r.b[copied:in.start+1]...)
			out = appendU32(out, w.shift(in.index))
			copied = r.pos
		case opLoop:
			out = append(out, r.b[copied:r.pos]...)
			out = w.spendLoop(out, loops[0], b.locals)
			loops = loops[1:]
			copied = r.pos
		case opPrefixBulk:
			shift := bulkShift(in.sub)
			if shift < 0 {
				continue
			}
			out = append(out, r.b[copied:in.start]...)
			out = w.spendLength(out, uint32(shift), b.locals+1)
			out = append(out, r.b[in.start:r.pos]...)
			out = w.pollIfSpent(out)
			copied = r.pos
		}
	}
	return append(out, r.b[copied:r.end]...)
}

// spendLoop counts instructions in a local, which starts at 0, and spends units of the budget for loopChunk of them at a
// time. So the first iteration in a call spends, and further ones cost next to nothing. An iteration counts as an
// eighth of the loop's length: Go makes one loop of each function, and runs a few of its blocks in an iteration.
//
//	local.get T; i32.const weight; i32.sub; local.tee T; i32.const 0; i32.lt_s
//	if; i32.const loopChunk; local.set T; … spend …; end
func (w *writer) spendLoop(out []byte, instructions, local int) []byte {
	out = appendU32(append(out, opLocalGet), uint32(local))
	weight := 1 + instructions/8
	out = appendI32(append(out, opI32Const), uint32(weight))
	out = appendU32(append(out, opI32Sub, opLocalTee), uint32(local))
	out = append(out, opI32Const, 0, opI32LtS, opIf, emptyBlock)
	out = appendI32(append(out, opI32Const), loopChunk)
	out = appendU32(append(out, opLocalSet), uint32(local))
	out = w.spend(out, (loopChunk+weight)/checkedLength)
	return append(out, opEnd)
}

// spend subtracts units from the budget and polls when it is used up:
//
//	global.get G; i32.const units; i32.sub; global.set G
//	global.get G; i32.const 0; i32.le_s; if; call poll; i32.const Budget; global.set G; end
func (w *writer) spend(out []byte, units int) []byte {
	out = appendU32(append(out, opGlobalGet), w.global)
	out = appendI32(append(out, opI32Const), uint32(units))
	out = appendU32(append(out, opI32Sub, opGlobalSet), w.global)
	return w.pollIfSpent(out)
}

// spendLength subtracts the unsigned number on top of the stack, shifted right, and leaves it there.
func (w *writer) spendLength(out []byte, shift uint32, local int) []byte {
	out = appendU32(append(out, opLocalTee), uint32(local))
	out = appendU32(append(out, opGlobalGet), w.global)
	out = appendU32(append(out, opLocalGet), uint32(local))
	out = appendI32(append(out, opI32Const), shift)
	return appendU32(append(out, opI32ShrU, opI32Sub, opGlobalSet), w.global)
}

// pollIfSpent polls when the budget is used up.
func (w *writer) pollIfSpent(out []byte) []byte {
	out = appendU32(append(out, opGlobalGet), w.global)
	out = append(out, opI32Const, 0, opI32LeS, opIf, emptyBlock, opCall)
	out = appendU32(out, w.poll)
	out = appendI32(append(out, opI32Const), Budget)
	out = appendU32(append(out, opGlobalSet), w.global)
	return append(out, opEnd)
}
