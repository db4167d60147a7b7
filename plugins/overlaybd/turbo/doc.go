// Package turbo reads and writes the layers of TurboOCI images: small archives that hold the file system's metadata and the gzip
// index, while the data of files stays in the original layer, which an annotation names. It handles bytes only: no files, no
// goroutines, no logging.
//
// # What the file is
//
// A tar, compressed with gzip, with the members
//
//	ext4.fs.meta    a ZFile around an LSMT warp file (packages zfile and lsmt): blocks of metadata, and where in the
//	                uncompressed tar of the original layer the data of files stands; erofs.fs.meta for that file system
//	.turbo.ociv1    empty: says what the archive is
//	gzip.meta       the index of the original layer (package gzindex), if that is compressed with gzip
//
// containerd unpacks it like any layer; the snapshotter finds the members by their names.
//
// # Reading
//
//	l, err := turbo.Read(r, turbo.Options{})
//	zf, err := zfile.Open(l.Meta, l.Meta.Size, …)
//	warp, err := lsmt.Open(zf, zf.Size(), lsmt.Options{Target: tar, TargetSize: tarSize})
//
// The archive is read once from its start to its end; members come to rest in memory, or where Options say.
//
// # Writing
//
//	err := turbo.Write(gz, turbo.Contents{FS: "ext4", Meta: meta, MetaSize: n, Index: index, IndexSize: k})
//
// writes the tar in upstream's order, and compression is the caller's. The bytes depend on the members alone.
//
// # What it refuses
//
// Broken archives are [abi.ErrCorrupt] or [abi.ErrTruncated]; so are those without metadata, or with a member twice. More
// than the limit is [abi.ErrLimit]. Other members are ignored, as the snapshotter does; [Layer.Notes] lists them.
package turbo
