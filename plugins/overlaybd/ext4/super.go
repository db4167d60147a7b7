package ext4

import (
	"fmt"
	"io"
	"strings"

	"github.com/convhost/convhost/abi"
)

// volume is an open file system: geometry, descriptors and the blocks in memory. Readers and appliers share it.
type volume struct {
	r    io.ReaderAt
	size int64

	sb  []byte // superblock, 1024 bytes
	gdt []byte // all group descriptors

	blockCount     uint64
	inodeCount     uint32
	inodesPerGroup uint32
	inodeSize      int
	descSize       int
	groups         uint32
	seed           uint32 // of all CRC-32C
	metaCsum       bool
	gdtCsum        bool
	wide           bool // 64bit: block numbers and descriptors have high halves
	flags          uint32

	blocks    map[uint64]*block
	loaded    int // blocks with data in memory
	budget    int // blocks
	kept      int // blocks that the last trim could not let go, and half as many
	scratch   Scratch
	slots     int64
	freeSlots []int64

	extents map[uint32]*extentMap // of directories in use
	fixed   []Run                 // see fixedRuns
}

const defaultBudget = 12 << 10 // blocks: 48 MiB

// openVolume reads superblock and descriptors. write refuses what only a writer must understand.
func openVolume(r io.ReaderAt, size int64, write bool) (*volume, error) {
	v := &volume{r: r, size: size, sb: make([]byte, superSize), blocks: map[uint64]*block{}, budget: defaultBudget, extents: map[uint32]*extentMap{}}
	if size < superOff+superSize {
		return nil, &abi.FormatError{Class: abi.ErrTruncated, Format: formatName, Off: max(size, 0), Field: "device size", Got: fmt.Sprint(size), Want: "a superblock"}
	}
	if err := readFull(r, v.sb, superOff); err != nil {
		return nil, err
	}
	if err := v.parseSuper(write); err != nil {
		return nil, err
	}
	return v, v.loadDescriptors()
}

func (v *volume) ro(f uint32) bool     { return u32(v.sb, sbRoCompat)&f != 0 }
func (v *volume) compat(f uint32) bool { return u32(v.sb, sbCompat)&f != 0 }

func sbBad(off int, field string, got any, want string) error {
	return bad(superOff+int64(off), "superblock "+field, got, want)
}

// features refuses what this package does not understand.
func (v *volume) features(write bool) error {
	inc := u32(v.sb, sbIncompat)
	if inc&incRecover != 0 {
		return unsupported(superOff+sbIncompat, "journal", "not replayed (needs_recovery)", "a file system that was unmounted cleanly")
	}
	if rest := inc &^ incompatKnown; rest != 0 {
		return unsupported(superOff+sbIncompat, "incompatible features", featureNames(rest, incompatNames), "only those that this version knows")
	}
	ro := u32(v.sb, sbRoCompat)
	if rest := ro &^ roKnown; write && rest != 0 {
		return unsupported(superOff+sbRoCompat, "read-only compatible features", featureNames(rest, roNames), "only those that this version can write")
	}
	if write && inc&incFiletype == 0 {
		return unsupported(superOff+sbIncompat, "feature filetype", "missing", "set")
	}
	if write && inc&incExtents == 0 {
		return unsupported(superOff+sbIncompat, "feature extents", "missing", "set")
	}
	if ro&0x200 != 0 {
		return unsupported(superOff+sbRoCompat, "read-only compatible features", "bigalloc", "none of clusters")
	}
	return nil
}

func featureNames(set uint32, names map[uint32]string) string {
	var out []string
	for i := range 32 {
		if f := uint32(1) << i; set&f != 0 {
			if n := names[f]; n != "" {
				out = append(out, n)
			} else {
				out = append(out, fmt.Sprintf("0x%x", f))
			}
		}
	}
	return strings.Join(out, ", ")
}

func (v *volume) parseSuper(write bool) error {
	sb := v.sb
	if m := u16(sb, sbMagic); m != magic {
		return sbBad(sbMagic, "magic", fmt.Sprintf("0x%04x", m), "0xef53")
	}
	if l := u32(sb, sbLogBlock); l != 2 {
		return unsupported(superOff+sbLogBlock, "block size", fmt.Sprintf("2^%d", 10+uint64(l)), "4096 bytes")
	}
	if rev := u32(sb, sbRev); rev != 1 {
		return unsupported(superOff+sbRev, "revision", rev, "1")
	}
	if err := v.features(write); err != nil {
		return err
	}
	v.metaCsum, v.gdtCsum = v.ro(roMetaCsum), v.ro(roGdtCsum)
	if v.metaCsum {
		if t := sb[sbChecksumType]; t != 1 {
			return unsupported(superOff+sbChecksumType, "checksum type", t, "1 (crc32c)")
		}
		if got, want := u32(sb, sbChecksum), crc32c(^uint32(0), sb[:sbChecksum]); got != want {
			return sbBad(sbChecksum, "checksum", fmt.Sprintf("0x%08x", got), fmt.Sprintf("0x%08x", want))
		}
		v.seed = crc32c(^uint32(0), sb[sbUUID:sbUUID+16])
		if u32(sb, sbIncompat)&incCsumSeed != 0 {
			v.seed = u32(sb, sbChecksumSeed)
		}
	}
	v.flags = u32(sb, sbFlags)
	v.wide = u32(sb, sbIncompat)&inc64bit != 0
	if err := v.geometry(); err != nil {
		return err
	}
	if write && u32(sb, sbLastOrphan) != 0 {
		return unsupported(superOff+sbLastOrphan, "orphan list", u32(sb, sbLastOrphan), "0: no files to be deleted at the next mount")
	}
	return nil
}

func (v *volume) geometry() error {
	sb := v.sb
	v.blockCount = uint64(u32(sb, sbBlocksLo))
	if v.wide {
		v.blockCount = pair(sb, sbBlocksLo, sbBlocksHi)
	}
	if v.blockCount == 0 || v.blockCount > uint64(v.size)/BlockSize {
		return sbBad(sbBlocksLo, "blocks", v.blockCount, fmt.Sprintf("1 to %d, the size of the device", v.size/BlockSize))
	}
	if f := u32(sb, sbFirstData); f != 0 {
		return sbBad(sbFirstData, "first data block", f, "0")
	}
	if n := u32(sb, sbBlocksPerGroup); n != groupBlocks || u32(sb, sbClustersPerG) != n || u32(sb, sbLogCluster) != 2 {
		return unsupported(superOff+sbBlocksPerGroup, "blocks per group", n, "32768, without clusters")
	}
	groups := (v.blockCount + groupBlocks - 1) / groupBlocks
	if groups > maxGroups {
		return &abi.FormatError{Class: abi.ErrLimit, Format: formatName, Off: superOff + sbBlocksLo, Field: "groups", Got: fmt.Sprint(groups), Want: fmt.Sprintf("at most %d (16 TiB)", maxGroups)}
	}
	v.groups = uint32(groups)
	v.inodeSize = int(u16(sb, sbInodeSize))
	if v.inodeSize != 128 && v.inodeSize != 256 && v.inodeSize != 512 && v.inodeSize != 1024 {
		return sbBad(sbInodeSize, "inode size", v.inodeSize, "128, 256, 512 or 1024")
	}
	v.inodesPerGroup = u32(sb, sbInodesPerGroup)
	if n := v.inodesPerGroup; n == 0 || n > groupBlocks || n%8 != 0 || int(n)*v.inodeSize%BlockSize != 0 {
		return sbBad(sbInodesPerGroup, "inodes per group", n, "full table blocks, at most 32768")
	}
	v.inodeCount = u32(sb, sbInodes)
	if uint64(v.inodeCount) != groups*uint64(v.inodesPerGroup) {
		return sbBad(sbInodes, "inodes", v.inodeCount, "inodes per group × groups")
	}
	if f := u32(sb, sbFirstIno); f < firstIno || f >= v.inodesPerGroup {
		return sbBad(sbFirstIno, "first inode", f, "11 or more, in the first group")
	}
	v.descSize = 32
	if v.wide {
		v.descSize = int(u16(sb, sbDescSize))
		if v.descSize != 64 && v.descSize != 32 {
			return unsupported(superOff+sbDescSize, "descriptor size", v.descSize, "64")
		}
	}
	return nil
}

// gdtBlocks returns how many blocks the descriptors take behind the superblock.
func (v *volume) gdtBlocks() uint64 {
	return (uint64(v.groups)*uint64(v.descSize) + BlockSize - 1) / BlockSize
}

func (v *volume) loadDescriptors() error {
	n := v.gdtBlocks() * BlockSize
	if 1+v.gdtBlocks() > min(v.blockCount, groupBlocks) {
		return bad(BlockSize, "group descriptors", n, "within the first group")
	}
	v.gdt = make([]byte, n) // at most 8 MiB, see maxGroups
	if err := readFull(v.r, v.gdt, BlockSize); err != nil {
		return err
	}
	table := uint64(v.tableBlocks())
	for g := range v.groups {
		d := v.desc(g)
		off := BlockSize + int64(g)*int64(v.descSize)
		if v.gdtCsum || v.metaCsum {
			if got, want := u16(d, gdChecksum), v.descSum(g, d); got != want {
				return bad(off+gdChecksum, fmt.Sprintf("checksum of group %d", g), fmt.Sprintf("0x%04x", got), fmt.Sprintf("0x%04x", want))
			}
		}
		for _, f := range [...]struct {
			name string
			off  int
			n    uint64
		}{{"block bitmap", gdBlockBitmap, 1}, {"inode bitmap", gdInodeBitmap, 1}, {"inode table", gdInodeTable, table}} {
			if b := v.descBlock(g, f.off); b <= v.gdtBlocks() || b >= v.blockCount || v.blockCount-b < f.n {
				return bad(off+int64(f.off), fmt.Sprintf("%s of group %d", f.name, g), b, "blocks of the device behind the descriptors")
			}
		}
	}
	return nil
}

// tableBlocks returns the blocks of one group's inode table.
func (v *volume) tableBlocks() uint32 {
	return uint32(uint64(v.inodesPerGroup) * uint64(v.inodeSize) / BlockSize)
}

// desc returns the descriptor of group g, for reading and changing.
func (v *volume) desc(g uint32) []byte {
	off := int(g) * v.descSize
	return v.gdt[off : off+v.descSize : off+v.descSize]
}

func (v *volume) descBlock(g uint32, off int) uint64 {
	d := v.desc(g)
	if v.descSize < 64 {
		return uint64(u32(d, off))
	}
	return pair(d, off, off+gdHi)
}

// count reads a 16-bit field with its high half, hi 0 meaning it has none.
func (v *volume) count(g uint32, lo, hi int) uint32 {
	d := v.desc(g)
	n := u16(d, lo)
	if v.descSize >= 64 {
		n |= u16(d, hi) << 16
	}
	return n
}

func (v *volume) setCount(g uint32, lo, hi int, n uint32) {
	d := v.desc(g)
	put16(d, lo, n)
	if v.descSize >= 64 {
		put16(d, hi, n>>16)
	}
}

// groupSize returns the blocks of group g; the last one may be short.
func (v *volume) groupSize(g uint32) uint32 {
	return uint32(min(v.blockCount-uint64(g)*groupBlocks, groupBlocks))
}
