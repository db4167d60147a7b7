package zstdenc

import "encoding/binary"

// With the third number in a slice expression the compiler needs no care for an empty result at the end of b, which makes the
// matcher a fifth faster.

func load32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at : at+4 : len(b)]) }

func load64(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at : at+8 : len(b)]) }

func store64(b []byte, at int, v uint64) { binary.LittleEndian.PutUint64(b[at:at+8:len(b)], v) }
