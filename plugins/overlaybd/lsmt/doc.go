// Package lsmt reads, stacks, writes and checks LSMT files, the block diffs of which an overlaybd image is made. It handles
// bytes only: [io.ReaderAt] in, [io.Writer] out; no files, no goroutines, no logging. It builds for wasip1.
//
// # What the file is
//
// A layer says what changed on a block device: a list of segments, sorted by their place on the device, and the data of those
// that have some. Everything is counted in sectors of 512 bytes.
//
//	0            4096                       index_offset              size-4096     size
//	| header 4096 | data, whole sectors ...  | index: 16 bytes a segment | trailer 4096 |
//	                ^                           |
//	                +--- source ----------------+ start, length, source, zero flag, tag
//
// Header and trailer are the same record; the trailer of a finished ("sealed") layer says where the index is, so a reader must
// know the exact size of the file. LSMT has no checksums: the compressed container around it (package zfile) has them.
//
// A device is a stack of at most 255 layers. For every sector the topmost layer that mentions it wins; a segment with the zero
// flag hides what is below it; a sector that nobody mentions reads as zeros.
//
// Three kinds of file exist besides the sealed layer:
//
//   - append mode, two writable files: data (header, then data in the order it was written) and index (header, then segments
//     in the order they were written; later ones win). See [OpenAppend].
//   - sparse mode, one writable file: the data of device byte x is at file byte x+4096, and holes of the file are sectors that
//     the layer does not mention. See [OpenSparse].
//   - warp, the metadata layer of TurboOCI: sealed, but segments with tag 1 take their data from another file, the
//     uncompressed tar of the original layer. See [Options].
//
// # Reading
//
//	layer, err := lsmt.Open(r, size, lsmt.Options{})    // for each layer
//	dev, err := lsmt.Stack(layers...)                   // lowest first
//	n, err := dev.ReadAt(p, off)                        // any alignment
//	for _, s := range dev.Segments() { … }              // what is mapped; Tag counts layers from the top
//
// # Writing
//
//	w, err := lsmt.NewWriter(out, lsmt.Config{VirtualSize: 64 << 30, UUID: id})
//	… in ascending order:  err = w.Data(off, p)   or   err = w.Zero(off, n)
//	info, err := w.Close()
//
// The output goes forward only and depends on nothing but the ranges and their data: how they were cut into calls does not
// matter. [Commit] writes the merged view of a stack as one layer. For the same segments the bytes are those of
// upstream's overlaybd-commit.
//
// # What it refuses
//
// Files that break a rule of the readers are [abi.ErrCorrupt] or [abi.ErrTruncated] and name offset and field; more segments
// than the limits allow are [abi.ErrLimit]. Deviations that readers ignore (version, reserved bytes, padding) do not stop
// [Open]; [Check] lists them apart.
//
// # Compatibility
//
// Written from the format reference of containerd/overlaybd (version 1.1 of the record, the only one in the field). All
// integers are little-endian.
package lsmt
