package ext4

import (
	"cmp"
	"fmt"
	"slices"
)

// An extent maps adjacent blocks of a file to adjacent blocks of the device.
//
//	0 u32 first block of the file   4 u16 length, above 32768: that much less, and unwritten   6 u16, 8 u32 device block
type extent struct {
	log       uint32 // block of the file
	n         uint32 // blocks
	phys      uint64
	unwritten bool
}

// extentMap is the mapping of one file, in order of log.
type extentMap struct {
	list []extent
	tree []uint64 // blocks that the tree itself takes
}

const (
	extentMagic = 0xF30A
	maxExtent   = 32768 // blocks of one written extent
	rootExtents = 4
	maxDepth    = 5
	maxExtents  = 1 << 22 // of one file, 64 MiB of memory
)

// blocks returns the number of data blocks.
func (m *extentMap) blocks() (n uint64) {
	for _, x := range m.list {
		n += uint64(x.n)
	}
	return n
}

// end returns the block of the file behind the last mapped one.
func (m *extentMap) end() uint64 {
	if len(m.list) == 0 {
		return 0
	}
	x := m.list[len(m.list)-1]
	return uint64(x.log) + uint64(x.n)
}

// add appends a mapping behind all others and joins it with the last one where it can.
func (m *extentMap) add(log uint32, phys uint64, n uint32) {
	if k := len(m.list); k > 0 {
		x := &m.list[k-1]
		if !x.unwritten && x.log+x.n == log && x.phys+uint64(x.n) == phys {
			d := min(n, maxExtent-x.n)
			x.n += d
			log, phys, n = log+d, phys+uint64(d), n-d
		}
	}
	for n > 0 {
		d := min(n, maxExtent)
		m.list = append(m.list, extent{log: log, n: d, phys: phys})
		log, phys, n = log+d, phys+uint64(d), n-d
	}
}

// find returns the device block of a block of the file, 0 for a hole.
func (m *extentMap) find(log uint32) (phys uint64, unwritten bool) {
	lo, hi := 0, len(m.list)
	for lo < hi {
		if mid := (lo + hi) / 2; uint64(m.list[mid].log)+uint64(m.list[mid].n) <= uint64(log) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(m.list) || m.list[lo].log > log {
		return 0, false
	}
	return m.list[lo].phys + uint64(log-m.list[lo].log), m.list[lo].unwritten
}

// overlaps tells whether a block of the device is mapped twice.
func (m *extentMap) overlaps() bool {
	byPhys := slices.SortedFunc(slices.Values(m.list), func(a, b extent) int { return cmp.Compare(a.phys, b.phys) })
	for i := 1; i < len(byPhys); i++ {
		if byPhys[i].phys < byPhys[i-1].phys+uint64(byPhys[i-1].n) {
			return true
		}
	}
	return false
}

// mapping reads where the data of n stands.
func (v *volume) mapping(n *inode) (*extentMap, error) {
	m := &extentMap{}
	off := v.inodeOff(n.num)
	if n.flags()&flagExtents == 0 {
		return m, v.indirect(n, m)
	}
	root := n.raw[inBlock : inBlock+inBlockSize]
	if mg := u16(root, 0); mg != extentMagic {
		return nil, bad(off+inBlock, "magic of extents of "+inoName(n.num), fmt.Sprintf("0x%04x", mg), "0xf30a")
	}
	depth := u16(root, 6)
	if depth > maxDepth {
		return nil, bad(off+inBlock+6, "depth of extents of "+inoName(n.num), depth, "at most 5")
	}
	return m, v.extentNode(n, m, root, int(depth), off+inBlock)
}

// extentNode reads one node of the tree and all below it. Their order keeps the walk finite: each extent starts behind the
// one before it.
func (v *volume) extentNode(n *inode, m *extentMap, p []byte, depth int, off int64) error {
	what := "extents of " + inoName(n.num)
	count, limit := int(u16(p, 2)), int(u16(p, 4))
	if u16(p, 0) != extentMagic || int(u16(p, 6)) != depth || count > limit || 12+limit*12 > len(p) {
		return bad(off, "header of "+what, fmt.Sprintf("%x", p[:8]), fmt.Sprintf("a node of depth %d", depth))
	}
	for i := range count {
		x, at := p[12+i*12:24+i*12], off+12+int64(i)*12
		log := u32(x, 0)
		if depth == 0 {
			if err := v.leafExtent(m, x, at, what); err != nil {
				return err
			}
			continue
		}
		phys := uint64(u32(x, 4)) | uint64(u16(x, 8))<<32
		if uint64(log) < m.end() || len(m.tree) > maxExtents/16 {
			return bad(at, "order of "+what, log, "behind the one before")
		}
		if phys == 0 || phys >= v.blockCount {
			return bad(at+4, "block of "+what, phys, "a block of the device")
		}
		b, err := v.get(phys)
		if err != nil {
			return err
		}
		if !b.dirty {
			b.kind, b.seed = kindExtents, v.inodeSeed(n.num, n.gen())
			if err := v.sealed(b); err != nil {
				return err
			}
		}
		m.tree = append(m.tree, phys)
		before := len(m.list)
		if err := v.extentNode(n, m, b.data, depth-1, int64(phys)*BlockSize); err != nil {
			return err
		}
		if len(m.list) == before {
			return bad(int64(phys)*BlockSize, "node of "+what, "empty", "at least one extent")
		}
	}
	return nil
}

func (v *volume) leafExtent(m *extentMap, x []byte, at int64, what string) error {
	e := extent{log: u32(x, 0), n: u16(x, 4), phys: uint64(u32(x, 8)) | uint64(u16(x, 6))<<32}
	if e.n > maxExtent {
		e.n, e.unwritten = e.n-maxExtent, true
	}
	switch {
	case uint64(e.log) < m.end():
		return bad(at, "order of "+what, e.log, "behind the one before")
	case e.n == 0 || uint64(e.log)+uint64(e.n) > 1<<32:
		return bad(at+4, "length of "+what, e.n, "1 or more, within 2^32 blocks")
	case e.phys == 0 || e.phys >= v.blockCount || uint64(e.n) > v.blockCount-e.phys:
		return bad(at+6, "block of "+what, e.phys, "blocks of the device")
	case len(m.list) >= maxExtents:
		return bad(at, "number of "+what, len(m.list), fmt.Sprintf("at most %d", maxExtents))
	}
	m.list = append(m.list, e)
	return nil
}

// sealed checks the checksum of a block that carries one.
func (v *volume) sealed(b *block) error {
	if !v.metaCsum {
		return nil
	}
	if sum, at := v.blockSum(b); at < 0 || u32(b.data, at) != sum {
		return bad(int64(b.n)*BlockSize, "checksum of metadata block", "wrong", "that of its bytes")
	}
	return nil
}

// indirect reads the old block map: 12 blocks, then blocks of block numbers, one to three levels deep.
func (v *volume) indirect(n *inode, m *extentMap) error {
	log := uint64(0)
	root := n.raw[inBlock : inBlock+inBlockSize]
	for i := range 12 {
		if b := u32(root, i*4); b != 0 {
			if err := v.mapBlock(n, m, log, b); err != nil {
				return err
			}
		}
		log++
	}
	for level := 1; level <= 3; level++ {
		if b := u32(root, (11+level)*4); b != 0 {
			if err := v.indirectBlock(n, m, log, b, level); err != nil {
				return err
			}
		}
		log += 1 << (10 * level)
	}
	return nil
}

func (v *volume) mapBlock(n *inode, m *extentMap, log uint64, b uint32) error {
	if uint64(b) >= v.blockCount || log >= 1<<32 || len(m.list) >= maxExtents {
		return bad(v.inodeOff(n.num)+inBlock, "block map of "+inoName(n.num), b, "blocks of the device")
	}
	m.add(uint32(log), uint64(b), 1)
	return nil
}

func (v *volume) indirectBlock(n *inode, m *extentMap, log uint64, b uint32, level int) error {
	if uint64(b) >= v.blockCount || len(m.tree) > maxExtents/16 {
		return bad(v.inodeOff(n.num)+inBlock, "block map of "+inoName(n.num), b, "blocks of the device")
	}
	m.tree = append(m.tree, uint64(b))
	blk, err := v.get(uint64(b))
	if err != nil {
		return err
	}
	for i := range BlockSize / 4 {
		c := u32(blk.data, i*4)
		if c == 0 {
			continue
		}
		if level == 1 {
			err = v.mapBlock(n, m, log+uint64(i), c)
		} else {
			err = v.indirectBlock(n, m, log+uint64(i)<<(10*(level-1)), c, level-1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
