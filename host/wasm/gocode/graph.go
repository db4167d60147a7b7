package gocode

import "slices"

// graph is the flow between the nodes of a function. Behind the basic blocks and the bodies moved out of line it has two more
// nodes: the root, which is the br_table, and the exit, where a function goes that did what it never does.
type graph struct {
	root, exit int
	succ       [][]int
	order      []int // position in reverse postorder from the root, -1 if unreachable
	rpo        []int
	idom       []int           // immediate dominator
	via        map[[2]int]bool // edges that go by way of the br_table
}

const maxNodes = 1 << 14

// flow builds the graph and makes it reducible. It reports false for what is too large.
func (f *function) flow() bool {
	f.moveCold()
	f.root, f.exit = len(f.nodes), len(f.nodes)+1
	if f.exit > maxNodes {
		return false
	}
	f.via = map[[2]int]bool{}
	for {
		f.connect()
		f.sort()
		if !f.dominate() {
			return false
		}
		if f.reducible() {
			return true
		}
	}
}

// connect fills succ.
func (f *function) connect() {
	n := f.exit + 1
	f.succ = slices.Grow(f.succ[:0], n)[:n]
	for k := range f.succ {
		f.succ[k] = f.succ[k][:0]
	}
	add := func(from, to int) {
		if f.via[[2]int{from, to}] {
			to = f.root
		}
		f.succ[from] = append(f.succ[from], to)
	}
	for k := range f.nodes {
		n := &f.nodes[k]
		if n.falls {
			add(k, f.next(k))
		}
		for _, j := range n.cold {
			add(k, j.to)
		}
		for _, j := range n.jumps {
			add(k, j.to)
		}
		if n.entry {
			add(f.root, k)
		}
	}
	add(f.root, f.exit)
}

// next returns the node with which basic block k goes on when it does not jump.
func (f *function) next(k int) int {
	if k+1 == f.blocks {
		return f.exit
	}
	return k + 1
}

// sort fills rpo and order.
func (f *function) sort() {
	type visit struct{ node, next int }
	f.order = slices.Grow(f.order[:0], len(f.succ))[:len(f.succ)]
	for k := range f.order {
		f.order[k] = -1
	}
	f.rpo = f.rpo[:0]
	f.order[f.root] = 0
	stack := []visit{{node: f.root}}
	for len(stack) > 0 {
		v := &stack[len(stack)-1]
		if v.next < len(f.succ[v.node]) {
			to := f.succ[v.node][v.next]
			v.next++
			if f.order[to] < 0 {
				f.order[to] = 0
				stack = append(stack, visit{node: to})
			}
			continue
		}
		f.m.budget -= 1 + v.next
		f.rpo = append(f.rpo, v.node)
		stack = stack[:len(stack)-1]
	}
	slices.Reverse(f.rpo)
	for i, v := range f.rpo {
		f.order[v] = i
	}
}

// dominate fills idom (Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm", 2001). It reports false when the budget
// is used up.
func (f *function) dominate() bool {
	preds := make([][]int, len(f.succ))
	for _, v := range f.rpo {
		for _, to := range f.succ[v] {
			preds[to] = append(preds[to], v)
		}
	}
	f.idom = slices.Grow(f.idom[:0], len(f.succ))[:len(f.succ)]
	for k := range f.idom {
		f.idom[k] = -1
	}
	f.idom[f.root] = f.root
	for changed := true; changed; {
		changed = false
		for _, v := range f.rpo[1:] {
			dom := -1
			for _, p := range preds[v] {
				f.m.budget--
				switch {
				case f.idom[p] < 0:
				case dom < 0:
					dom = p
				default:
					dom = f.common(p, dom)
				}
			}
			if f.idom[v] != dom {
				f.idom[v], changed = dom, true
			}
			if f.m.budget < 0 {
				return false
			}
		}
	}
	return true
}

// common returns the closest node that dominates a and b.
func (f *function) common(a, b int) int {
	for a != b {
		for f.order[a] > f.order[b] {
			a = f.idom[a]
			f.m.budget--
		}
		for f.order[b] > f.order[a] {
			b = f.idom[b]
			f.m.budget--
		}
	}
	return a
}

// back reports whether an edge leads back, to the header of a loop.
func (f *function) back(from, to int) bool { return f.order[to] <= f.order[from] }

// reducible reports whether every edge that leads back leads to a node that dominates where it comes from. The others are
// sent by way of the br_table from then on, which makes their targets entries.
func (f *function) reducible() bool {
	all := true
	for _, v := range f.rpo {
		for _, to := range f.succ[v] {
			if to != f.root && f.back(v, to) && f.common(v, to) != to {
				f.via[[2]int{v, to}] = true
				f.nodes[to].entry = true
				all = false
			}
		}
	}
	return all
}
