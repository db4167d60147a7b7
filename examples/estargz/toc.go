package main

import (
	"fmt"

	"github.com/convhost/convhost/abi"
)

const (
	tocName          = "stargz.index.json"
	prefetchLandmark = ".prefetch.landmark"    // what comes before it should be fetched at once
	noPrefetch       = ".no.prefetch.landmark" // nothing should
	landmarkBody     = "\x0f"
	footerSize       = 51
)

// reserved tells whether a path belongs to the format and not to the layer.
func reserved(p string) bool { return p == tocName || p == prefetchLandmark || p == noPrefetch }

type tocJSON struct {
	Version int        `json:"version"`
	Entries []tocEntry `json:"entries"`
}

// tocEntry is a file, or a further chunk (type "chunk") of the file before it.
type tocEntry struct {
	Name        string            `json:"name"`
	Type        string            `json:"type"`
	Size        int64             `json:"size,omitempty"`
	ModTime     string            `json:"modtime,omitempty"` // RFC 3339 in UTC; none: 1970
	LinkName    string            `json:"linkName,omitempty"`
	Mode        uint32            `json:"mode"`
	UID         uint32            `json:"uid"`
	GID         uint32            `json:"gid"`
	Offset      int64             `json:"offset,omitempty"` // of the chunk's first gzip member in the blob
	InnerOffset int64             `json:"innerOffset,omitempty"`
	DevMajor    uint32            `json:"devMajor,omitempty"`
	DevMinor    uint32            `json:"devMinor,omitempty"`
	Xattrs      map[string][]byte `json:"xattrs,omitempty"`
	Digest      string            `json:"digest,omitempty"` // of the whole body
	ChunkOffset int64             `json:"chunkOffset,omitempty"`
	ChunkSize   int64             `json:"chunkSize,omitempty"` // 0 for the last chunk
	ChunkDigest string            `json:"chunkDigest,omitempty"`

	linked bool // a hard link to it was seen
}

var typeNames = map[abi.Kind]string{
	abi.KindRegular: "reg", abi.KindDir: "dir", abi.KindSymlink: "symlink", abi.KindHardlink: "hardlink",
	abi.KindChar: "char", abi.KindBlock: "block", abi.KindFifo: "fifo",
}

// appendFooter appends an empty gzip member with the TOC's offset in its extra field.
func appendFooter(b []byte, tocOff int64) []byte {
	b = append(b, 0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255) // deflate, extra field, no time, no OS
	b = append(b, 26, 0, 'S', 'G', 22, 0)
	b = fmt.Appendf(b, "%016xSTARGZ", tocOff)
	b = append(b, 1, 0, 0, 0xff, 0xff)       // one stored block, the last, without bytes
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0) // CRC-32 and size
}
