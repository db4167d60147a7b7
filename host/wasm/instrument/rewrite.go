package instrument

import (
	"encoding/binary"
	"fmt"

	"github.com/convhost/convhost/abi"
)

// Version names what Rewrite does to a module. It must change whenever the result for some module or a check changes:
// results are kept between runs under this name. TestVersion holds it against fixed modules.
const Version = "4"

// Budget is the number of units that the guest spends between two polls. A unit is a call, some 1000 to 8000
// instructions in loops, or 128 bytes moved: mostly less than a millisecond of guest time in all, at worst some 300.
const Budget = 50_000

// Rewrite returns the module with checks, which import the function poll, () -> (), from module.
func (m *Module) Rewrite(module, name string) ([]byte, error) {
	w := &writer{m: m, poll: uint32(m.imported[KindFunc]), global: uint32(m.imported[KindGlobal] + m.globals)}
	out := append(make([]byte, 0, len(m.wasm)+len(m.wasm)/8+256), m.wasm[:8]...)
	pollType := len(m.types)
	for i, t := range m.types {
		if t.Params == "" && t.Results == "" {
			pollType = i
			break
		}
	}
	for _, s := range []struct {
		id    int
		build func() []byte
	}{
		{secType, func() []byte { return w.typeSection(pollType) }},
		{secImport, func() []byte { return w.importSection(module, name, pollType) }},
		{secFunction, nil},
		{secTable, w.tableSection},
		{secMemory, nil},
		{secGlobal, w.globalSection},
		{secExport, w.exportSection},
		{secStart, w.startSection},
		{secElement, w.elementSection},
		{secDataCount, nil},
		{secCode, w.codeSection},
		{secData, w.dataSection},
	} {
		var content []byte
		switch sp := m.sec[s.id]; {
		case sp.start == 0 && s.id != secType && s.id != secImport && s.id != secGlobal:
			continue
		case s.build == nil:
			content = m.wasm[sp.start:sp.end]
		default:
			content = s.build()
		}
		if w.err != nil {
			return nil, w.err
		}
		out = append(out, byte(s.id))
		out = append(appendU32(out, uint32(len(content))), content...)
	}
	if m.sec[secCode].start == 0 && len(m.funcTypes) > 0 {
		return nil, &abi.FormatError{Class: abi.ErrCorrupt, Format: "wasm module", Off: int64(len(m.wasm)), Field: "code section",
			Got: "missing", Want: fmt.Sprintf("%d bodies", len(m.funcTypes))}
	}
	return out, nil
}

// writer builds the sections of the new module. The first error sticks.
type writer struct {
	m      *Module
	poll   uint32 // function index of the poll
	global uint32 // global index of the counter
	err    error
}

func appendU32(b []byte, v uint32) []byte { return binary.AppendUvarint(b, uint64(v)) }

// appendI32 encodes a signed number that is not negative.
func appendI32(b []byte, v uint32) []byte {
	for v >= 0x40 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// shift renumbers a function index.
func (w *writer) shift(i uint32) uint32 {
	if i >= w.poll {
		return i + 1
	}
	return i
}

// done keeps r's error, and complains about what a section has left.
func (w *writer) done(r *reader, field string) {
	if r.err == nil && r.pos != r.end {
		r.bad(field, fmt.Sprintf("%d bytes longer than its contents", r.left()), "none left")
	}
	if w.err == nil {
		w.err = r.err
	}
}

// grown returns the section with its count n replaced by n+1, ready for one more element.
func (w *writer) grown(id, n int) []byte {
	sp := w.m.sec[id]
	out := appendU32(nil, uint32(n+1))
	if sp.start == 0 {
		return out
	}
	r := w.m.section(id)
	r.u32("count")
	return append(out, w.m.wasm[r.pos:sp.end]...)
}

func (w *writer) typeSection(pollType int) []byte {
	if pollType < len(w.m.types) {
		return w.m.wasm[w.m.sec[secType].start:w.m.sec[secType].end]
	}
	return append(w.grown(secType, len(w.m.types)), 0x60, 0, 0)
}

func (w *writer) importSection(module, name string, pollType int) []byte {
	out := w.grown(secImport, len(w.m.Imports))
	for _, s := range []string{module, name} {
		out = append(appendU32(out, uint32(len(s))), s...)
	}
	return appendU32(append(out, KindFunc), uint32(pollType))
}

// tableSection bounds the growth of every table.
func (w *writer) tableSection() []byte {
	r := w.m.section(secTable)
	n := r.count("number of tables", maxTables, 3)
	out := appendU32(nil, uint32(n))
	for range n {
		kind, lo, hi := w.m.readTable(r)
		if hi < 0 || hi > maxTable {
			hi = maxTable
		}
		out = appendU32(appendU32(append(out, kind, 1), uint32(lo)), uint32(hi))
	}
	w.done(r, "table section")
	return out
}

func (w *writer) globalSection() []byte {
	out := appendU32(nil, uint32(w.m.globals+1))
	if w.m.sec[secGlobal].start != 0 {
		r := w.m.section(secGlobal)
		for range r.count("number of globals", maxGlobals, 4) {
			start := r.pos
			w.m.readGlobalType(r)
			out = append(out, r.b[start:r.pos]...)
			out = w.constExpr(r, out)
		}
		w.done(r, "global section")
	}
	out = append(out, typeI32, 1, opI32Const)
	return append(appendI32(out, Budget), opEnd)
}

func (w *writer) exportSection() []byte {
	out := appendU32(nil, uint32(len(w.m.Exports)))
	r := w.m.section(secExport)
	r.u32("count")
	for _, e := range w.m.Exports {
		out = append(appendU32(out, uint32(len(e.Name))), e.Name...)
		i := e.Index
		switch {
		case e.Kind == KindFunc:
			i = w.shift(i)
		case e.Kind == KindGlobal && i >= w.global:
			r.bad("export index", i, fmt.Sprintf("less than %d", w.global))
		}
		out = appendU32(append(out, e.Kind), i)
	}
	if w.err == nil {
		w.err = r.err
	}
	return out
}

func (w *writer) startSection() []byte {
	r := w.m.section(secStart)
	out := w.funcIndex(r, nil)
	w.done(r, "start section")
	return out
}

// funcIndex copies a function index, renumbered.
func (w *writer) funcIndex(r *reader, out []byte) []byte {
	i := r.u32("function index")
	if n := uint32(w.m.imported[KindFunc] + len(w.m.funcTypes)); i >= n && r.err == nil {
		r.bad("function index", i, fmt.Sprintf("less than %d", n))
	}
	return appendU32(out, w.shift(i))
}

// constExpr copies a constant expression.
func (w *writer) constExpr(r *reader, out []byte) []byte {
	for r.err == nil {
		start := r.pos
		var in instr
		r.next(&in)
		switch in.op {
		case opI32Const, opI64Const, opF32Const, opF64Const, opRefNull, opEnd:
		case opGlobalGet:
			if in.index >= w.global {
				r.bad("global index", in.index, fmt.Sprintf("less than %d", w.global))
			}
		case opRefFunc:
			sub := &reader{b: r.b, pos: start + 1, end: r.pos}
			out = w.funcIndex(sub, append(out, opRefFunc))
			if r.err == nil {
				r.err = sub.err
			}
			continue
		default:
			if in.op != opPrefixSIMD || in.sub != 12 {
				r.fail(abi.ErrUnsupported, "constant expression", fmt.Sprintf("opcode 0x%x", in.op), "a constant, global.get or ref")
			}
		}
		if r.err == nil {
			out = append(out, r.b[start:r.pos]...)
		}
		if in.op == opEnd {
			break
		}
	}
	return out
}

// constExpr skips a constant expression; what it names is checked when it is written.
func (m *Module) constExpr(r *reader) {
	var in instr
	for r.err == nil {
		if r.next(&in); in.op == opEnd {
			return
		}
	}
}
