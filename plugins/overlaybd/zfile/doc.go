// Package zfile reads, writes and checks ZFile, the container of independently compressed blocks in which overlaybd layers are
// stored. It handles bytes only: [io.ReaderAt] in, [io.Writer] out; no files, no logging, and no goroutines except those
// of [NewParallelWriter]. It builds for wasip1.
//
// # What the file is
//
//	0            512                                    index_offset        size-512     size
//	| header 512 | block 0 | crc | block 1 | crc | ...  | table: u32 a block | trailer 512 |
//
// The input is cut into blocks of 4 KiB (or another power of two), of which the last may be short. Each is compressed on its
// own, always: a block that does not shrink is still an LZ4 block or a Zstandard frame. Behind each block stands a checksum
// of its compressed bytes. The jump table holds the stored length of every block, checksum included; positions are sums.
//
// Header and trailer are the same record. A writer that cannot go back leaves the header without lengths, and readers take
// the trailer; one that can overwrites the header with a complete one, and readers need no other place.
//
// Checksums are the raw register of CRC-32C, without the usual inversions; those of blocks start with 100007, others with 0.
//
// # Reading
//
//	f, err := zfile.Open(r, size, zfile.Options{})
//	n, err := f.ReadAt(p, off)                  // any alignment; verifies every block that it touches
//	dev, err := lsmt.Open(f, f.Size(), …)       // what is in it
//
// # Writing
//
//	w, err := zfile.NewWriter(out, zfile.Config{})          // or NewParallelWriter(out, config, workers)
//	_, err = io.Copy(w, in)
//	info, err := w.Close()
//	// then, when out can be patched: write info.Header, 512 bytes, at its start. Upstream's commit does that too.
//
// The output depends on the input and Config alone, not on the number of workers or on how the input was cut into calls. With
// lz4 its bytes are those of upstream, whose compressor (LZ4_compress_default) is followed exactly. Zstandard frames are
// ours: the same level, other bytes.
//
// # What it refuses
//
// Broken files are [abi.ErrCorrupt] or [abi.ErrTruncated], wrong checksums [abi.ErrDigest], with the offset; more blocks than
// the limit are [abi.ErrLimit]; minilzo, which no implementation has, and odd block sizes are [abi.ErrUnsupported].
//
// # Compatibility
//
// Old files carry garbage in reserved bytes and unused flag bits: only bits that mean something are looked at, the rest is
// listed by [Check]. Block sizes from 512 bytes to 64 KiB are read; those from 4 to 32 KiB are written, because upstream cannot
// read blocks of 64 KiB that did not shrink.
package zfile
