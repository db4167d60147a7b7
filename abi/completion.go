package abi

import "encoding/binary"

// CompletionSize is the size of a completion record.
const CompletionSize = 96

// Flags of a completion.
const (
	CompletionDup uint32 = 1 // equal to an earlier chunk: offset, length and index are that one's
	CompletionRaw uint32 = 2 // stored uncompressed
)

// Completion is the result of one chunk. Records are little endian, 96 bytes:
//
//	 0 u64 tag        8 u32 seq        12 u32 flags     16 [32] digest
//	48 u64 offset    56 u32 stored     60 u32 raw       64 u32 index    68 u32 crc32c
//	72 u64 position  80 16 bytes reserved, 0
type Completion struct {
	Tag    uint64 // the job's
	Seq    uint32 // chunk number in its job, from 0
	Flags  uint32
	Digest [32]byte // zero if the plan has none
	Offset int64    // where the stored bytes start in the sink
	Stored uint32   // stored bytes
	Raw    uint32   // bytes before compression
	Index  uint32   // number of the distinct chunk in its plan, from 0
	CRC32C uint32
	Pos    int64 // first byte in its job
}

// Append encodes c.
func (c *Completion) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, c.Tag)
	b = le.AppendUint32(b, c.Seq)
	b = le.AppendUint32(b, c.Flags)
	b = append(b, c.Digest[:]...)
	b = le.AppendUint64(b, uint64(c.Offset))
	b = le.AppendUint32(b, c.Stored)
	b = le.AppendUint32(b, c.Raw)
	b = le.AppendUint32(b, c.Index)
	b = le.AppendUint32(b, c.CRC32C)
	b = le.AppendUint64(b, uint64(c.Pos))
	return append(b, make([]byte, 16)...)
}

// Decode reads one record; b must hold CompletionSize bytes.
func (c *Completion) Decode(b []byte) {
	_ = b[CompletionSize-1]
	le := binary.LittleEndian
	c.Tag = le.Uint64(b)
	c.Seq = le.Uint32(b[8:])
	c.Flags = le.Uint32(b[12:])
	copy(c.Digest[:], b[16:48])
	c.Offset = int64(le.Uint64(b[48:]))
	c.Stored = le.Uint32(b[56:])
	c.Raw = le.Uint32(b[60:])
	c.Index = le.Uint32(b[64:])
	c.CRC32C = le.Uint32(b[68:])
	c.Pos = int64(le.Uint64(b[72:]))
}
