package instrument

import "github.com/convhost/convhost/host/wasm/gocode"

// straightener takes Go's functions through package gocode.
type straightener struct {
	m    *Module
	s    scanner // of what comes out
	code *gocode.Module
	ops  []gocode.Op
	out  []byte
	body body
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
		return r, b
	}
	st.decode(r)
	st.out = append(appendU32(st.out[:0], uint32(b.ngroups+1)), r.b[b.groups.start:b.groups.end]...)
	st.out = append(st.out, 1, typeI64)
	var ok bool
	if st.out, ok = st.code.Straighten(st.out, r.b, st.ops, uint32(b.locals)); !ok {
		return r, b
	}
	out := &reader{b: st.out, end: len(st.out)}
	st.s.scan(out, st.m.types[st.m.funcTypes[i]], &st.body)
	if out.err != nil {
		return r, b
	}
	out.pos = st.body.code
	return out, &st.body
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
