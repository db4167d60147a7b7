package ext4

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"sort"
)

// Bitmaps are little endian: bit i of a group is bit i%8 of byte i/8.

func testBit(p []byte, i uint32) bool { return p[i>>3]>>(i&7)&1 != 0 }
func setBit(p []byte, i uint32)       { p[i>>3] |= 1 << (i & 7) }
func clearBit(p []byte, i uint32)     { p[i>>3] &^= 1 << (i & 7) }

func setBits(p []byte, from, to uint32) {
	for ; from < to && from&7 != 0; from++ {
		setBit(p, from)
	}
	for ; from+8 <= to; from += 8 {
		p[from>>3] = 0xff
	}
	for ; from < to; from++ {
		setBit(p, from)
	}
}

// nextBit returns the first bit in [from, to) that is set (or clear), else to.
func nextBit(p []byte, from, to uint32, set bool) uint32 {
	flip := byte(0)
	if !set {
		flip = 0xff
	}
	for from < to {
		b := (p[from>>3] ^ flip) >> (from & 7)
		if b != 0 {
			return min(from+uint32(bits.TrailingZeros8(b)), to)
		}
		from = from&^7 + 8
	}
	return to
}

// hasSuper tells whether group g carries a copy of superblock and descriptors.
func (v *volume) hasSuper(g uint32) bool {
	switch {
	case g == 0:
		return true
	case v.compat(compatSparseSuper):
		return g == u32(v.sb, sbBackupGroups) || g == u32(v.sb, sbBackupGroups+4)
	case !v.ro(roSparseSuper) || g == 1:
		return true
	}
	for _, base := range [...]uint64{3, 5, 7} {
		n := base
		for n < uint64(g) {
			n *= base
		}
		if n == uint64(g) {
			return true
		}
	}
	return false
}

// initBitmap computes the block bitmap of a group whose descriptor says that it was never written.
func (v *volume) initBitmap(p []byte, g uint32) {
	clear(p)
	size := v.groupSize(g)
	if v.hasSuper(g) {
		setBits(p, 0, uint32(min(1+v.gdtBlocks()+uint64(u16(v.sb, sbReservedGDT)), uint64(size))))
	}
	first := uint64(g) * groupBlocks
	runs := v.fixedRuns()
	end := first + uint64(size)
	i := sort.Search(len(runs), func(i int) bool { return runs[i].Block+groupBlocks > first }) // no run is longer than a group
	for ; i < len(runs) && runs[i].Block < end; i++ {
		if b, n := runs[i].Block, runs[i].Count; b+n > first {
			setBits(p, uint32(max(b, first)-first), uint32(min(b+n, end)-first))
		}
	}
	setBits(p, size, groupBlocks)
}

// fixedRuns returns the bitmaps and tables of all groups in ascending order.
func (v *volume) fixedRuns() []Run {
	if v.fixed == nil {
		for g := range v.groups {
			v.fixed = append(v.fixed, Run{v.descBlock(g, gdBlockBitmap), 1}, Run{v.descBlock(g, gdInodeBitmap), 1},
				Run{v.descBlock(g, gdInodeTable), uint64(v.tableBlocks())})
		}
		slices.SortFunc(v.fixed, func(a, b Run) int { return cmp.Compare(a.Block, b.Block) })
	}
	return v.fixed
}

// isFixed tells whether any of the blocks belongs to the file system itself.
func (v *volume) isFixed(start, n uint64) bool {
	runs := v.fixedRuns()
	i := sort.Search(len(runs), func(i int) bool { return runs[i].Block+groupBlocks > start })
	for ; i < len(runs) && runs[i].Block < start+n; i++ {
		if runs[i].Block+runs[i].Count > start {
			return true
		}
	}
	return start <= v.gdtBlocks()
}

func (v *volume) uninit(g, flag uint32) bool {
	return (v.gdtCsum || v.metaCsum) && u16(v.desc(g), gdFlags)&flag != 0
}

func (v *volume) initialized(g, flag uint32) {
	d := v.desc(g)
	put16(d, gdFlags, u16(d, gdFlags)&^flag)
}

// blockBitmap returns the block bitmap of group g. With change it is marked to be written.
func (v *volume) blockBitmap(g uint32, change bool) ([]byte, error) {
	at := v.descBlock(g, gdBlockBitmap)
	if v.uninit(g, bgBlockUninit) {
		p := make([]byte, BlockSize)
		if change {
			p = v.fresh(at, kindPlain, 0).data
			v.initialized(g, bgBlockUninit)
		}
		v.initBitmap(p, g)
		return p, nil
	}
	b, err := v.get(at)
	if err != nil {
		return nil, err
	}
	if v.metaCsum && !b.dirty {
		if err := v.bitmapSealed(g, b.data, BlockSize, gdBlockCsum, gdBlockCsumHi); err != nil {
			return nil, err
		}
	}
	b.dirty = b.dirty || change
	return b.data, nil
}

// inodeBitmap returns the inode bitmap of group g, as blockBitmap.
func (v *volume) inodeBitmap(g uint32, change bool) ([]byte, error) {
	at := v.descBlock(g, gdInodeBitmap)
	if v.uninit(g, bgInodeUninit) {
		p := make([]byte, BlockSize)
		if change {
			p = v.fresh(at, kindPlain, 0).data
			v.initialized(g, bgInodeUninit)
		}
		setBits(p, v.inodesPerGroup, groupBlocks)
		return p, nil
	}
	b, err := v.get(at)
	if err != nil {
		return nil, err
	}
	if v.metaCsum && !b.dirty {
		if err := v.bitmapSealed(g, b.data, int(v.inodesPerGroup/8), gdInodeCsum, gdInodeCsumHi); err != nil {
			return nil, err
		}
	}
	b.dirty = b.dirty || change
	return b.data, nil
}

func (v *volume) bitmapSealed(g uint32, p []byte, n, lo, hi int) error {
	d := v.desc(g)
	want := crc32c(v.seed, p[:n])
	got := u16(d, lo)
	if v.descSize >= 64 {
		got |= u16(d, hi) << 16
	} else {
		want &= 0xffff
	}
	if got != want {
		return bad(BlockSize+int64(g)*int64(v.descSize)+int64(lo), fmt.Sprintf("bitmap checksum of group %d", g), fmt.Sprintf("0x%08x", got), fmt.Sprintf("0x%08x", want))
	}
	return nil
}

// sealDescriptors brings the checksums of changed bitmaps and of all descriptors up to date.
func (v *volume) sealDescriptors() error {
	for g := range v.groups {
		d := v.desc(g)
		if v.metaCsum {
			for _, m := range [...]struct {
				at, lo, hi, n int
				uninit        uint32
			}{{gdBlockBitmap, gdBlockCsum, gdBlockCsumHi, BlockSize, bgBlockUninit}, {gdInodeBitmap, gdInodeCsum, gdInodeCsumHi, int(v.inodesPerGroup / 8), bgInodeUninit}} {
				b := v.blocks[v.descBlock(g, m.at)]
				if b == nil || !b.dirty || v.uninit(g, m.uninit) {
					continue
				}
				b, err := v.get(b.n)
				if err != nil {
					return err
				}
				sum := crc32c(v.seed, b.data[:m.n])
				put16(d, m.lo, sum)
				if v.descSize >= 64 {
					put16(d, m.hi, sum>>16)
				}
			}
		}
		if v.metaCsum || v.gdtCsum {
			put16(d, gdChecksum, v.descSum(g, d))
		}
	}
	return nil
}
