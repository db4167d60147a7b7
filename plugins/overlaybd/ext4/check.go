package ext4

import (
	"fmt"
	"io"
	"math/bits"

	"github.com/convhost/convhost/abi"
)

// maxErrors is the most that Check returns.
const maxErrors = 100

// Check reads all metadata of a file system and returns every violation it finds, at most 100: checksums, bitmaps against what
// files have, blocks with two owners, directories and their indexes, link counts, extent trees, attributes, counters. Each is
// abi.ErrCorrupt or a kind of it, or abi.ErrUnsupported; nil means that it is sound. It does not read the data of files.
//
// Memory is 1 bit a block and inode in use, and a few bytes for each file with several names.
func Check(r io.ReaderAt, size int64) []error {
	v, err := openVolume(r, size, false)
	if err != nil {
		return []error{err}
	}
	c := &checker{volume: v, used: map[uint32][]byte{}, seen: map[uint32][]byte{}, links: map[uint32]uint32{}, shared: map[uint64]uint32{}}
	c.fixed()
	c.tree()
	for g := range v.groups {
		if c.full() {
			break
		}
		c.group(g)
	}
	c.totals()
	for _, ino := range sortedKeys(c.links) {
		n, err := v.inode(ino)
		if err != nil {
			c.add(err)
		} else if n.links() != c.links[ino] {
			c.add(bad(v.inodeOff(ino)+inLinks, "links of "+inoName(ino), n.links(), fmt.Sprint(c.links[ino])))
		}
	}
	for _, b := range sortedKeys(c.shared) {
		if blk, err := v.get(b); err != nil {
			c.add(err)
		} else if refs := u32(blk.data, 4); refs != c.shared[b] {
			c.add(bad(int64(b)*BlockSize+4, "references of an attribute block", refs, fmt.Sprint(c.shared[b])))
		}
	}
	return c.errs
}

type checker struct {
	*volume
	errs   []error
	used   map[uint32][]byte // blocks by group
	seen   map[uint32][]byte // inodes by group
	links  map[uint32]uint32 // of files with several names, as directories have them
	shared map[uint64]uint32 // attribute blocks
	dirs   uint32
	free   uint64
	ifree  uint64
}

func (c *checker) full() bool { return len(c.errs) >= maxErrors }

func (c *checker) add(err error) {
	if err != nil && !c.full() {
		c.errs = append(c.errs, err)
	}
}

// own marks blocks as used by who.
func (c *checker) own(start, n uint64, who string) {
	for ; n > 0; start, n = start+1, n-1 {
		g := uint32(start / groupBlocks)
		p := c.used[g]
		if p == nil {
			p = make([]byte, BlockSize)
			c.used[g] = p
		}
		if bit := uint32(start % groupBlocks); testBit(p, bit) {
			c.add(bad(int64(start)*BlockSize, fmt.Sprintf("block %d", start), "used twice, now by "+who, "one owner"))
			if c.full() {
				return
			}
		} else {
			setBit(p, bit)
		}
	}
}

// fixed marks superblocks, descriptors, bitmaps and tables.
func (c *checker) fixed() {
	for g := range c.groups {
		if c.full() {
			return
		}
		if c.hasSuper(g) {
			n := min(1+c.gdtBlocks()+uint64(u16(c.sb, sbReservedGDT)), uint64(c.groupSize(g)))
			c.own(uint64(g)*groupBlocks, n, "superblock and descriptors")
		}
		c.own(c.descBlock(g, gdBlockBitmap), 1, "a block bitmap")
		c.own(c.descBlock(g, gdInodeBitmap), 1, "an inode bitmap")
		c.own(c.descBlock(g, gdInodeTable), uint64(c.tableBlocks()), "an inode table")
	}
}

// see marks an inode and tells whether that is the first time.
func (c *checker) see(ino uint32) bool {
	g, bit := (ino-1)/c.inodesPerGroup, (ino-1)%c.inodesPerGroup
	p := c.seen[g]
	if p == nil {
		p = make([]byte, c.inodesPerGroup/8)
		c.seen[g] = p
	}
	if testBit(p, bit) {
		return false
	}
	setBit(p, bit)
	return true
}

// tree walks all directories; a stack, so that depth costs memory only.
func (c *checker) tree() {
	for ino := uint32(1); ino < u32(c.sb, sbFirstIno); ino++ {
		c.see(ino)
		if ino != rootIno {
			c.reserved(ino)
		}
	}
	type todo struct{ ino, parent uint32 }
	stack := []todo{{rootIno, rootIno}}
	for len(stack) > 0 && !c.full() {
		d := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if c.trim() != nil {
			return
		}
		n, err := c.dir(d.ino)
		if err != nil {
			c.add(err)
			continue
		}
		c.content(n)
		c.dirs++
		subdirs := uint32(0)
		for _, e := range c.directory(n, d.parent) {
			kid, err := c.usedInode(e.ino)
			if err != nil {
				c.add(err)
				continue
			}
			if t := fileType(kid.mode()); e.typ != t && e.typ != 0 {
				c.add(bad(c.inodeOff(n.num), fmt.Sprintf("type of %q in directory %d", e.name, n.num), e.typ, fmt.Sprint(t)))
			}
			first := e.ino >= u32(c.sb, sbFirstIno) && c.see(e.ino)
			switch {
			case kid.isDir() && !first:
				c.add(bad(c.inodeOff(e.ino), "directory "+inoName(e.ino), "named twice", "a tree"))
			case kid.isDir():
				subdirs++
				stack = append(stack, todo{e.ino, n.num})
			case first:
				c.content(kid)
				if kid.links() != 1 {
					c.links[e.ino] = 1
				}
			default:
				if c.links[e.ino] == 0 {
					c.links[e.ino] = 1
				}
				c.links[e.ino]++
			}
		}
		if l := n.links(); l != subdirs+2 && !(l == 1 && subdirs+2 > linkMax && c.ro(roDirNlink)) {
			c.add(bad(c.inodeOff(n.num)+inLinks, "links of directory "+inoName(n.num), l, fmt.Sprint(subdirs+2)))
		}
	}
}

// reserved marks the blocks of the file system's own inodes: journal, resize inode and the like. Blocks of the resize inode
// are reserved descriptors, which have been marked.
func (c *checker) reserved(ino uint32) {
	n, err := c.inode(ino)
	if err != nil {
		c.add(err)
		return
	}
	if ino != 1 && (n.links() == 0 || n.mode() == 0) { // inode 1 holds bad blocks and has no mode
		return
	}
	m, err := c.mapping(n)
	if err != nil {
		c.add(err)
		return
	}
	for i, b := range m.tree {
		if ino != 7 || i == 0 {
			c.own(b, 1, inoName(ino))
		}
	}
	if ino != 7 {
		for _, x := range m.list {
			c.own(x.phys, uint64(x.n), inoName(ino))
		}
	}
}

// content checks what an inode holds: mapping, attributes, count of sectors.
func (c *checker) content(n *inode) {
	blocks := uint64(0)
	if err := c.attributes(n); err != nil {
		c.add(err)
	} else if b := n.acl(); b != 0 {
		if blocks++; c.shared[b] == 0 {
			c.own(b, 1, inoName(n.num))
		}
		c.shared[b]++
	}
	if hasBlocks(n) {
		m, err := c.mapping(n)
		if err != nil {
			c.add(err)
			return
		}
		for _, b := range m.tree {
			c.own(b, 1, inoName(n.num))
		}
		for _, x := range m.list {
			c.own(x.phys, uint64(x.n), inoName(n.num))
		}
		if n.mode()&ifMask == ifReg && m.end() > (n.size()+BlockSize-1)/BlockSize && !m.list[len(m.list)-1].unwritten {
			c.add(bad(c.inodeOff(n.num)+inSizeLo, "size of "+inoName(n.num), n.size(), fmt.Sprintf("all of its %d blocks", m.end())))
		}
		blocks += m.blocks() + uint64(len(m.tree))
	}
	if n.mode()&ifMask == ifLnk {
		if _, err := c.readLink(n); err != nil {
			c.add(err)
		}
	}
	if s := n.sectors(); s != blocks*(BlockSize/512) {
		c.add(bad(c.inodeOff(n.num)+inBlocksLo, "sectors of "+inoName(n.num), s, fmt.Sprint(blocks*(BlockSize/512))))
	}
}

// attributes checks that the extended attributes of n can be read, and their hashes.
func (c *checker) attributes(n *inode) error {
	if _, err := c.xattrs(n); err != nil {
		return err
	}
	list, err := c.attrs(n)
	for i := range list {
		if x := &list[i]; x.sum != x.hash() && x.sum != x.hashAs(true) && x.sum != 0 {
			c.add(bad(c.inodeOff(n.num), fmt.Sprintf("hash of attribute %q of inode %d", joinKey(x.index, x.name), n.num), fmt.Sprintf("0x%08x", x.sum), fmt.Sprintf("0x%08x", x.hash())))
		}
	}
	return err
}

// padding checks the bits behind those that mean something.
func (c *checker) padding(p []byte, from uint32, off int64) {
	if i := nextBit(p, from, groupBlocks, false); i < groupBlocks {
		c.add(bad(off+int64(i/8), "padding of a bitmap", "clear", "all bits set"))
	}
}

// group compares the bitmaps and counters of a group with what was found.
func (c *checker) group(g uint32) {
	if err := c.trim(); err != nil {
		c.add(err)
		return
	}
	p, err := c.blockBitmap(g, false)
	if err != nil {
		c.add(err)
		return
	}
	free := c.compare(p, c.used[g], c.groupSize(g), func(i uint32) string { return fmt.Sprintf("block %d", uint64(g)*groupBlocks+uint64(i)) }, int64(c.descBlock(g, gdBlockBitmap))*BlockSize)
	c.padding(p, c.groupSize(g), int64(c.descBlock(g, gdBlockBitmap))*BlockSize)
	if n := c.count(g, gdFreeBlocks, gdFreeBlocksHi); n != free {
		c.add(bad(BlockSize+int64(g)*int64(c.descSize), fmt.Sprintf("free blocks of group %d", g), n, fmt.Sprint(free)))
	}
	c.free += uint64(free)
	if p, err = c.inodeBitmap(g, false); err != nil {
		c.add(err)
		return
	}
	ifree := c.compare(p, c.seen[g], c.inodesPerGroup, func(i uint32) string { return inoName(g*c.inodesPerGroup + i + 1) }, int64(c.descBlock(g, gdInodeBitmap))*BlockSize)
	c.padding(p, c.inodesPerGroup, int64(c.descBlock(g, gdInodeBitmap))*BlockSize)
	if n := c.count(g, gdFreeInodes, gdFreeInodesHi); n != ifree {
		c.add(bad(BlockSize+int64(g)*int64(c.descSize), fmt.Sprintf("free inodes of group %d", g), n, fmt.Sprint(ifree)))
	}
	c.ifree += uint64(ifree)
}

// compare returns the number of clear bits, and reports the first that is not as found.
func (c *checker) compare(p, found []byte, n uint32, name func(uint32) string, off int64) (free uint32) {
	reported := false
	for i := uint32(0); i < n; i++ {
		if i%8 == 0 && i+8 <= n && (found == nil && p[i/8] == 0 || found != nil && p[i/8] == found[i/8]) {
			free += uint32(8 - bits.OnesCount8(p[i/8]))
			i += 7
			continue
		}
		has := found != nil && testBit(found, i)
		if set := testBit(p, i); !set {
			free++
			if has && !reported {
				c.add(bad(off, name(i), "free", "used, for something has it"))
				reported = true
			}
		} else if !has && !reported {
			c.add(bad(off, name(i), "used", "free, for nothing has it"))
			reported = true
		}
	}
	return free
}

func (c *checker) totals() {
	if f := c.freeBlocks(); f != c.free && !c.full() {
		c.add(sbBad(sbFreeBlocksLo, "free blocks", f, fmt.Sprint(c.free)))
	}
	if f := u32(c.sb, sbFreeInodes); uint64(f) != c.ifree && !c.full() {
		c.add(sbBad(sbFreeInodes, "free inodes", f, fmt.Sprint(c.ifree)))
	}
	dirs := uint64(0)
	for g := range c.groups {
		dirs += uint64(c.count(g, gdUsedDirs, gdUsedDirsHi))
	}
	if dirs != uint64(c.dirs) && !c.full() {
		c.add(&abi.FormatError{Class: abi.ErrCorrupt, Format: formatName, Off: BlockSize, Field: "directories of all groups", Got: fmt.Sprint(dirs), Want: fmt.Sprint(c.dirs)})
	}
}
