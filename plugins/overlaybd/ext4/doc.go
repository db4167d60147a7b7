// Package ext4 applies container layers to an ext4 file system as changed blocks, makes such a file system, reads it back and
// checks it. It handles bytes only: io.ReaderAt in, whole blocks out; no files, no goroutines, no clock, no randomness, no
// logging. It builds for wasip1.
//
// # What the device is
//
// An overlaybd layer is the set of 4 KiB blocks that differ between a block device after a layer was applied and before. So an
// [Applier] opens the device of the lower layers, applies the entries of a layer, and writes what changed:
//
//	block   0            1 … g          g+1 …          k·32             …                …              …
//	        superblock | descriptors | lost+found  | block bitmaps | inode bitmaps | inode tables | metadata, data
//
// That is what [Format] makes: all bitmaps and tables at the front, so that nothing of far groups is stored, no copies of the
// superblock, no journal. Lost+found fills up the 32 blocks of the descriptors, because upstream's applier writes those past
// its own cache: whatever else stood there and changed would be lost when upstream stacks a layer on ours.
//
// # Making a layer
//
//	dev := ext4.NewOverlay(parents, size, spill)            // or a Device of the caller
//	a, err := ext4.NewApplier(dev, ext4.Options{})          // ext4.Format(dev, …) for the first layer
//	… for each entry: err = a.Apply(ctx, &entry, body)
//	stats, err := a.Commit()
//	… dev.Changes() and dev.ReadAt: the layer's blocks
//
// File data goes to the device as it comes and is not kept; metadata blocks are kept and written by Commit, in ascending order,
// those left out that are as before. Every block is written at most once. With [Options.Remote] data is not written at all:
// the caller learns where it would stand (TurboOCI).
//
// # Rules
//
// Layers mean what package flatten says, which is what containerd does: symlinked parents, implied parents, whiteouts and opaque
// markers anywhere, hard links to lower files. Beyond it:
//
//   - A file that replaces a file of one name takes its inode, so that the directory does not change.
//   - Times of access and change are that of modification; inodes have no time of creation. Times outside of 1901 to 2446
//     become the ends of that range. Symbolic links have mode 0777.
//   - Runs of at least 8 blocks of zeros become holes. The last block is filled up with zeros.
//   - Extended attributes stand in the inode while they fit, then in one block: together about 4 KiB, else abi.ErrUnsupported.
//     POSIX ACLs are converted. Keys of unknown namespaces are kept, but the kernel does not show them.
//   - Directories of more than one block get an index (htree), as the kernel makes it.
//   - lost+found belongs to the file system: it is not in the image as mkfs made it, and no whiteout removes it.
//
// The same entries on the same device give the same bytes. UUID and hash seed of a new file system are made of its size.
//
// # Reading and checking
//
//	im, err := ext4.Open(dev, size)
//	err = im.Walk(ctx, func(e *abi.Entry, body *ext4.File) error { … })   // the tree as sorted entries
//	err = ext4.Diff(ctx, lower, upper, fn)                                // the layer between two trees
//	e, body, err := im.Stat("etc/passwd")
//	errs := ext4.Check(dev, size)                                          // every violation
//
// # What it refuses
//
// It opens what mke2fs makes of ext4, with and without metadata_csum, uninit_bg, 64bit, flex_bg, dir_index, a clean journal, and
// reads old block maps. A journal that must be replayed, and features that it does not know (inline_data, encrypt, casefold,
// bigalloc, meta_bg, ea_inode, and for writing quota, project, verity, ext2 and ext3), are abi.ErrUnsupported with their names; so
// are blocks that are not 4 KiB. Broken file systems are abi.ErrCorrupt or abi.ErrTruncated with offset and field, and
// end in bounded time: each structure is checked before it is used, and walks end at a directory that comes twice. A device
// that is full is abi.ErrLimit.
//
// # Memory
//
// Metadata blocks take at most [Options.Memory] when there is a scratch file. Besides, a layer costs 1 bit for each of its
// inodes, 12 bytes for each extent of a file in work, and the names of hard links to lower files.
package ext4
