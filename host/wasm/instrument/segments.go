package instrument

import (
	"cmp"
	"fmt"
	"slices"

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

// dataSection checks the structure of the data segments and copies them, or joins them if it can.
func (w *writer) dataSection() []byte {
	r := w.m.section(secData)
	n := r.count("number of data segments", maxSegments, 2)
	pieces := make([]piece, 0, min(n, 1<<12))
	for range n {
		flags := r.u32("data segment flags")
		if flags > 2 {
			r.fail(abi.ErrUnsupported, "data segment flags", fmt.Sprint(flags), "0 to 2")
		}
		if flags == 2 {
			r.u32("memory index")
		}
		var where []byte
		if flags != 1 {
			where = w.constExpr(r, nil)
		}
		size := r.count("data segment size", w.m.lim.ModuleBytes, 1)
		if at, ok := constOffset(where); ok && flags == 0 && r.err == nil {
			pieces = append(pieces, piece{at, r.b[r.pos : r.pos+size]})
		}
		r.skip(size, "data segment")
	}
	w.done(r, "data section")
	sp := w.m.sec[secData]
	if len(pieces) < n || w.m.sec[secDataCount].start != 0 || w.m.imported[KindMemory] > 0 || !ordered(pieces) {
		return w.m.wasm[sp.start:sp.end]
	}
	return joined(pieces)
}

// piece is a data segment at a constant address.
type piece struct {
	at    uint32
	bytes []byte
}

func (p piece) end() uint64 { return uint64(p.at) + uint64(len(p.bytes)) }

// constOffset returns the value of an expression that is nothing but an i32.const that is not negative.
func constOffset(expr []byte) (uint32, bool) {
	if len(expr) < 3 || expr[0] != opI32Const || expr[len(expr)-1] != opEnd {
		return 0, false
	}
	v, shift := uint64(0), 0
	for _, c := range expr[1 : len(expr)-1] {
		v |= uint64(c&0x7f) << shift
		shift += 7
	}
	last := expr[len(expr)-2]
	return uint32(v), last&0x40 == 0 && last&0x80 == 0 && v < 1<<31
}

// ordered sorts pieces by address and reports whether none overlaps another.
func ordered(pieces []piece) bool {
	slices.SortStableFunc(pieces, func(a, b piece) int { return cmp.Compare(a.at, b.at) })
	for k := 1; k < len(pieces); k++ {
		if uint64(pieces[k].at) < pieces[k-1].end() {
			return false
		}
	}
	return true
}

// joinGap is how many zeros are written rather than a new segment.
const joinGap = 64

// joined writes pieces as few segments. Go's linker leaves out every run of eight zeros, which gives a plugin of 4 MB
// 46,000 segments; to read and apply them one by one takes longer than all the rest of starting an instance. A memory
// starts with zeros, so zeros between two pieces change nothing; and without a data count section no instruction can
// name a segment.
func joined(pieces []piece) []byte {
	var out []byte
	runs := 0
	for first := 0; first < len(pieces); runs++ {
		last := first
		for last+1 < len(pieces) && uint64(pieces[last+1].at)-pieces[last].end() <= joinGap {
			last++
		}
		at := pieces[first].at
		out = append(appendI32(append(out, 0, opI32Const), at), opEnd)
		out = appendU32(out, uint32(pieces[last].end()-uint64(at)))
		start := len(out)
		for _, p := range pieces[first : last+1] {
			out = append(out, make([]byte, int(p.at-at)-(len(out)-start))...)
			out = append(out, p.bytes...)
		}
		first = last + 1
	}
	return append(appendU32(nil, uint32(runs)), out...)
}
