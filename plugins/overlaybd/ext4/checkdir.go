package ext4

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// directory checks a directory and its index, and returns its names.
func (c *checker) directory(n *inode, parent uint32) []dirent {
	list, err := c.list(n)
	if err != nil {
		c.add(err)
		return nil
	}
	m, err := c.dirMap(n)
	if err != nil {
		c.add(err)
		return nil
	}
	if size := n.size() / BlockSize; m.end() != size || m.blocks() != size {
		c.add(bad(c.inodeOff(n.num)+inSizeLo, "size of directory "+inoName(n.num), n.size(), fmt.Sprintf("all of its %d blocks, without holes", m.end())))
		return list
	}
	c.dots(n, m, parent)
	names := slices.Clone(list)
	slices.SortFunc(names, func(a, b dirent) int { return cmp.Compare(a.name, b.name) })
	for i := range names {
		if i > 0 && names[i].name == names[i-1].name {
			c.add(bad(c.inodeOff(n.num), "directory "+inoName(n.num), fmt.Sprintf("with %q twice", names[i].name), "each name once"))
		}
	}
	if n.flags()&flagIndex != 0 {
		c.index(n, m, list)
	}
	return list
}

// dots checks the first two entries.
func (c *checker) dots(n *inode, m *extentMap, parent uint32) {
	b, err := c.dirBlock(n, m, 0, kindDirLeaf)
	if err != nil {
		c.add(err)
		return
	}
	p, at := b.data, int64(b.n)*BlockSize
	if u32(p, 0) != n.num || u16(p, 4) != 12 || p[6] != 1 || p[8] != '.' {
		c.add(bad(at, "first entry of directory "+inoName(n.num), fmt.Sprintf("%x", p[:12]), `"." with its own number`))
	}
	if u32(p, 12) != parent || p[18] != 2 || string(p[20:22]) != ".." {
		c.add(bad(at+12, "second entry of directory "+inoName(n.num), fmt.Sprintf("%x", p[12:24]), fmt.Sprintf(`".." with number %d`, parent)))
	}
}

// index checks that every leaf is in the index once, and that every name is where its hash says.
func (c *checker) index(n *inode, m *extentMap, list []dirent) {
	b, err := c.dirBlock(n, m, 0, kindIndex)
	if err != nil {
		c.add(err)
		return
	}
	x := &indexCheck{c: c, n: n, m: m, version: b.data[rootInfo+4], leaves: map[uint32][2]uint32{}}
	if _, ok := c.nameHash(x.version, ""); !ok {
		c.add(unsupported(int64(b.n)*BlockSize+rootInfo+4, "hash version of directory "+inoName(n.num), x.version, "0 to 5"))
		return
	}
	levels := int(b.data[rootInfo+6])
	if levels > 2 {
		c.add(bad(int64(b.n)*BlockSize+rootInfo+6, "levels of the index of "+inoName(n.num), levels, "at most 2"))
		return
	}
	x.nodes = 1
	if !x.node(0, levels, 0, 0xffffffff) {
		return
	}
	if have := n.size() / BlockSize; uint64(x.nodes+len(x.leaves)) != have {
		c.add(bad(c.inodeOff(n.num), "index of directory "+inoName(n.num), fmt.Sprintf("%d blocks", x.nodes+len(x.leaves)), fmt.Sprintf("all %d", have)))
	}
	for _, d := range list {
		h, _ := c.nameHash(x.version, d.name)
		r, ok := x.leaves[d.log]
		if !ok || h < r[0]&^1 || h > r[1] {
			c.add(bad(c.inodeOff(n.num), "index of directory "+inoName(n.num), fmt.Sprintf("%q in block %d", d.name, d.log), "the block for its hash"))
			return
		}
	}
}

type indexCheck struct {
	c       *checker
	n       *inode
	m       *extentMap
	version uint8
	nodes   int
	leaves  map[uint32][2]uint32 // lowest and highest hash
}

// node checks an index node for hashes from lo to hi.
func (x *indexCheck) node(log uint32, levels int, lo, hi uint32) bool {
	nd, err := x.c.indexNode(x.n, x.m, log, 0)
	if err != nil {
		x.c.add(err)
		return false
	}
	for i := range nd.count() {
		from, to := lo, hi
		if i > 0 {
			from = nd.hash(i)
		}
		if i+1 < nd.count() {
			to = nd.hash(i + 1)
		}
		at := int64(nd.b.n)*BlockSize + int64(nd.co+i*8)
		if from < lo || to > hi || from > to {
			x.c.add(bad(at, "order of the index of "+inoName(x.n.num), fmt.Sprintf("0x%x", from), "ascending hashes"))
			return false
		}
		kid := nd.block(i)
		_, again := x.leaves[kid]
		if uint64(kid) >= x.n.size()/BlockSize || kid == 0 || again || uint64(x.nodes) > x.n.size()/BlockSize {
			x.c.add(bad(at+4, "block in the index of "+inoName(x.n.num), kid, "each block of the directory once"))
			return false
		}
		if levels == 0 {
			x.leaves[kid] = [2]uint32{from, to}
			continue
		}
		x.nodes++
		if !x.node(kid, levels-1, from, to) {
			return false
		}
	}
	return true
}
