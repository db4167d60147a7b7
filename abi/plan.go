package abi

// Codec is a compression that the host can do for a plugin. Output bits depend on the implementation, so Describe of
// the host names it and its version (see Features in abi.md).
type Codec int32

// Codecs.
const (
	CodecNone     Codec = 0
	CodecLZ4Block Codec = 1 // bare LZ4 block: no frame, no length
	CodecGzip     Codec = 2 // one RFC 1952 member, no name, no time, OS 255
	CodecZstd     Codec = 3 // one frame with content size, no checksum, no dictionary
	CodecDeflate  Codec = 4 // raw RFC 1951 stream
)

// Digest is a hash that the host can compute for a plugin; all have 32 bytes.
type Digest int32

// Digests.
const (
	DigestNone   Digest = 0
	DigestSHA256 Digest = 1
	DigestBLAKE3 Digest = 2
)

// Dedup says when a chunk is not stored again.
type Dedup int32

// Dedup modes. A chunk is equal when digest and length are equal.
const (
	DedupNone Dedup = 0
	DedupPlan Dedup = 1 // equal to an earlier chunk of this plan
)

// PlanSpec tells the host what to do with the jobs of a plan: cut into chunks, digest, look for an equal chunk,
// compress, append to a sink in submission order. Work runs on all cores; results do not depend on how many.
type PlanSpec struct {
	ChunkSize int    // bytes; 0: one chunk a job. 4 KiB … 16 MiB
	Digest    Digest // computed over the uncompressed chunk
	CRC32C    bool   // also compute CRC-32C of the uncompressed chunk
	Codec     Codec
	Level     int  // codec's level; 0: its default
	KeepRaw   bool // store a chunk as it is when compression does not make it smaller
	Dedup     Dedup
	Align     int    // each stored chunk starts at a multiple of this in the sink (zero filled); 0 or 1: none
	Sink      Handle // 0: store nothing
	RawSum    bool   // SHA-256 over all uncompressed bytes in submission order, in PlanInfo
	SharedSum bool   // like RawSum, over the bytes of all plans of this operation that set it, in submission order; with Sink 0 bytes are only summed
	Decode    bool   // jobs are ranges of stored bytes (JobRange) or bytes to pass through (JobBytes)
}

// PlanInfo are the totals of a closed plan.
type PlanInfo struct {
	Chunks      int64    // distinct chunks stored
	Jobs        int64    // chunks processed, duplicates included
	StoredBytes int64    // bytes appended to the sink
	RawBytes    int64    // uncompressed bytes, duplicates included
	RawSHA256   [32]byte // if RawSum; if SharedSum, of all bytes so far
}

// Limits that every host obeys and every plugin can count on.
const (
	MinChunkSize   = 4 << 10
	MaxChunkSize   = 16 << 20
	MaxEntryRecord = 1 << 20  // bytes of one entry record; a layer entry that needs more is refused
	MaxControl     = 64 << 20 // bytes of a request or response message
	MaxSmallBuffer = 1 << 30  // Encode, Decode, Sum, Write
	MaxHandles     = 1024
)
