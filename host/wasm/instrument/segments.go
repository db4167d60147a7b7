package instrument

import (
	"fmt"

	"github.com/convhost/convhost/abi"
)

// elementSection renumbers the functions in element segments. The first number of a segment is a set of flags: 1 passive or
// declarative, 2 explicit table (active) or declarative (with 1), 4 elements are expressions.
func (w *writer) elementSection() []byte {
	r := w.m.section(secElement)
	n := r.count("number of element segments", maxSegments, 2)
	out := appendU32(nil, uint32(n))
	total := 0
	for range n {
		start := r.pos
		flags := r.u32("element segment flags")
		if flags > 7 {
			r.fail(abi.ErrUnsupported, "element segment flags", fmt.Sprint(flags), "0 to 7")
		}
		if flags&3 == 2 {
			r.u32("table index")
		}
		if r.err != nil {
			break
		}
		out = append(out, r.b[start:r.pos]...)
		if flags&1 == 0 {
			out = w.constExpr(r, out)
		}
		if flags&3 != 0 {
			out = append(out, r.byte("element type"))
		}
		count := r.count("elements of a segment", maxElements, 1)
		if total += count; total > maxElements {
			r.fail(abi.ErrLimit, "elements of all segments", fmt.Sprint(total), fmt.Sprintf("at most %d", maxElements))
		}
		out = appendU32(out, uint32(count))
		for range count {
			if r.err != nil {
				break
			}
			if flags&4 != 0 {
				out = w.constExpr(r, out)
			} else {
				out = w.funcIndex(r, out)
			}
		}
	}
	w.done(r, "element section")
	return out
}

// dataSection checks the structure of the data segments and copies them.
func (w *writer) dataSection() []byte {
	r := w.m.section(secData)
	for range r.count("number of data segments", maxSegments, 2) {
		flags := r.u32("data segment flags")
		if flags > 2 {
			r.fail(abi.ErrUnsupported, "data segment flags", fmt.Sprint(flags), "0 to 2")
		}
		if flags == 2 {
			r.u32("memory index")
		}
		if flags != 1 {
			w.constExpr(r, nil)
		}
		r.skip(r.count("data segment size", w.m.lim.ModuleBytes, 1), "data segment")
	}
	w.done(r, "data section")
	sp := w.m.sec[secData]
	return w.m.wasm[sp.start:sp.end]
}
