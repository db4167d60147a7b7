package gocode

import (
	"container/heap"
	"slices"
)

// writer writes a function's graph as structured code.
type writer struct {
	out      []byte
	children [][]int // in the dominator tree, as they follow each other
	follows  []int   // node that stands behind
	label    []bool  // some branch leads forward to the node
	header   []bool  // some branch leads back to it
	blockAt  []int   // depth of the block whose end is where the node begins; the outermost is 1
	loopAt   []int   // depth of the loop that begins with the node
	depth    int     // open blocks and loops
}

// write appends the function to out.
func (f *function) write() {
	n := len(f.succ)
	f.children = slices.Grow(f.children[:0], n)[:n]
	for k := range f.children {
		f.children[k] = f.children[k][:0]
	}
	f.label, f.header = zeroed(f.label, n), zeroed(f.header, n)
	f.blockAt, f.loopAt, f.follows = zeroed(f.blockAt, n), zeroed(f.loopAt, n), zeroed(f.follows, n)
	f.arrange()
	f.findLabels()
	f.out = append(f.out, opGlobalGet, spGlobal, opI32Const, below, opI32Sub, opLocalSet, spLocal)
	f.out = append(f.out, f.src[f.ops[2].Start:f.ops[f.head].Start]...)
	f.depth = 0
	f.open(f.exit)
	f.tree(f.root)
	f.out = append(f.out, opEnd)
	rest := f.ops[f.tail].End
	if !f.loop {
		f.out = append(f.out, opUnreachable)
		rest = f.ops[f.tail].Start
	}
	f.out = append(f.out, f.src[rest:f.ops[len(f.ops)-1].End]...)
}

func zeroed[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

// arrange fills children, follows and header. Nodes keep the order of the source where the edges allow it.
func (f *function) arrange() {
	waiting := make([]int, len(f.succ)) // forward edges from nodes not yet placed
	for _, v := range f.rpo {
		for _, to := range f.succ[v] {
			if f.back(v, to) {
				f.header[to] = true
			} else {
				waiting[to]++
			}
		}
	}
	ready := &queue{f.root}
	for ready.Len() > 0 {
		v := heap.Pop(ready).(int)
		if v != f.root && v != f.exit {
			f.children[f.idom[v]] = append(f.children[f.idom[v]], v)
		}
		for _, to := range f.succ[v] {
			if f.back(v, to) {
				continue
			}
			if waiting[to]--; waiting[to] == 0 {
				heap.Push(ready, to)
			}
		}
	}
	last := f.root
	f.eachBelow(f.root, func(v int) {
		f.follows[last] = v
		last = v
	})
	f.follows[last] = f.exit
}

// eachBelow calls do for all nodes below v, in the order in which they are written.
func (f *function) eachBelow(v int, do func(int)) {
	for _, c := range f.children[v] {
		do(c)
		f.eachBelow(c, do)
	}
}

// queue is a heap of nodes.
type queue []int

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i] < q[j] }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(int)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// findLabels fills label.
func (f *function) findLabels() {
	need := func(from, to int) {
		if !f.via[[2]int{from, to}] && !f.back(from, to) {
			f.label[to] = true
		}
	}
	for _, v := range f.rpo {
		if v == f.root || v == f.exit {
			continue
		}
		n := &f.nodes[v]
		for _, j := range n.cold {
			need(v, j.to)
		}
		for _, j := range n.jumps {
			need(v, j.to)
		}
		if n.falls && f.next(v) != f.follows[v] {
			need(v, f.next(v))
		}
		if n.entry {
			f.label[v] = true
		}
	}
}

// open begins a block whose end is where node v begins.
func (f *function) open(v int) {
	f.depth++
	f.blockAt[v] = f.depth
	f.out = append(f.out, opBlock, emptyBlock)
}

// tree writes node v and all nodes that it dominates.
func (f *function) tree(v int) {
	if f.header[v] {
		f.depth++
		f.loopAt[v] = f.depth
		f.out = append(f.out, opLoop, emptyBlock)
	}
	for _, c := range slices.Backward(f.children[v]) {
		if f.label[c] {
			f.open(c)
		}
	}
	if v == f.root {
		f.dispatch()
	} else {
		f.node(v)
	}
	for _, c := range f.children[v] {
		if f.label[c] {
			f.depth--
			f.out = append(f.out, opEnd)
		}
		f.tree(c)
	}
	if f.header[v] {
		f.depth--
		f.out = append(f.out, opEnd)
	}
}

// to returns the index of the label to which a branch from v to a node leads, within more blocks.
func (f *function) to(v, to, more int) uint32 {
	if f.back(v, to) {
		return uint32(f.depth - f.loopAt[to] + more)
	}
	return uint32(f.depth - f.blockAt[to] + more)
}

// dispatch writes the br_table. Nearly always the function starts at its beginning, so that is asked first.
func (f *function) dispatch() {
	table := make([]int, len(f.table))
	for pc, k := range f.table {
		table[pc] = f.exit
		if f.nodes[k].entry && f.order[k] >= 0 {
			table[pc] = int(k)
		}
	}
	for n := len(table); n > 1 && table[n-1] == table[n-2]; n-- {
		table = table[:n-1]
	}
	if len(table) > 1 {
		f.out = append(f.out, opBlock, emptyBlock, opLocalGet, pcLocal, opBrIf, 0, opBr)
		f.out = appendU32(f.out, f.to(f.root, 0, 1))
		f.out = append(f.out, opEnd, opLocalGet, pcLocal, opBrTable)
		f.out = appendU32(f.out, uint32(len(table)-1))
		for _, k := range table {
			f.out = appendU32(f.out, f.to(f.root, k, 0))
		}
	}
}
