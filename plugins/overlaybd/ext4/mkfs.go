package ext4

import (
	"crypto/sha256"
	"fmt"
	"math/bits"

	"github.com/convhost/convhost/abi"
)

// MkfsOptions choose what [Format] makes. The zero value is right for layers.
type MkfsOptions struct {
	// UUID of the file system; zero: made of the device's size, so that equal requests give equal bytes.
	UUID [16]byte
	// Checksums gives every metadata block a checksum (metadata_csum). Off, group descriptors alone have one (uninit_bg), which
	// is what upstream's tools expect, and layers are smaller.
	Checksums bool
	// InodeRatio is the number of bytes for each inode; 0: 16384.
	InodeRatio int64
}

// chunk is the number of blocks that upstream's applier caches together. It reads and writes superblock and descriptors past
// its cache, so nothing else that changes may stand in their chunks: lost+found, which no one touches, fills them.
const chunk = 32

// Limits of a device for Format.
const (
	minDevice = 1 << 20
	maxDevice = int64(maxGroups) * groupBlocks * BlockSize
)

// layout is where Format puts things.
type layout struct {
	blocks, gdt, first, end uint64 // first: block bitmaps, inode bitmaps, then tables, up to end
	groups, perGroup, table uint32
}

func plan(size int64, opt MkfsOptions) (l layout, err error) {
	if size < minDevice || size > maxDevice {
		return l, abi.Errorf(abi.ErrInvalid, "ext4: a device of %d bytes, want %d to %d", size, int64(minDevice), maxDevice)
	}
	ratio := opt.InodeRatio
	if ratio == 0 {
		ratio = 16384
	}
	if ratio < 1024 || ratio > 1<<26 {
		return l, abi.Errorf(abi.ErrInvalid, "ext4: %d bytes for each inode, want 1024 to %d", ratio, 1<<26)
	}
	l.blocks = uint64(size) / BlockSize
	l.groups = uint32((l.blocks + groupBlocks - 1) / groupBlocks)
	per := min(l.blocks, groupBlocks) * BlockSize / uint64(ratio)
	l.perGroup = uint32(min(max(per+15, 32)&^15, groupBlocks))
	l.table = l.perGroup * inodeSize / BlockSize
	l.gdt = (uint64(l.groups)*64 + BlockSize - 1) / BlockSize
	l.first = (1 + l.gdt + chunk - 1) / chunk * chunk
	l.end = l.first + uint64(l.groups)*(2+uint64(l.table))
	if l.end+64 > l.blocks {
		return l, abi.Errorf(abi.ErrInvalid, "ext4: a device of %d bytes has no room behind %d inodes", size, uint64(l.groups)*uint64(l.perGroup))
	}
	return l, nil
}

// format fills a volume in memory; everything it needs is dirty afterwards.
func format(dev Device, opt MkfsOptions) (*volume, error) {
	l, err := plan(dev.Size(), opt)
	if err != nil {
		return nil, err
	}
	v := &volume{r: dev, size: dev.Size(), blocks: map[uint64]*block{}, budget: defaultBudget, extents: map[uint32]*extentMap{}}
	v.sb = superblock(l, opt, dev.Size())
	if err := v.parseSuper(true); err != nil {
		return nil, err
	}
	v.gdt = make([]byte, l.gdt*BlockSize)
	for g := range l.groups {
		d := v.desc(g)
		putPair(d, gdBlockBitmap, gdBlockBitmap+gdHi, l.first+uint64(g))
		putPair(d, gdInodeBitmap, gdInodeBitmap+gdHi, l.first+uint64(l.groups)+uint64(g))
		putPair(d, gdInodeTable, gdInodeTable+gdHi, l.first+2*uint64(l.groups)+uint64(g)*uint64(l.table))
		v.setCount(g, gdFreeBlocks, gdFreeBlocksHi, v.groupSize(g))
		v.setCount(g, gdFreeInodes, gdFreeInodesHi, l.perGroup)
		v.setCount(g, gdItableUnused, gdUnusedHi, l.perGroup)
		put16(d, gdFlags, bgBlockUninit|bgInodeUninit|bgItableZeroed)
	}
	return v, v.reserve(l)
}

// reserve marks what the layout takes. Far groups stay uninitialized: nothing of them is stored.
func (v *volume) reserve(l layout) error {
	a := &allocator{volume: v, streamed: map[uint32][]byte{}}
	if _, err := v.blockBitmap(l.groups-1, true); err != nil { // readers want the last one initialized
		return err
	}
	for b := uint64(0); b < l.end; b += groupBlocks {
		g, n := uint32(b/groupBlocks), uint32(min(l.end-b, groupBlocks))
		p, err := v.blockBitmap(g, true)
		if err != nil {
			return err
		}
		clear(p)
		setBits(p, v.groupSize(g), groupBlocks)
		if err := a.take(b, n); err != nil {
			return err
		}
	}
	p, err := v.inodeBitmap(0, true)
	if err != nil {
		return err
	}
	setBits(p, 0, firstIno)
	v.addFreeInodes(0, -firstIno, false)
	v.setCount(0, gdUsedDirs, gdUsedDirsHi, 2)
	v.setCount(0, gdItableUnused, gdUnusedHi, l.perGroup-firstIno)
	if a, err = newAllocator(v); err != nil {
		return err
	}
	return a.firstDirs(l)
}

// firstDirs makes the root and lost+found.
func (a *allocator) firstDirs(l layout) error {
	lost := a.newInode(firstIno)
	put16(lost.raw, inMode, ifDir|0o700)
	lost.setLinks(2)
	root := a.newInode(rootIno)
	put16(root.raw, inMode, ifDir|0o755)
	root.setLinks(3)
	if err := a.newDir(root, rootIno); err != nil {
		return err
	}
	if spare := uint32(l.first - 1 - l.gdt); spare > 0 {
		m := &extentMap{}
		m.add(0, 1+l.gdt, spare)
		for i := range uint64(spare) {
			a.emptyLeaf(a.fresh(1+l.gdt+i, kindDirLeaf, a.inodeSeed(firstIno, 0)).data)
		}
		p := a.fresh(1+l.gdt, kindDirLeaf, a.inodeSeed(firstIno, 0)).data
		a.emptyLeaf(p)
		putRecord(p, 0, 12, firstIno, ftDir, ".")
		putRecord(p, 12, a.dirEnd()-12, rootIno, ftDir, "..")
		lost.setSize(uint64(spare) * BlockSize)
		if err := a.putMapping(lost, m, 0); err != nil {
			return err
		}
	} else if err := a.newDir(lost, rootIno); err != nil {
		return err
	}
	if err := a.putInode(lost); err != nil {
		return err
	}
	if err := a.putInode(root); err != nil {
		return err
	}
	return a.insert(root, firstIno, ftDir, lostFound)
}

const lostFound = "lost+found"

func superblock(l layout, opt MkfsOptions, size int64) []byte {
	sb := make([]byte, superSize)
	id := sha256.Sum256(fmt.Appendf(nil, "convhost ext4 %d", size))
	id[6], id[8] = id[6]&0xf|0x80, id[8]&0x3f|0x80 // RFC 9562, version 8
	put32(sb, sbInodes, l.groups*l.perGroup)
	putPair(sb, sbBlocksLo, sbBlocksHi, l.blocks)
	putPair(sb, sbFreeBlocksLo, sbFreeBlocksHi, l.blocks)
	put32(sb, sbFreeInodes, l.groups*l.perGroup)
	put32(sb, sbLogBlock, 2)
	put32(sb, sbLogCluster, 2)
	put32(sb, sbBlocksPerGroup, groupBlocks)
	put32(sb, sbClustersPerG, groupBlocks)
	put32(sb, sbInodesPerGroup, l.perGroup)
	put16(sb, sbMaxMnt, 0xFFFF)
	put16(sb, sbMagic, magic)
	put16(sb, sbState, 1)
	put16(sb, sbErrors, 1)
	put32(sb, sbRev, 1)
	put32(sb, sbFirstIno, firstIno)
	put16(sb, sbInodeSize, inodeSize)
	put32(sb, sbCompat, compatExtAttr|compatDirIndex|compatSparseSuper)
	put32(sb, sbIncompat, incFiletype|incExtents|inc64bit|incFlexBG)
	ro := uint32(roSparseSuper | roLargeFile | roHugeFile | roDirNlink | roExtraIsize)
	if opt.Checksums {
		ro |= roMetaCsum
		sb[sbChecksumType] = 1
	} else {
		ro |= roGdtCsum
	}
	put32(sb, sbRoCompat, ro)
	if opt.UUID == [16]byte{} {
		copy(sb[sbUUID:], id[:16])
	} else {
		copy(sb[sbUUID:], opt.UUID[:])
	}
	copy(sb[sbHashSeed:], id[16:])
	sb[sbHashVersion] = hashHalfMD4
	put16(sb, sbDescSize, 64)
	put32(sb, sbMountOpts, 0xC) // user_xattr, acl
	put16(sb, sbMinExtra, extraIsize)
	put16(sb, sbWantExtra, extraIsize)
	put32(sb, sbFlags, flagSignedHash)
	sb[sbLogFlex] = byte(max(1, bits.Len32(l.groups-1)))
	if opt.Checksums {
		put32(sb, sbChecksum, crc32c(^uint32(0), sb[:sbChecksum]))
	}
	return sb
}
