package rafs6

import (
	"github.com/convhost/convhost/abi"
)

// The chunk-info array of a blob (blob.meta), version 1 (6.6): 16 bytes a chunk, two words.
//
//	word 0  bits 44-63 low 20 bits of raw-1     8-11 high 4 bits of raw-1      12-43 expanded position (multiple of 4096)
//	word 1  bits 44-63 low 20 bits of stored-1  40-43 high 4 bits of stored-1  0-39 position in the blob
//
// Version 2 has 24 bytes a chunk and is not supported yet. The array is followed by a header of 4096 bytes (6.5):
//
//	0 u32 magic   4 u32 features   8 u32 codec of the array   12 u32 chunks   16 u64 position of the array in the blob
//	24 u64 stored bytes   32 u64 bytes   40 u64, 48 u64, 56 u32 contexts of version 2   60 zero   4092 u32 magic

const (
	metaHeaderSize = 4096
	metaMagic      = 0xB10BB10B
	chunkInfoSize  = 16
)

// MetaHeader is the header of blob.meta.
type MetaHeader struct {
	Features uint32
	Codec    abi.Codec // of the array as stored in the blob
	Chunks   uint32
	Offset   uint64 // of the array in the blob
	Stored   uint64 // bytes of the array in the blob
	Size     uint64 // bytes of the array decompressed
}

// MetaHeaderSize is the size of an encoded MetaHeader.
const MetaHeaderSize = metaHeaderSize

// Append encodes h.
func (h *MetaHeader) Append(dst []byte) []byte {
	var v [metaHeaderSize]byte
	codec, _, _ := codecNumber(h.Codec)
	for k, x := range [...]uint32{metaMagic, h.Features, codec, h.Chunks} {
		le.PutUint32(v[4*k:], x)
	}
	le.PutUint64(v[16:], h.Offset)
	le.PutUint64(v[24:], h.Stored)
	le.PutUint64(v[32:], h.Size)
	le.PutUint32(v[4092:], metaMagic)
	return append(dst, v[:]...)
}

// ParseMetaHeader reads a header. base is where it stands, for errors. Anything but a plain version 1 array is
// ErrUnsupported.
func ParseMetaHeader(p []byte, base int64) (*MetaHeader, error) {
	if len(p) < metaHeaderSize {
		return nil, fail(abi.ErrTruncated, formatMeta, base, "header", dec(len(p))+" bytes", "4096")
	}
	for _, at := range [...]int64{0, 4092} {
		if v := le.Uint32(p[at:]); v != metaMagic {
			return nil, fail(abi.ErrCorrupt, formatMeta, base+at, "magic", hex(v), hex(uint32(metaMagic)))
		}
	}
	h := &MetaHeader{Features: le.Uint32(p[4:]), Chunks: le.Uint32(p[12:]), Offset: le.Uint64(p[16:]), Stored: le.Uint64(p[24:]), Size: le.Uint64(p[32:])}
	if what := unsupportedFeature(h.Features); what != "" {
		return nil, unsupported(formatMeta, base+4, what)
	}
	var ok bool
	if h.Codec, ok = codecOf(le.Uint32(p[8:])); !ok {
		return nil, fail(abi.ErrCorrupt, formatMeta, base+8, "codec", udec(le.Uint32(p[8:])), "0 … 3")
	}
	if h.Chunks == 0 || h.Chunks > MaxChunks {
		return nil, fail(abi.ErrCorrupt, formatMeta, base+12, "chunks", udec(h.Chunks), "1 … 16777216")
	}
	if h.Size != chunkInfoSize*uint64(h.Chunks) {
		return nil, fail(abi.ErrCorrupt, formatMeta, base+32, "size of the array", udec(h.Size), "16 times "+udec(h.Chunks))
	}
	if h.Stored > h.Size || h.Codec == abi.CodecNone && h.Stored != h.Size || h.Offset > maxCompressed {
		return nil, fail(abi.ErrCorrupt, formatMeta, base+24, "stored size of the array", udec(h.Stored), "at most its size "+udec(h.Size))
	}
	return h, nil
}

// unsupportedFeature names what a blob needs that this version cannot read; "" if nothing.
func unsupportedFeature(f uint32) string {
	switch {
	case f&FeatTarfs != 0:
		return "tarfs (the layer tar as block device)"
	case f&FeatEncrypted != 0:
		return "encrypted blob"
	case f&FeatZran != 0:
		return "zran (chunks inside the original gzip layer)"
	case f&FeatBatch != 0:
		return "batch chunks"
	case f&FeatSeparate != 0:
		return "reference to an original layer (separate blob.meta)"
	case f&FeatChunkInfoV2 != 0:
		return "chunk info version 2"
	case f&FeatDict != 0:
		return "generated chunk dictionary"
	case f&FeatPrefetch != 0:
		return "separate prefetch blob"
	case f&FeatExternal != 0:
		return "external blob"
	}
	return ""
}

// ChunkInfo is one element of the chunk-info array.
type ChunkInfo struct {
	Offset   int64  // in the blob
	Stored   uint32 // bytes in the blob; equal to Raw if not compressed
	Raw      uint32 // bytes after decompression
	Expanded int64  // position in the uncompressed, aligned expansion
}

func appendChunkInfo(dst []byte, c *chunk) []byte {
	raw, stored := uint64(c.raw-1), uint64(c.stored-1)
	dst = le.AppendUint64(dst, raw&0xfffff<<44|raw>>20<<8|c.expanded&0xffffffff000)
	return le.AppendUint64(dst, stored&0xfffff<<44|stored>>20<<40|c.offset&0xffffffffff)
}

// ChunkInfoAt reads element k of a version 1 array of at least k+1 elements.
func ChunkInfoAt(array []byte, k int) ChunkInfo {
	p := array[chunkInfoSize*k:]
	w0, w1 := le.Uint64(p), le.Uint64(p[8:])
	return ChunkInfo{
		Raw: uint32(w0>>44|(w0>>8&0xf)<<20) + 1, Expanded: int64(w0 & 0xffffffff000),
		Stored: uint32(w1>>44|(w1>>40&0xf)<<20) + 1, Offset: int64(w1 & 0xffffffffff),
	}
}

// AppendChunkInfos appends the version 1 array of the chunks of a tree from a Builder.
func (t *Tree) AppendChunkInfos(dst []byte) []byte {
	for k := int32(0); k < t.chunks.n; k++ {
		dst = appendChunkInfo(dst, t.chunks.at(k))
	}
	return dst
}

// AppendDigests appends the digests in the same order (blob.digest).
func (t *Tree) AppendDigests(dst []byte) []byte {
	for k := int32(0); k < t.chunks.n; k++ {
		dst = append(dst, t.chunks.at(k).digest[:]...)
	}
	return dst
}

// AppendRuntimeMeta appends what a mount keeps as BLOBID.blob.meta and the bootstrap layer carries as
// image/BLOBID.blob.meta: the decompressed array, zeros up to a multiple of 4096, and the header as it stands in the blob.
func AppendRuntimeMeta(dst, array, header []byte) []byte {
	start := len(dst)
	dst = append(dst, array...)
	for (len(dst)-start)%metaHeaderSize != 0 {
		dst = append(dst, 0)
	}
	return append(dst, header...)
}

// CheckChunkInfos compares a decompressed chunk-info array, and the digests of blob.digest if not nil, with their own
// rules and with the chunks of blob number blob in t. It returns every violation.
func (t *Tree) CheckChunkInfos(blob int, array, digests []byte) []error {
	b := &t.blobs[blob]
	var errs []error
	add := func(k int, field, got, want string) {
		if len(errs) < maxErrors {
			errs = append(errs, fail(abi.ErrCorrupt, formatMeta, int64(chunkInfoSize*k), field+" of chunk "+dec(k), got, want))
		}
	}
	if len(array) != chunkInfoSize*int(b.ChunkCount) {
		return []error{fail(abi.ErrCorrupt, formatMeta, -1, "size of the array", dec(len(array)), "16 times "+udec(b.ChunkCount))}
	}
	if digests != nil && len(digests) != 32*int(b.ChunkCount) {
		return []error{fail(abi.ErrCorrupt, formatMeta, -1, "size of blob.digest", dec(len(digests)), "32 times "+udec(b.ChunkCount))}
	}
	expanded, stored := int64(0), int64(0)
	for k := range int(b.ChunkCount) {
		c := ChunkInfoAt(array, k)
		if c.Expanded != expanded {
			add(k, "expanded position", dec(c.Expanded), dec(expanded))
		}
		if c.Offset < stored {
			add(k, "position", dec(c.Offset), "behind the chunk before it")
		}
		if c.Stored > c.Raw || c.Raw > t.chunkSize {
			add(k, "stored and raw size", udec(c.Stored)+", "+udec(c.Raw), "stored at most raw, raw at most "+udec(t.chunkSize))
		}
		expanded = c.Expanded + int64(roundup(c.Raw, blockSize))
		stored = c.Offset + int64(c.Stored)
	}
	if uint64(expanded) != b.UncompressedSize {
		add(int(b.ChunkCount)-1, "end in the expansion", dec(expanded), udec(b.UncompressedSize))
	}
	if uint64(stored) > b.dataSize() {
		add(int(b.ChunkCount)-1, "end in the blob", dec(stored), "at most "+udec(b.dataSize()))
	}
	for k := int32(0); k < t.chunks.n; k++ {
		c := t.chunks.at(k)
		if int(c.blob) != blob || c.index >= b.ChunkCount {
			continue
		}
		v := ChunkInfoAt(array, int(c.index))
		if v.Expanded != int64(c.expanded) || v.Offset != int64(c.offset) || v.Raw != c.raw || v.Stored != c.stored {
			add(int(c.index), "record", "different in blob.meta and chunk table", "the same")
		}
		if digests != nil && string(digests[32*c.index:32*c.index+32]) != string(c.digest[:]) {
			add(int(c.index), "digest", "different in blob.digest and chunk table", "the same")
		}
	}
	return errs
}

// dataSize is how far chunk data can reach in a blob (5.2).
func (b *Blob) dataSize() uint64 {
	switch {
	case b.Features&FeatCapTarToc == 0:
		return b.CompressedSize
	case b.Features&FeatTarHeader != 0:
		return max(b.MetaOffset, 512) - 512
	}
	return b.MetaOffset
}
