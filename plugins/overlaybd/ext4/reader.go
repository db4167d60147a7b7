package ext4

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
)

// Image is a file system that is read. It is used from one goroutine.
type Image struct {
	*volume
}

// Open reads the superblock and descriptors of a file system on a device of size bytes. r is kept. Errors of it and of all methods
// are abi.ErrCorrupt (and kinds of it) for broken file systems, abi.ErrUnsupported for features that are not known.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	v, err := openVolume(r, size, false)
	if err != nil {
		return nil, err
	}
	return &Image{v}, nil
}

// WalkFunc gets the entries of a tree. body reads the content of a regular file and is nil for everything else; both are valid
// until it returns.
type WalkFunc func(e *abi.Entry, body *File) error

// Walk calls fn for every name: the root first, a directory before its content, siblings in the order of their bytes. The second
// and later names of a file are hard links to its first. Sockets are left out, and so is lost+found as mkfs made it.
func (im *Image) Walk(ctx context.Context, fn WalkFunc) error {
	w := &walk{im: im, ctx: ctx, fn: fn, first: map[uint32]string{}, dirs: map[uint32]bool{}}
	n, err := im.dir(rootIno)
	if err != nil {
		return err
	}
	return w.tree(n, "", 0)
}

type walk struct {
	im    *Image
	ctx   context.Context
	fn    WalkFunc
	first map[uint32]string // of files with several names
	dirs  map[uint32]bool
	seq   uint64
}

func (w *walk) tree(n *inode, path string, depth int) error {
	v := w.im.volume
	if w.dirs[n.num] || depth > maxPath {
		return bad(v.inodeOff(n.num), fmt.Sprintf("directory %q", path), "named twice", "a tree")
	}
	w.dirs[n.num] = true
	if err := w.visit(n, path); err != nil {
		return err
	}
	list, err := v.list(n)
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b dirent) int { return cmp.Compare(a.name, b.name) })
	for i := range list {
		if i > 0 && list[i].name == list[i-1].name {
			return bad(v.inodeOff(n.num), fmt.Sprintf("directory %q", path), fmt.Sprintf("with %q twice", list[i].name), "each name once")
		}
		if err := v.trim(); err != nil {
			return err
		}
		kid, err := v.usedInode(list[i].ino)
		if err != nil {
			return err
		}
		sub := list[i].name
		if path != "" {
			sub = path + "/" + sub
		}
		switch {
		case kid.isDir() && path == "" && sub == lostFound && isPristine(kid):
			if inside, err := v.list(kid); err != nil || len(inside) == 0 {
				if err != nil {
					return err
				}
				continue
			}
			err = w.tree(kid, sub, depth+1)
		case kid.isDir():
			err = w.tree(kid, sub, depth+1)
		case kindOf(kid.mode()) != 0:
			err = w.visit(kid, sub)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// visit hands one name over.
func (w *walk) visit(n *inode, path string) error {
	if err := w.ctx.Err(); err != nil {
		return abi.Errorf(abi.ClassOf(err), "read ext4: %w", err)
	}
	if len(path) > maxSteps {
		return bad(w.im.inodeOff(n.num), "path", fmt.Sprintf("%d bytes", len(path)), fmt.Sprintf("at most %d", maxSteps))
	}
	e, err := w.im.entry(n, path)
	if err != nil {
		return err
	}
	e.Seq = w.seq
	w.seq++
	if n.links() > 1 && !n.isDir() {
		if to, ok := w.first[n.num]; ok {
			e.Kind, e.Link, e.Size = abi.KindHardlink, to, 0
		} else {
			w.first[n.num] = strings.Clone(path)
		}
	}
	var body *File
	if e.Kind == abi.KindRegular {
		m, err := w.im.mapping(n)
		if err != nil {
			return err
		}
		body = &File{v: w.im.volume, m: m, size: e.Size}
	}
	return w.fn(e, body)
}

// entry describes an inode.
func (v *volume) entry(n *inode, path string) (*abi.Entry, error) {
	e := &abi.Entry{Kind: kindOf(n.mode()), Path: path, Mode: n.mode() & 0o7777, UID: n.uid(), GID: n.gid(), HdrOff: v.inodeOff(n.num)}
	e.MtimeSec, e.MtimeNs = n.time(inMtime, inMtimeX)
	var err error
	if e.Xattrs, err = v.xattrs(n); err != nil {
		return nil, err
	}
	switch e.Kind {
	case abi.KindRegular:
		if n.size() > maxFile*BlockSize {
			return nil, bad(v.inodeOff(n.num)+inSizeLo, "size of "+inoName(n.num), n.size(), "at most 2^32 blocks")
		}
		e.Size = int64(n.size())
	case abi.KindSymlink:
		if e.Link, err = v.readLink(n); err != nil {
			return nil, err
		}
	case abi.KindChar, abi.KindBlock:
		e.DevMajor, e.DevMinor = n.device()
	}
	return e, nil
}

// Stat describes the file at a path as Walk does, without following symbolic links; abi.ErrNotFound if there is none. A regular file
// comes with its content.
func (im *Image) Stat(path string) (*abi.Entry, *File, error) {
	if err := im.trim(); err != nil {
		return nil, nil, err
	}
	n, err := im.dir(rootIno)
	for rest := path; err == nil && rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		var d *dirent
		if !n.isDir() {
			break
		}
		if d, err = im.lookup(n, name); err == nil && d == nil {
			err = abi.Errorf(abi.ErrNotFound, "ext4: %q does not exist", path)
		}
		if err == nil {
			n, err = im.usedInode(d.ino)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	e, err := im.entry(n, path)
	if err != nil || e.Kind != abi.KindRegular {
		return e, nil, err
	}
	m, err := im.mapping(n)
	return e, &File{v: im.volume, m: m, size: e.Size}, err
}

// Free returns the free blocks and inodes that the superblock tells.
func (im *Image) Free() (blocks uint64, inodes uint32) {
	return im.freeBlocks(), u32(im.sb, sbFreeInodes)
}

// File is the content of a regular file: a reader from its start, and random access.
type File struct {
	v    *volume
	m    *extentMap
	size int64
	pos  int64
}

// Size returns the bytes of the file.
func (f *File) Size() int64 { return f.size }

// Read reads on from the last Read.
func (f *File) Read(p []byte) (int, error) {
	if f.pos >= f.size {
		return 0, io.EOF
	}
	n, err := f.ReadAt(p, f.pos)
	f.pos += int64(n)
	if err == io.EOF && n > 0 {
		err = nil
	}
	return n, err
}

// ReadAt reads data; holes and unwritten extents are zeros.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, abi.Errorf(abi.ErrInvalid, "read at negative offset %d", off)
	}
	for n < len(p) && off < f.size {
		start, run := f.run(uint32(off / BlockSize))
		in := off % BlockSize
		k := min(int64(len(p)-n), f.size-off, run*BlockSize-in)
		if q := p[n : n+int(k)]; start == 0 {
			clear(q)
		} else if err := readFull(f.v.r, q, int64(start)*BlockSize+in); err != nil {
			return n, err
		}
		n, off = n+int(k), off+k
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// run returns where a block of the file stands and how many from it on are adjacent; 0 for zeros.
func (f *File) run(log uint32) (start uint64, blocks int64) {
	i, _ := slices.BinarySearchFunc(f.m.list, log, func(x extent, l uint32) int {
		if uint64(x.log)+uint64(x.n) <= uint64(l) {
			return -1
		}
		return 1
	})
	if i == len(f.m.list) {
		return 0, 1 << 32
	}
	x := f.m.list[i]
	switch {
	case x.log > log:
		return 0, int64(x.log - log)
	case x.unwritten:
		return 0, int64(x.n - (log - x.log))
	}
	return x.phys + uint64(log-x.log), int64(x.n - (log - x.log))
}
