package gocode

import "slices"

// Go's compiler keeps in the stack frame what lives longer than a basic block, and makes the 32 bits of an address anew for each
// access. So one pointer is loaded and wrapped again and again, and to a compiler of machine code it is a new address each
// time, to be held against the size of the memory. Reuse keeps such values in locals, from one call to the next: a call may change
// what is in the frame, and may move it.

const (
	maxKept  = 12 // locals of each type that a function gets for it at most
	maxSlots = 32 // slots of the frame that are known at a time
	maxLocal = 64 // locals of a function; Go has 16 of each type and a few more
)

// value is the number of something that a function computes; 0 is a value that nobody knows.
type value int

// operand is a value on the operand stack.
type operand struct {
	kind  operandKind
	start int // the first of the instructions that push it, if they do nothing else; else -1
	value value
	addr  uint32 // of a constant
}

type operandKind uint8

const (
	isOther operandKind = iota
	isStack             // what is in local 1
	isMoved             // something near it
	isConst             // a constant, or a constant address
	isLost              // pushed before a call or a branch
)

// known is a part of the frame, or a local, that holds a value since an instruction.
type known struct {
	offset uint32
	load   byte // the load that reads it from the frame
	value  value
	born   int
}

// kept is a value that may stay in a local.
type kept struct {
	at    int // behind this instruction it is on top of the operand stack
	last  int // the last instruction that wants it, 0 if none does
	wide  bool
	local int // among those of its type, -1 for none
}

// places says where a value of 64 bits and its low half are: indexes of kept, -1 for none.
type places struct{ wide, wrapped int }

// edit replaces instructions by a local.get.
type edit struct {
	first, last int
	kept        int    // -1 for a local of the function
	local       uint32 // that
}

// constAccess is an access of a constant address.
type constAccess struct {
	first, at int // where the address begins, and the access
	addr      uint32
}

// scope is an open block.
type scope struct {
	at, made int
	loop     bool
}

// reuse is the state of Reuse.
type reuse struct {
	body
	taken  bool // an address within the frame is a value, so a store elsewhere may change the frame
	stack  []operand
	slots  []known
	locals []known
	values []places
	kept   []kept
	edits  []edit
	consts []constAccess
	scopes []scope
	made   []made // what got a place, in order
}

type made struct {
	value value
	wide  bool
}

// Reuse appends to dst what ops, the instructions of a function after Straighten in src up to its last end, become. locals is
// the number of the function's parameters and locals; it gets small more of type i32 and then wide of type i64. It reports false,
// and returns dst, if nothing changes.
func (m *Module) Reuse(dst, src []byte, ops []Op, locals uint32) (out []byte, small, wide int, ok bool) {
	if m.budget -= len(ops); m.budget < 0 || locals > maxLocal {
		return dst, 0, 0, false
	}
	r := &m.r
	r.src, r.ops, r.taken = src, ops, false
	r.locals = slices.Grow(r.locals[:0], int(locals))[:locals]
	if !r.number() || r.taken && !r.number() || len(r.edits)+len(r.consts) == 0 {
		return dst, 0, 0, false
	}
	small, wide = r.allot()
	return r.rewrite(dst, locals, small), small, wide, true
}

// allot gives locals to what is kept and wanted again, and returns how many of each type.
func (r *reuse) allot() (small, wide int) {
	for _, e := range r.edits {
		if e.kept >= 0 {
			r.kept[e.kept].last = e.last
		}
	}
	var busy [2][maxKept]int // until which instruction
	var used [2]int
	for k := range r.kept {
		p := &r.kept[k]
		p.local = -1
		if p.last == 0 {
			continue
		}
		t := 0
		if p.wide {
			t = 1
		}
		if n := slices.IndexFunc(busy[t][:], func(until int) bool { return until <= p.at }); n >= 0 {
			p.local, busy[t][n] = n, p.last
			used[t] = max(used[t], n+1)
		}
	}
	if len(r.consts) > 0 {
		used[0]++
	}
	return used[0], used[1]
}

// rewrite appends the instructions. The last of the small locals is never set and serves as the address 0.
func (r *reuse) rewrite(dst []byte, locals uint32, small int) []byte {
	zero := locals + uint32(small) - 1
	number := func(k kept) uint32 {
		if k.wide {
			return locals + uint32(small) + uint32(k.local)
		}
		return locals + uint32(k.local)
	}
	accesses := slices.Clone(r.consts)
	slices.SortFunc(accesses, func(a, b constAccess) int { return a.at - b.at })
	edits, consts, saved := r.edits, r.consts, r.kept
	slices.SortFunc(consts, func(a, b constAccess) int { return a.first - b.first })
	for i := 0; i < len(r.ops); i++ {
		for len(edits) > 0 && (edits[0].first < i || edits[0].first == i && edits[0].kept >= 0 && r.kept[edits[0].kept].local < 0) {
			edits = edits[1:]
		}
		at := i
		switch {
		case len(edits) > 0 && edits[0].first == i:
			e := edits[0]
			if e.kept >= 0 {
				e.local = number(r.kept[e.kept])
			}
			dst = appendU32(append(dst, opLocalGet), e.local)
			i = e.last
		case len(consts) > 0 && consts[0].first == i:
			consts = consts[1:]
			dst = appendU32(append(dst, opLocalGet), zero)
			i++
		case len(accesses) > 0 && accesses[0].at == i:
			align, offset := r.memarg(i)
			dst = appendU32(append(dst, r.op(i)), align)
			dst = appendU32(dst, offset+accesses[0].addr)
			accesses = accesses[1:]
		default:
			dst = append(dst, r.src[r.ops[i].Start:r.ops[i].End]...)
		}
		for ; len(saved) > 0 && saved[0].at <= i; saved = saved[1:] {
			if saved[0].at >= at && saved[0].local >= 0 {
				dst = appendU32(append(dst, opLocalTee), number(saved[0]))
			}
		}
	}
	return dst
}
