package ext4

// Where a map has more extents than the inode holds, the tree is built anew from the list: leaves first, then one level of index
// nodes above the other, until the root holds the rest.

const nodeExtents = (BlockSize - 12 - 4) / 12 // with room for a checksum

// putMapping writes m into n: tree blocks that m has already are used again, others come from the allocator. The sectors of n
// are counted; extra is the number of blocks that belong to n besides (its attributes).
func (a *allocator) putMapping(n *inode, m *extentMap, extra uint64) error {
	old := m.tree
	m.tree = nil
	next := func() (uint64, error) {
		if len(old) > 0 {
			b := old[0]
			old = old[1:]
			m.tree = append(m.tree, b)
			return b, nil
		}
		b, err := a.allocMeta()
		m.tree = append(m.tree, b)
		return b, err
	}
	records := make([]byte, 0, len(m.list)*12)
	for _, x := range m.list {
		var r [12]byte
		l := x.n
		if x.unwritten {
			l += maxExtent
		}
		put32(r[:], 0, x.log)
		put16(r[:], 4, l)
		put16(r[:], 6, uint32(x.phys>>32))
		put32(r[:], 8, uint32(x.phys))
		records = append(records, r[:]...)
	}
	depth := uint32(0)
	for ; len(records) > rootExtents*12; depth++ {
		var up []byte
		for len(records) > 0 {
			k := min(len(records), nodeExtents*12)
			phys, err := next()
			if err != nil {
				return err
			}
			b := a.fresh(phys, kindExtents, a.inodeSeed(n.num, n.gen()))
			extentHeader(b.data, k/12, nodeExtents, depth)
			copy(b.data[12:], records[:k])
			var r [12]byte
			copy(r[:4], records)
			put32(r[:], 4, uint32(phys))
			put16(r[:], 8, uint32(phys>>32))
			up = append(up, r[:]...)
			records = records[k:]
		}
		records = up
	}
	root := n.raw[inBlock : inBlock+inBlockSize]
	clear(root)
	extentHeader(root, len(records)/12, rootExtents, depth)
	copy(root[12:], records)
	n.setFlags(n.flags() | flagExtents)
	n.setBlocks(m.blocks() + uint64(len(m.tree)) + extra)
	for _, b := range old {
		if err := a.freeRun(b, 1); err != nil {
			return err
		}
	}
	return nil
}

func extentHeader(p []byte, count, limit int, depth uint32) {
	put16(p, 0, extentMagic)
	put16(p, 2, uint32(count))
	put16(p, 4, uint32(limit))
	put16(p, 6, depth)
}
