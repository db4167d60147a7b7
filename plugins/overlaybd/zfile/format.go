package zfile

import (
	"encoding/binary"
	"hash/crc32"
)

// Sizes and limits of the format.
const (
	HeaderSize       = 512  // bytes of header and trailer; the first block starts behind the header
	DefaultBlockSize = 4096 // bytes
	MaxBlocks        = 1_000_000_000

	minBlock = 512
	maxBlock = 64 << 10

	crcSize    = 4
	entrySize  = 4
	headerUsed = 96

	blockSeed = 100007

	// Upstream keeps the positions inside a group of 64 KiB as 16-bit sums, and so do we.
	groupBytes = 64 << 10
	maxSum     = 1<<16 - 1

	// No block is longer than this: upstream reads at most 64 KiB, and an encoder's worst case for 64 KiB is below 65 KiB.
	maxStored = 128 << 10
)

// Header and trailer, 512 bytes of which 96 are used.                                           (overlaybd-format 2.2)
//
//	 0   8  magic0              "ZFile" 00 01 00
//	 8  16  magic1              "tuji.yyf@Alibaba"
//	24   4  size                96; no reader looks at it
//	28   4  digest              raw crc of all 512 bytes with this field 0, seed 0; checked in the header alone
//	32   8  flags               below
//	40   8  index_offset        bytes from the file's start
//	48   8  index_size          entries: number of blocks
//	56   8  original_file_size  bytes
//	64   4  index_crc           raw crc of the jump table, seed 0
//	68   4  reserved
//	72   4  block_size          bytes
//	76   1  algo                1 lz4, 2 zstd; 0 (minilzo) was never implemented
//	77   1  level, 78 1 use_dict, 79 1 pad, 80 4 reserved: not looked at
//	84   4  dict_size           bytes between header and first block; always 0
//	88   1  verify              not 0: a crc stands behind each block
//	89   7  pad
//	96      zeros
type headerView []byte

var (
	magic0 = [8]byte{'Z', 'F', 'i', 'l', 'e', 0, 1, 0}
	magic1 = [16]byte([]byte("tuji.yyf@Alibaba"))
)

// Offsets of the header's fields.
const (
	offMagic1  = 8
	offSize    = 24
	offDigest  = 28
	offFlags   = 32
	offIndex   = 40
	offEntries = 48
	offLength  = 56
	offCRC     = 64
	offRes1    = 68
	offBlock   = 72
	offAlgo    = 76
	offLevel   = 77
	offDict    = 84
	offVerify  = 88
	offPad     = 89
)

// Flag bits. Bit 5, a compressed table, was defined and never used.
const (
	flagHeader   = 1 << 0 // clear in a trailer
	flagData     = 1 << 1
	flagSealed   = 1 << 2
	flagComplete = 1 << 3 // the header was overwritten: the trailer is not needed
	flagDigest   = 1 << 4 // digest and index_crc mean something

	flagsKnown = flagHeader | flagData | flagSealed | flagComplete | flagDigest
)

func (h headerView) magic() bool {
	return [8]byte(h[:8]) == magic0 && [16]byte(h[offMagic1:offMagic1+16]) == magic1
}
func (h headerView) size() uint32        { return binary.LittleEndian.Uint32(h[offSize:]) }
func (h headerView) digest() uint32      { return binary.LittleEndian.Uint32(h[offDigest:]) }
func (h headerView) flags() uint64       { return binary.LittleEndian.Uint64(h[offFlags:]) }
func (h headerView) indexOffset() uint64 { return binary.LittleEndian.Uint64(h[offIndex:]) }
func (h headerView) indexSize() uint64   { return binary.LittleEndian.Uint64(h[offEntries:]) }
func (h headerView) length() uint64      { return binary.LittleEndian.Uint64(h[offLength:]) }
func (h headerView) indexCRC() uint32    { return binary.LittleEndian.Uint32(h[offCRC:]) }
func (h headerView) blockSize() uint32   { return binary.LittleEndian.Uint32(h[offBlock:]) }
func (h headerView) algo() byte          { return h[offAlgo] }
func (h headerView) dictSize() uint32    { return binary.LittleEndian.Uint32(h[offDict:]) }
func (h headerView) verify() bool        { return h[offVerify] != 0 }

// sum returns what digest should be.
func (h headerView) sum() uint32 {
	c := rawCRC(0, h[:offDigest])
	c = rawCRC(c, make([]byte, 4))
	return rawCRC(c, h[offDigest+4:HeaderSize])
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rawCRC is CRC-32C as a register: seed in, no inversion at either end. It continues over parts.
func rawCRC(seed uint32, p []byte) uint32 { return ^crc32.Update(^seed, castagnoli, p) }

// Match tells whether a file that starts with b, at least 24 bytes, is a ZFile.
func Match(b []byte) bool {
	return len(b) >= offMagic1+16 && headerView(b).magic()
}
