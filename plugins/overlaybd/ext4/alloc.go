package ext4

import (
	"fmt"

	"github.com/convhost/convhost/abi"
)

// allocator hands out blocks and inodes of one session. File data and metadata grow in different places, so that both are
// contiguous; the order of requests decides all addresses.
type allocator struct {
	*volume
	data    uint64 // where the search for data blocks goes on
	meta    uint64 // next block of the window for metadata
	metaEnd uint64
	ino     uint32 // where the search for inodes goes on, from 0

	streamed map[uint32][]byte // by group: blocks that were given to the device already
	deferred []Run             // streamed blocks that were freed: unused at the end, but not before
}

const metaWindow = 64 // blocks reserved at a time

func newAllocator(v *volume) (*allocator, error) {
	a := &allocator{volume: v, streamed: map[uint32][]byte{}}
	g := a.emptyGroup(gdFreeBlocks, gdFreeBlocksHi, groupBlocks)
	p, err := v.blockBitmap(g, false)
	if err != nil {
		return nil, err
	}
	a.data = uint64(g)*groupBlocks + uint64(lastUsed(p, v.groupSize(g)))
	g = a.emptyGroup(gdFreeInodes, gdFreeInodesHi, v.inodesPerGroup)
	if p, err = v.inodeBitmap(g, false); err != nil {
		return nil, err
	}
	a.ino = g*v.inodesPerGroup + lastUsed(p, v.inodesPerGroup)
	return a, nil
}

// emptyGroup returns the first group that is at least half free, else 0: new things go behind what lower layers have.
func (a *allocator) emptyGroup(lo, hi int, size uint32) uint32 {
	for g := range a.groups {
		if a.count(g, lo, hi) >= size/2 {
			return g
		}
	}
	return 0
}

// lastUsed returns the number behind the last bit that is set among the first n.
func lastUsed(p []byte, n uint32) uint32 {
	for n > 0 && !testBit(p, n-1) {
		n--
	}
	return n
}

func (v *volume) freeBlocks() uint64 {
	if v.wide {
		return pair(v.sb, sbFreeBlocksLo, sbFreeBlocksHi)
	}
	return uint64(u32(v.sb, sbFreeBlocksLo))
}

func (v *volume) addFreeBlocks(g uint32, n int64) {
	f := uint64(int64(v.freeBlocks()) + n)
	put32(v.sb, sbFreeBlocksLo, uint32(f))
	if v.wide {
		put32(v.sb, sbFreeBlocksHi, uint32(f>>32))
	}
	v.setCount(g, gdFreeBlocks, gdFreeBlocksHi, uint32(int64(v.count(g, gdFreeBlocks, gdFreeBlocksHi))+n))
}

func (a *allocator) full(what string) error {
	advice := "a larger one (vsize)"
	if what == "inodes" {
		advice += " or more inodes on it (a smaller inode-ratio)"
	}
	return abi.Errorf(abi.ErrLimit, "ext4: the device of %d bytes has no free %s left, want %s", a.size, what, advice)
}

// find returns the first run of free blocks at or behind from, of at most want blocks and within one group, then from the start
// of the device. Nothing is marked. The window of metadata is passed over.
func (a *allocator) find(from uint64, want uint32) (start uint64, n uint32, err error) {
	if from >= a.blockCount {
		from = 0
	}
	first := uint32(from / groupBlocks)
	for i := uint32(0); i <= a.groups; i++ {
		g := (first + i) % a.groups
		if a.count(g, gdFreeBlocks, gdFreeBlocksHi) == 0 {
			continue
		}
		p, err := a.blockBitmap(g, false)
		if err != nil {
			return 0, 0, err
		}
		base, size, bit := uint64(g)*groupBlocks, a.groupSize(g), uint32(0)
		if i == 0 {
			bit = uint32(from % groupBlocks)
		}
		for {
			if bit = nextBit(p, bit, size, false); bit == size {
				break
			}
			start := base + uint64(bit)
			if start >= a.meta && start < a.metaEnd {
				bit = uint32(min(a.metaEnd-base, uint64(size)))
				continue
			}
			end := nextBit(p, bit, min(size, bit+want), true)
			if start < a.meta && base+uint64(end) > a.meta {
				end = uint32(a.meta - base)
			}
			return start, end - bit, nil
		}
	}
	return 0, 0, nil
}

// take marks free blocks as used.
func (a *allocator) take(start uint64, n uint32) error {
	g := uint32(start / groupBlocks)
	if free := a.count(g, gdFreeBlocks, gdFreeBlocksHi); free < n || a.freeBlocks() < uint64(n) {
		return bad(BlockSize+int64(g)*int64(a.descSize)+gdFreeBlocks, fmt.Sprintf("free blocks of group %d", g), free, "as many as the bitmap has")
	}
	p, err := a.blockBitmap(g, true)
	if err != nil {
		return err
	}
	bit := uint32(start % groupBlocks)
	setBits(p, bit, bit+n)
	a.addFreeBlocks(g, -int64(n))
	return nil
}

// allocData returns up to want adjacent blocks for file data.
func (a *allocator) allocData(want uint32) (start uint64, n uint32, err error) {
	if start, n, err = a.find(a.data, want); err != nil {
		return 0, 0, err
	}
	if n == 0 && a.meta < a.metaEnd { // the window is all that is left
		a.meta, a.metaEnd = 0, 0
		start, n, err = a.find(a.data, want)
	}
	if err != nil {
		return 0, 0, err
	}
	if n == 0 {
		return 0, 0, a.full("blocks")
	}
	if err := a.take(start, n); err != nil {
		return 0, 0, err
	}
	a.data = start + uint64(n)
	g := uint32(start / groupBlocks)
	s := a.streamed[g]
	if s == nil {
		s = make([]byte, BlockSize)
		a.streamed[g] = s
	}
	setBits(s, uint32(start%groupBlocks), uint32(start%groupBlocks)+n)
	return start, n, nil
}

// allocMeta returns one block for metadata.
func (a *allocator) allocMeta() (uint64, error) {
	if a.meta == a.metaEnd {
		start, n, err := a.find(a.data, metaWindow)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, a.full("blocks")
		}
		a.meta, a.metaEnd = start, start+uint64(n)
	}
	b := a.meta
	a.meta++
	return b, a.take(b, 1)
}

// freeRun gives blocks back. Blocks whose new content is at the device already are not used again in this session.
func (a *allocator) freeRun(start, n uint64) error {
	if start == 0 || start >= a.blockCount || n > a.blockCount-start {
		return bad(-1, "blocks to be freed", fmt.Sprintf("%d+%d", start, n), "blocks of the device")
	}
	if a.isFixed(start, n) {
		return bad(int64(start)*BlockSize, "blocks to be freed", fmt.Sprintf("%d+%d", start, n), "not those of the file system itself")
	}
	for n > 0 {
		g, bit := uint32(start/groupBlocks), uint32(start%groupBlocks)
		k := uint32(min(n, uint64(groupBlocks-bit)))
		s := a.streamed[g]
		if s == nil || nextBit(s, bit, bit+k, true) == bit+k {
			if err := a.releaseBits(g, bit, k); err != nil {
				return err
			}
		} else {
			a.deferred = append(a.deferred, Run{start, uint64(k)})
		}
		start, n = start+uint64(k), n-uint64(k)
	}
	return nil
}

func (a *allocator) releaseBits(g, bit, n uint32) error {
	p, err := a.blockBitmap(g, true)
	if err != nil {
		return err
	}
	if e := nextBit(p, bit, bit+n, false); e != bit+n {
		return bad(int64(a.descBlock(g, gdBlockBitmap))*BlockSize, fmt.Sprintf("block %d", uint64(g)*groupBlocks+uint64(e)), "free", "used, for a file has it")
	}
	for i := bit; i < bit+n; i++ {
		clearBit(p, i)
		a.drop(uint64(g)*groupBlocks + uint64(i))
	}
	a.addFreeBlocks(g, int64(n))
	return nil
}

// finish frees what had to wait.
func (a *allocator) finish() error {
	for _, r := range a.deferred {
		if err := a.releaseBits(uint32(r.Block/groupBlocks), uint32(r.Block%groupBlocks), uint32(r.Count)); err != nil {
			return err
		}
	}
	a.deferred = nil
	return nil
}

// allocInode returns the number of a free inode and marks it.
func (a *allocator) allocInode(dir bool) (uint32, error) {
	first := a.ino / a.inodesPerGroup
	for i := uint32(0); i <= a.groups; i++ {
		g := (first + i) % a.groups
		if a.count(g, gdFreeInodes, gdFreeInodesHi) == 0 {
			continue
		}
		p, err := a.inodeBitmap(g, false)
		if err != nil {
			return 0, err
		}
		from := uint32(0)
		if i == 0 {
			from = a.ino % a.inodesPerGroup
		}
		if g == 0 {
			from = max(from, u32(a.sb, sbFirstIno)-1)
		}
		bit := nextBit(p, from, a.inodesPerGroup, false)
		if bit == a.inodesPerGroup {
			continue
		}
		if p, err = a.inodeBitmap(g, true); err != nil {
			return 0, err
		}
		setBit(p, bit)
		a.ino = g*a.inodesPerGroup + bit + 1
		a.addFreeInodes(g, -1, dir)
		return g*a.inodesPerGroup + bit + 1, a.useTable(g, bit)
	}
	return 0, a.full("inodes")
}

func (v *volume) addFreeInodes(g uint32, n int, dir bool) {
	put32(v.sb, sbFreeInodes, uint32(int(u32(v.sb, sbFreeInodes))+n))
	v.setCount(g, gdFreeInodes, gdFreeInodesHi, uint32(int(v.count(g, gdFreeInodes, gdFreeInodesHi))+n))
	if dir {
		v.setCount(g, gdUsedDirs, gdUsedDirsHi, uint32(int(v.count(g, gdUsedDirs, gdUsedDirsHi))-n))
	}
}

// useTable moves the border of the table's unused part behind inode bit. What was behind it may hold anything.
func (v *volume) useTable(g, bit uint32) error {
	if !v.gdtCsum && !v.metaCsum {
		return nil
	}
	unused := v.count(g, gdItableUnused, gdUnusedHi)
	if unused > v.inodesPerGroup {
		return bad(-1, fmt.Sprintf("unused inodes of group %d", g), unused, "at most the inodes of a group")
	}
	border := v.inodesPerGroup - unused
	if bit < border {
		return nil
	}
	if u16(v.desc(g), gdFlags)&bgItableZeroed == 0 {
		per := uint32(BlockSize / v.inodeSize)
		for ; border <= bit; border = border - border%per + per {
			n := v.descBlock(g, gdInodeTable) + uint64(border/per)
			if border%per == 0 {
				v.fresh(n, kindPlain, 0)
				continue
			}
			b, err := v.get(n)
			if err != nil {
				return err
			}
			clear(b.data[int(border%per)*v.inodeSize:])
			b.dirty = true
		}
	}
	v.setCount(g, gdItableUnused, gdUnusedHi, v.inodesPerGroup-bit-1)
	return nil
}

// freeInode clears an inode and its bit.
func (a *allocator) freeInode(ino uint32, dir bool) error {
	if ino < u32(a.sb, sbFirstIno) {
		return bad(a.inodeOff(ino), "inode to be deleted", ino, "not a reserved one")
	}
	g, bit := (ino-1)/a.inodesPerGroup, (ino-1)%a.inodesPerGroup
	p, err := a.inodeBitmap(g, true)
	if err != nil {
		return err
	}
	if !testBit(p, bit) {
		return bad(a.inodeOff(ino), inoName(ino), "free", "in use, for a directory names it")
	}
	clearBit(p, bit)
	a.addFreeInodes(g, 1, dir)
	return a.putInode(&inode{num: ino, raw: make([]byte, a.inodeSize)})
}
