package ext4

import "encoding/binary"

var le = binary.LittleEndian

// Sizes and numbers of the format.
const (
	BlockSize   = 4096 // bytes of a block; other block sizes are refused
	superOff    = 1024 // byte offset of the superblock on the device
	superSize   = 1024
	magic       = 0xEF53
	rootIno     = 2
	firstIno    = 11 // the first inode that is not reserved; lost+found
	goodOldIno  = 128
	inodeSize   = 256 // of file systems we make
	extraIsize  = 32
	maxGroups   = 1 << 17 // 16 TiB
	groupBlocks = BlockSize * 8
	linkMax     = 65000
)

// Superblock fields, byte offsets.
const (
	sbInodes         = 0x00
	sbBlocksLo       = 0x04
	sbReservedLo     = 0x08
	sbFreeBlocksLo   = 0x0C
	sbFreeInodes     = 0x10
	sbFirstData      = 0x14
	sbLogBlock       = 0x18
	sbLogCluster     = 0x1C
	sbBlocksPerGroup = 0x20
	sbClustersPerG   = 0x24
	sbInodesPerGroup = 0x28
	sbMaxMnt         = 0x36 // u16
	sbMagic          = 0x38 // u16
	sbState          = 0x3A // u16, 1 clean
	sbErrors         = 0x3C // u16
	sbRev            = 0x4C
	sbFirstIno       = 0x54
	sbInodeSize      = 0x58 // u16
	sbCompat         = 0x5C
	sbIncompat       = 0x60
	sbRoCompat       = 0x64
	sbUUID           = 0x68 // 16 bytes
	sbReservedGDT    = 0xCE // u16
	sbLastOrphan     = 0xE8
	sbHashSeed       = 0xEC // 4 × u32
	sbHashVersion    = 0xFC // u8
	sbDescSize       = 0xFE // u16
	sbMountOpts      = 0x100
	sbBlocksHi       = 0x150
	sbReservedHi     = 0x154
	sbFreeBlocksHi   = 0x158
	sbMinExtra       = 0x15C // u16
	sbWantExtra      = 0x15E // u16
	sbFlags          = 0x160
	sbLogFlex        = 0x174 // u8
	sbChecksumType   = 0x175 // u8, 1 CRC-32C
	sbBackupGroups   = 0x24C // 2 × u32
	sbLpfIno         = 0x268
	sbChecksumSeed   = 0x270
	sbChecksum       = 0x3FC
)

// Compatible features that matter here.
const (
	compatExtAttr     = 0x8
	compatDirIndex    = 0x20
	compatSparseSuper = 0x200 // sparse_super2
)

// Incompatible features. What is not in incompatKnown is refused.
const (
	incFiletype = 0x2
	incRecover  = 0x4
	incExtents  = 0x40
	inc64bit    = 0x80
	incFlexBG   = 0x200
	incCsumSeed = 0x2000
	incLargeDir = 0x4000

	incompatKnown = incFiletype | incExtents | inc64bit | incFlexBG | incCsumSeed | incLargeDir
)

// Read-only compatible features. What is not in roKnown is refused for writing.
const (
	roSparseSuper = 0x1
	roLargeFile   = 0x2
	roHugeFile    = 0x8
	roGdtCsum     = 0x10
	roDirNlink    = 0x20
	roExtraIsize  = 0x40
	roMetaCsum    = 0x400

	roKnown = roSparseSuper | roLargeFile | roHugeFile | roGdtCsum | roDirNlink | roExtraIsize | roMetaCsum
)

var incompatNames = map[uint32]string{
	0x1: "compression", 0x2: "filetype", 0x4: "needs_recovery", 0x8: "journal_dev", 0x10: "meta_bg", 0x40: "extents", 0x80: "64bit",
	0x100: "mmp", 0x200: "flex_bg", 0x400: "ea_inode", 0x1000: "dirdata", 0x2000: "metadata_csum_seed", 0x4000: "large_dir",
	0x8000: "inline_data", 0x10000: "encrypt", 0x20000: "casefold",
}

var roNames = map[uint32]string{
	0x4: "btree_dir", 0x100: "quota", 0x200: "bigalloc", 0x800: "replica", 0x1000: "read-only", 0x2000: "project",
	0x4000: "shared_blocks", 0x8000: "verity", 0x10000: "orphan_present",
}

// Group descriptor fields, byte offsets; the second half exists when the descriptor has 64 bytes.
const (
	gdBlockBitmap  = 0x00
	gdInodeBitmap  = 0x04
	gdInodeTable   = 0x08
	gdFreeBlocks   = 0x0C // u16
	gdFreeInodes   = 0x0E // u16
	gdUsedDirs     = 0x10 // u16
	gdFlags        = 0x12 // u16
	gdBlockCsum    = 0x18 // u16
	gdInodeCsum    = 0x1A // u16
	gdItableUnused = 0x1C // u16
	gdChecksum     = 0x1E // u16
	gdHi           = 0x20 // added to a 32-bit field's offset: its high half
	gdFreeBlocksHi = 0x2C // u16
	gdFreeInodesHi = 0x2E
	gdUsedDirsHi   = 0x30
	gdUnusedHi     = 0x32
	gdBlockCsumHi  = 0x38
	gdInodeCsumHi  = 0x3A

	bgInodeUninit  = 1
	bgBlockUninit  = 2
	bgItableZeroed = 4
)

// Inode fields, byte offsets.
const (
	inMode      = 0x00 // u16
	inUID       = 0x02 // u16, high half at inUIDHi
	inSizeLo    = 0x04
	inAtime     = 0x08
	inCtime     = 0x0C
	inMtime     = 0x10
	inDtime     = 0x14
	inGID       = 0x18 // u16
	inLinks     = 0x1A // u16
	inBlocksLo  = 0x1C // 512-byte sectors, or blocks with flagHugeFile
	inFlags     = 0x20
	inBlock     = 0x28 // 60 bytes: extent root, fast symlink, device numbers
	inGen       = 0x64
	inFileACL   = 0x68
	inSizeHi    = 0x6C
	inBlocksHi  = 0x74 // u16
	inACLHi     = 0x76 // u16
	inUIDHi     = 0x78 // u16
	inGIDHi     = 0x7A // u16
	inCsumLo    = 0x7C // u16
	inExtra     = 0x80 // u16: bytes of the fields from here on
	inCsumHi    = 0x82 // u16
	inCtimeX    = 0x84
	inMtimeX    = 0x88
	inAtimeX    = 0x8C
	inCrtime    = 0x90
	inCrtimeX   = 0x94
	inBlockSize = 60

	flagIndex      = 0x1000
	flagHugeFile   = 0x40000
	flagExtents    = 0x80000
	flagEAInode    = 0x200000
	flagInlineData = 0x10000000
	flagEncrypt    = 0x800
	flagCasefold   = 0x40000000

	ifMask = 0xF000
	ifFifo = 0x1000
	ifChr  = 0x2000
	ifDir  = 0x4000
	ifBlk  = 0x6000
	ifReg  = 0x8000
	ifLnk  = 0xA000
	ifSock = 0xC000
)

func u16(b []byte, off int) uint32      { return uint32(le.Uint16(b[off:])) }
func u32(b []byte, off int) uint32      { return le.Uint32(b[off:]) }
func put16(b []byte, off int, v uint32) { le.PutUint16(b[off:], uint16(v)) }
func put32(b []byte, off int, v uint32) { le.PutUint32(b[off:], v) }
func pair(b []byte, lo, hi int) uint64  { return uint64(u32(b, lo)) | uint64(u32(b, hi))<<32 }
func putPair(b []byte, lo, hi int, v uint64) {
	put32(b, lo, uint32(v))
	put32(b, hi, uint32(v>>32))
}
