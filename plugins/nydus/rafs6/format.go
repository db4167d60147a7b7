package rafs6

import (
	"encoding/binary"
	"math/bits"

	"github.com/convhost/convhost/abi"
)

var le = binary.LittleEndian

// Sizes and positions. All integers are little endian. Numbers in parentheses are sections of the format reference.
const (
	blockSize    = 4096 // tarfs images have 512; they are not supported yet
	blockBits    = 12
	sbOff        = 1024 // EROFS superblock, 128 bytes (1.1)
	extOff       = 1152 // RAFS superblock, 256 bytes (1.2)
	slotOff      = 1408 // device slots (5.1)
	slotSize     = 128
	blobSize     = 256 // blob table entry (5.2)
	chunkRecSize = 80  // chunk table entry (5.4)
	inodeSize    = 64  // extended inode (2.1)
	compactSize  = 32
	direntSize   = 12
	xattrHeader  = 12
	rootOff      = 4096 // of the root inode from the start of the metadata: nid 128
	mapAlign     = 0x80000

	erofsMagic = 0xE0F5E1E2
	compatRafs = 0x40000000
	incompat   = 0x0C // chunked files, device table
)

// Limits of the format.
const (
	MaxBlobs      = 254     // device numbers are one byte
	MaxName       = 255     // bytes of one path element
	MaxTarget     = 4095    // bytes of a symlink's target
	MaxDepth      = 4096    // directories inside each other; ours, so that paths stay finite
	MaxChunks     = 1 << 24 // distinct chunks of one blob
	maxCompressed = 1 << 40 // bytes of one blob
	maxExpanded   = 1 << 44 // bytes of one blob, uncompressed and aligned
	maxXattrs     = 262136  // bytes of one inode's encoded attributes
)

// Flags of the RAFS superblock (1.3).
const (
	flagExplicitIDs   = 0x10
	flagHasXattr      = 0x20
	flagInlinedDigest = 0x100
	flagTarfs         = 0x200
	flagEncryptNone   = 0x01000000
	flagEncryptAES    = 0x02000000
	flagsKnown        = 0x3FF | flagEncryptNone | flagEncryptAES | 0xFC000000
	flagsCompressor   = 0x1 | 0x2 | 0x40 | 0x80
	flagsDigest       = 0x4 | 0x8
)

// Features of a blob (5.3).
const (
	FeatAligned       = 0x1
	FeatInlinedMeta   = 0x2
	FeatChunkInfoV2   = 0x4
	FeatZran          = 0x8
	FeatSeparate      = 0x10
	FeatInlinedDigest = 0x20
	FeatTarfs         = 0x40
	FeatBatch         = 0x80
	FeatEncrypted     = 0x100
	FeatDict          = 0x200
	FeatPrefetch      = 0x400
	FeatExternal      = 0x800
	FeatTarHeader     = 0x10000000
	FeatToc           = 0x20000000
	FeatCapTarToc     = 0x40000000
	featNoExt         = 0x80000000
)

// Flags of a chunk record (5.4).
const (
	chunkCompressed = 0x1
	chunkHasCRC     = 0x10
)

// File types of a mode.
const (
	modeType = 0o170000
	modeFifo = 0o010000
	modeChar = 0o020000
	modeDir  = 0o040000
	modeBlk  = 0o060000
	modeReg  = 0o100000
	modeLink = 0o120000
	modeSock = 0o140000
)

// Data layouts of an inode (2.1).
const (
	layoutPlain  = 0
	layoutInline = 2
	layoutChunk  = 4
)

// direntType is the file_type of a directory entry for a mode (2.5).
func direntType(mode uint32) byte {
	switch mode & modeType {
	case modeReg:
		return 1
	case modeDir:
		return 2
	case modeChar:
		return 3
	case modeBlk:
		return 4
	case modeFifo:
		return 5
	case modeSock:
		return 6
	case modeLink:
		return 7
	}
	return 0
}

func codecNumber(c abi.Codec) (n, flag uint32, ok bool) {
	switch c {
	case abi.CodecNone:
		return 0, 0x1, true
	case abi.CodecLZ4Block:
		return 1, 0x2, true
	case abi.CodecGzip:
		return 2, 0x40, true
	case abi.CodecZstd:
		return 3, 0x80, true
	}
	return 0, 0, false
}

func codecOf(n uint32) (abi.Codec, bool) {
	list := [...]abi.Codec{abi.CodecNone, abi.CodecLZ4Block, abi.CodecGzip, abi.CodecZstd}
	if n < uint32(len(list)) {
		return list[n], true
	}
	return 0, false
}

func digestNumber(d abi.Digest) (n, flag uint32, ok bool) {
	switch d {
	case abi.DigestBLAKE3:
		return 0, 0x4, true
	case abi.DigestSHA256:
		return 1, 0x8, true
	}
	return 0, 0, false
}

func digestOf(n uint32) (abi.Digest, bool) {
	switch n {
	case 0:
		return abi.DigestBLAKE3, true
	case 1:
		return abi.DigestSHA256, true
	}
	return 0, false
}

func makedev(major, minor uint32) uint32 {
	return minor&0xff | (major&0xfff)<<8 | (minor&^0xff)<<12
}

func splitdev(rdev uint32) (major, minor uint32) {
	return rdev >> 8 & 0xfff, rdev&0xff | rdev>>12&^0xff
}

func roundup[T ~int | ~int64 | ~uint32 | ~uint64](v, to T) T { return (v + to - 1) / to * to }

func isPow2(v uint32) bool { return bits.OnesCount32(v) == 1 }

func chunkSizeOK(v uint32) bool { return isPow2(v) && v >= abi.MinChunkSize && v <= abi.MaxChunkSize }

// chunkCount is the number of chunks of size bytes.
func chunkCount(size int64, chunkSize uint32) int64 {
	return (size + int64(chunkSize) - 1) / int64(chunkSize)
}

// chunkLen is the length of chunk k of a file of size bytes.
func chunkLen(size, k int64, chunkSize uint32) uint32 {
	return uint32(min(int64(chunkSize), size-k*int64(chunkSize)))
}
