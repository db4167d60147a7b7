// Package gzindex reads, writes and checks gzip.meta, the index with which overlaybd's TurboOCI reads an ordinary .tar.gz layer
// at random. It handles bytes only: [io.ReaderAt] in, [io.Writer] out; no files, no goroutines, no logging. It builds for
// wasip1.
//
// # What the file is
//
//	0            333                               index_start                index_start+index_area_len = size
//	| header 333 | window | window | window | ...  | zlib: 29 bytes an entry  |
//
// An entry is a place in the compressed file where a deflate block begins, to the bit: where in the output that is, and
// where the window stands, the 32 KiB of output before it, which the block may refer to. Windows are compressed with zlib.
// Entries are chosen so that one stands before every multiple of the span (1 MiB) of output: to read a byte, at most about
// a span has to be decompressed. The file says how long the compressed file is, and readers refuse another.
//
// # Writing
//
// The blocks come from package zran, which decompresses the layer in the same pass:
//
//	w := gzindex.NewWriter(body, gzindex.Config{})                                     // body: what stands behind the header
//	z := zran.NewReader(gz, zran.Options{Trailing: zran.Zeros, OnMember: w.Member, OnBlock: w.Block})
//	n, err := z.WriteTo(tar)
//	info, err := w.Close(gzSize, n)
//	// the file is info.Header, then what body got
//
// Upstream's selection is followed: for the same file the same entries with the same windows come out. The bytes differ from
// upstream's, because its windows are compressed by C's zlib and ours by a Go library, at the same level.
//
// # Reading
//
//	f, err := gzindex.Open(meta, metaSize, gz, gzSize, gzindex.Options{})
//	n, err := f.ReadAt(p, off)                                                         // of the decompressed tar
//
// What was decompressed is kept in pages of 128 KiB, in a [Pool] that several files can share. Windows are read when they are
// needed.
//
// # What it refuses
//
// A gzip file of several members (pigz -i, eStargz, what cat joined): readers end at the first member's end, so an index would
// cover a part of the layer and nobody would notice. That is [abi.ErrUnsupported]; one member and zeros behind it are fine.
// Broken files are [abi.ErrCorrupt] or [abi.ErrTruncated], a wrong checksum and a compressed file of another size [abi.ErrDigest],
// more entries than the limit [abi.ErrLimit], other versions [abi.ErrUnsupported]. What a read decompresses is checked by
// nothing but the rules of deflate: checksums cover the whole file, and [Check] reads that.
//
// # Memory
//
// The Writer keeps 29 bytes for each entry, a File 40; a Pool has about 10 MiB unless told otherwise.
package gzindex
