package lsmt

import "encoding/binary"

// Units and limits of the format.
const (
	SectorSize = 512  // bytes; the unit of every position and length in the index
	HeaderSize = 4096 // bytes of header and trailer; data starts behind the header

	MaxLayers  = 255       // layers of a stack, the base included
	MaxEntries = 1_000_000 // index entries of a sealed layer, padding included; upstream refuses more
	MaxLength  = 1<<14 - 1 // sectors of one segment

	maxStart   = 1<<50 - 2     // last sector that can be mapped; one more means padding
	maxSource  = 1<<55 - 1     // sectors
	maxVirtual = 1 << 50 * 512 // bytes that the start field can address

	firstSource = HeaderSize / SectorSize // data cannot be where the header is
	entrySize   = 16
	padEntries  = 256 // the index of a sealed layer is padded to a multiple of these (4096 bytes)
	tagSize     = 256 // bytes of the user tag

	// Upstream copies runs in steps of 64 sectors and joins steps while their sum stays below MaxLength: 255 steps.
	runLength = 64 * 255
)

// Header and trailer, 4096 bytes of which 390 are used.                                        (overlaybd-format 1.2)
//
//	  0   8  magic0        "LSMT" 00 01 02 00
//	  8  16  magic1
//	 24   4  size          390; no reader looks at it
//	 28   4  flags         below
//	 32   8  index_offset  bytes; 0 in the header of a sealed layer, 4096 in that of an index file
//	 40   8  index_size    entries, padding included; 0 in the header
//	 48   8  virtual_size  bytes of the device; 0: that of the layers below
//	 56  37  uuid          36 upper-case characters and NUL; no reader compares it
//	 93  37  parent_uuid
//	130   2  reserved
//	132   1  version       1   133 1  sub_version 1; no reader looks at them
//	134 256  user_tag      free text, padded with NUL
//	390      zeros
type headerView []byte

var (
	magic0 = [8]byte{'L', 'S', 'M', 'T', 0, 1, 2, 0}
	magic1 = [16]byte{0x65, 0x7e, 0x63, 0xd2, 0x94, 0x44, 0x08, 0x4c, 0xa2, 0xd2, 0xc8, 0xec, 0x4f, 0xcf, 0xae, 0x8a}
)

// Offsets of the header's fields.
const (
	offMagic1  = 8
	offSize    = 24
	offFlags   = 28
	offIndex   = 32
	offEntries = 40
	offVirtual = 48
	offUUID    = 56
	offParent  = 93
	offRes     = 130
	offVersion = 132
	offTag     = 134
	headerUsed = 390
)

// Flag bits of header and trailer. Bits 3 and 5 have names in upstream's prose but no code.
const (
	flagHeader = 1 << 0 // clear in a trailer
	flagData   = 1 << 1 // clear in an index file
	flagSealed = 1 << 2
	flagSparse = 1 << 4 // sparse writable data file

	flagsKnown = flagHeader | flagData | flagSealed | flagSparse
)

func (h headerView) magic() bool {
	return [8]byte(h[:8]) == magic0 && [16]byte(h[offMagic1:offMagic1+16]) == magic1
}
func (h headerView) size() uint32        { return binary.LittleEndian.Uint32(h[offSize:]) }
func (h headerView) flags() uint32       { return binary.LittleEndian.Uint32(h[offFlags:]) }
func (h headerView) indexOffset() uint64 { return binary.LittleEndian.Uint64(h[offIndex:]) }
func (h headerView) indexSize() uint64   { return binary.LittleEndian.Uint64(h[offEntries:]) }
func (h headerView) virtual() uint64     { return binary.LittleEndian.Uint64(h[offVirtual:]) }
func (h headerView) uuid() []byte        { return h[offUUID : offUUID+uuidText+1] }
func (h headerView) parent() []byte      { return h[offParent : offParent+uuidText+1] }
func (h headerView) reserved() uint16    { return binary.LittleEndian.Uint16(h[offRes:]) }
func (h headerView) version() (major, minor byte) {
	return h[offVersion], h[offVersion+1]
}
func (h headerView) tag() []byte  { return h[offTag:headerUsed] }
func (h headerView) rest() []byte { return h[headerUsed:HeaderSize] }

// An index entry, 16 bytes, two little-endian words. Unit: sectors of 512 bytes.                 (overlaybd-format 1.3)
//
//	word 0  bits  0-49 start on the device (all ones: padding)   50-63 length, 1..16383
//	word 1  bits  0-54 source: position in this file             55 reads as zeros   56-63 tag
//
// The tag is 0, 1 for remote data in a warp file, or the number of a source layer in what overlaybd-merge wrote; readers
// of ordinary layers ignore it.
type entryView []byte

func (e entryView) start() uint64  { return binary.LittleEndian.Uint64(e) & (1<<50 - 1) }
func (e entryView) length() uint16 { return binary.LittleEndian.Uint16(e[6:]) >> 2 }
func (e entryView) source() uint64 { return binary.LittleEndian.Uint64(e[8:]) & maxSource }
func (e entryView) zero() bool     { return e[14]&0x80 != 0 }
func (e entryView) tag() uint8     { return e[15] }
func (e entryView) padding() bool  { return e.start() == maxStart+1 }

func appendEntry(b []byte, s Segment) []byte {
	b = binary.LittleEndian.AppendUint64(b, s.Start|uint64(s.Length)<<50)
	w := s.Source | uint64(s.Tag)<<56
	if s.Zero {
		w |= 1 << 55
	}
	return binary.LittleEndian.AppendUint64(b, w)
}

func appendPadding(b []byte) []byte {
	return appendEntry(b, Segment{Start: maxStart + 1})
}

// Match tells whether a file that starts with b, at least 24 bytes, is an LSMT file.
func Match(b []byte) bool {
	return len(b) >= offMagic1+16 && headerView(b).magic()
}
