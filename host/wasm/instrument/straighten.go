package instrument

import "github.com/convhost/convhost/host/wasm/gocode"

// straightener takes Go's functions through package gocode.
type straightener struct {
	m    *Module
	s    scanner // of what comes out
	code *gocode.Module
	ops  []gocode.Op
	body body

	out, scratch, last []byte // bodies
}

// straightWork bounds what straightening does: steps a byte of code. Go's code takes less than one.
const straightWork = 8

// newStraightener returns nil for a module that does not say that a supported version of Go made it.
func newStraightener(m *Module) *straightener {
	if !gocode.Supported(m.goVersion) {
		return nil
	}
	sp := m.sec[secCode]
	return &straightener{m: m, s: scanner{m: m}, code: gocode.NewModule(straightWork * (sp.end - sp.start))}
}

// ours reports whether function i has the type of Go's functions.
func (st *straightener) ours(i int) bool {
	t := st.m.types[st.m.funcTypes[i]]
	return t.Params == "\x7f" && t.Results == "\x7f"
}

// see lets package gocode know a function.
func (st *straightener) see(i int, r *reader, _ *body) {
	if st.ours(i) {
		st.decode(r)
		st.code.See(uint32(st.m.imported[KindFunc]+i), r.b, st.ops)
	}
}

// straighten returns the straightened function, or what it got if there is nothing to do or the result would exceed the limits.
func (st *straightener) straighten(i int, r *reader, b *body) (*reader, *body) {
	if !st.ours(i) {
		return st.hasten(i, r, b)
	}
	st.decode(r)
	st.out = append(appendU32(st.out[:0], uint32(b.ngroups+1)), r.b[b.groups.start:b.groups.end]...)
	st.out = append(st.out, 1, typeI64)
	var ok bool
	if st.out, ok = st.code.Straighten(st.out, r.b, st.ops, uint32(b.locals)); !ok {
		return r, b
	}
	total := st.s.total
	out, ok := st.scan(i, st.out)
	if !ok {
		return r, b
	}
	st.decode(out)
	code, small, wide, ok := st.code.Reuse(st.scratch[:0], out.b, st.ops, uint32(b.locals+1))
	st.scratch = code
	if !ok {
		return out, &st.body
	}
	groups := b.ngroups + 1
	for _, n := range []int{small, wide} {
		if n > 0 {
			groups++
		}
	}
	st.last = append(appendU32(st.last[:0], uint32(groups)), r.b[b.groups.start:b.groups.end]...)
	st.last = append(st.last, 1, typeI64)
	if small > 0 {
		st.last = append(appendU32(st.last, uint32(small)), typeI32)
	}
	if wide > 0 {
		st.last = append(appendU32(st.last, uint32(wide)), typeI64)
	}
	st.last = append(st.last, code...)
	st.s.total = total
	if last, ok := st.scan(i, st.last); ok {
		return last, &st.body
	}
	st.s.total = total
	out, _ = st.scan(i, st.out)
	return out, &st.body
}

// hasten returns a function with what package gocode puts before it.
func (st *straightener) hasten(i int, r *reader, b *body) (*reader, *body) {
	t := st.m.types[st.m.funcTypes[i]]
	first := gocode.Hasten(t.Params, t.Results, r.b[r.pos:r.end])
	if first == nil {
		return r, b
	}
	st.out = append(appendU32(st.out[:0], uint32(b.ngroups)), r.b[b.groups.start:b.groups.end]...)
	st.out = append(append(st.out, first...), r.b[r.pos:r.end]...)
	if out, ok := st.scan(i, st.out); ok {
		return out, &st.body
	}
	return r, b
}

// scan reads the body of function i again, and returns a reader of its instructions.
func (st *straightener) scan(i int, code []byte) (*reader, bool) {
	r := &reader{b: code, end: len(code)}
	st.s.scan(r, st.m.types[st.m.funcTypes[i]], &st.body)
	r.pos = st.body.code
	return r, r.err == nil
}

// decode fills ops with the instructions of r, and leaves r where it is.
func (st *straightener) decode(r *reader) {
	sub := *r
	st.ops = st.ops[:0]
	var in instr
	for sub.err == nil && sub.left() > 0 {
		sub.next(&in)
		st.ops = append(st.ops, gocode.Op{Code: in.op, N: in.index, Start: int32(in.start), End: int32(sub.pos)})
	}
}
