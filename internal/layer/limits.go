package layer

import "github.com/convhost/convhost/abi"

// Limits bound what one layer may claim. A field that is 0 means its default. Reaching one is abi.ErrLimit.
type Limits struct {
	Entries      int64 // members; default 10 million
	PathBytes    int   // a path or a link target; default 4096 (PATH_MAX)
	NameBytes    int   // one element of a path; default 255 (NAME_MAX)
	HeaderBytes  int64 // extended headers of one member together; default 1 MiB, as in Go's archive/tar
	Xattrs       int   // extended attributes of one member; default 4096
	XattrBytes   int   // one value; default 64 KiB (XATTR_SIZE_MAX)
	FileBytes    int64 // one file, expanded; default 1 TiB
	HoleBytes    int64 // all holes of sparse files together, for they cost no input; default 64 GiB
	SparseChunks int   // data regions of one sparse file; default 65536
}

func (l Limits) withDefaults() Limits {
	set(&l.Entries, 10_000_000)
	set(&l.PathBytes, 4096)
	set(&l.NameBytes, 255)
	set(&l.HeaderBytes, 1<<20)
	set(&l.Xattrs, 4096)
	set(&l.XattrBytes, 64<<10)
	set(&l.FileBytes, 1<<40)
	set(&l.HoleBytes, 64<<30)
	set(&l.SparseChunks, 1<<16)
	return l
}

func set[T int | int64](p *T, v T) {
	if *p <= 0 {
		*p = v
	}
}

// maxRecord is what one entry record may take when it crosses the ABI.
const maxRecord = abi.MaxEntryRecord
