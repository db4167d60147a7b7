package gzindex

import (
	"encoding/binary"
	"hash/crc32"
)

// Sizes of the format.
const (
	HeaderSize  = 333
	DefaultSpan = 1 << 20 // bytes of output between entries, about

	windowSize = 32 << 10
	entrySize  = 29
	major      = 1
	algoNone   = 0
	algoZlib   = 1
	zlibLevel  = 6

	// zlib never makes more of a window than this, and upstream's buffer is not larger either.
	maxStored = windowSize + 1024
	// A stream of zlib cannot expand more than this.
	maxRatio = 1032
)

// The header, 333 bytes, packed, little-endian.                                        (overlaybd-format 5.3)
//
//	  0   8  magic                "ddgzidx" 00
//	  8   1  major_version        1
//	  9   1  minor_version        0; not looked at
//	 10   1  dict_compress_algo   of windows and index: 1 zlib, 0 none
//	 11   1  dict_compress_level  6; not looked at
//	 12   1  flag                 0; not looked at
//	 13   4  span                 bytes; not looked at
//	 17   4  window               32768
//	 21   4  index_size           bytes of an entry: 29
//	 25   8  index_num            entries
//	 33   8  gzip_file_size       bytes of the compressed file
//	 41   8  index_file_size      bytes of this file
//	 49   8  uncompress_file_size bytes of the decompressed file
//	 57 256  reserve              0; not looked at
//	313   8  index_start          where the entries stand
//	321   8  index_area_len       bytes of them, compressed
//	329   4  crc                  raw CRC-32C of bytes 0 to 328, seed 0
type headerView []byte

var magic = [8]byte([]byte("ddgzidx\x00"))

// Offsets of the header's fields.
const (
	offMajor   = 8
	offMinor   = 9
	offAlgo    = 10
	offLevel   = 11
	offFlag    = 12
	offSpan    = 13
	offWindow  = 17
	offEntry   = 21
	offEntries = 25
	offGzip    = 33
	offFile    = 41
	offRaw     = 49
	offReserve = 57
	offStart   = 313
	offArea    = 321
	offCRC     = 329
)

func (h headerView) u32(off int) uint32 { return binary.LittleEndian.Uint32(h[off:]) }
func (h headerView) u64(off int) uint64 { return binary.LittleEndian.Uint64(h[off:]) }
func (h headerView) sum() uint32        { return rawCRC(h[:offCRC]) }

// An entry, 29 bytes, packed, little-endian.
//
//	 0  8  de_pos   output offset of the block's first byte
//	 8  8  en_pos   input offset of the next byte that is wholly unread
//	16  8  win_pos  where the window stands in this file
//	24  1  bits     how many of the highest bits of the byte at en_pos-1 belong to the block, 0 to 7
//	25  4  win_len  bytes of the stored window
type entryView []byte

func (e entryView) out() uint64    { return binary.LittleEndian.Uint64(e) }
func (e entryView) in() uint64     { return binary.LittleEndian.Uint64(e[8:]) }
func (e entryView) winPos() uint64 { return binary.LittleEndian.Uint64(e[16:]) }
func (e entryView) bits() uint8    { return e[24] }
func (e entryView) winLen() uint32 { return binary.LittleEndian.Uint32(e[25:]) }

func appendEntry(b []byte, e entry) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(e.out))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.in))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.winPos))
	b = append(b, e.bits)
	return binary.LittleEndian.AppendUint32(b, e.winLen)
}

// entry is an entry in memory.
type entry struct {
	out, in, winPos int64
	winLen          uint32
	bits            uint8
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rawCRC is CRC-32C as a register: seed 0, no inversion at either end.
func rawCRC(p []byte) uint32 { return ^crc32.Update(^uint32(0), castagnoli, p) }

// Match tells whether a file that starts with b, at least 8 bytes, is a gzip index.
func Match(b []byte) bool { return len(b) >= len(magic) && [8]byte(b) == magic }
