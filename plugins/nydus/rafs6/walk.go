package rafs6

import (
	"github.com/convhost/convhost/abi"
)

// File gives the chunks of a regular file in order.
type File struct {
	t       *Tree
	data, n uint32
}

// Len returns the number of chunks.
func (f File) Len() int { return int(f.n) }

// At returns chunk k, 0 ≤ k < Len.
func (f File) At(k int) Chunk { return f.t.chunk(*f.t.refs.at(int32(f.data + uint32(k)))) }

// Walk calls fn for each name below the root, each directory before what is in it, names of one directory in the order
// of their bytes. The root itself comes first, with an empty path. The second and later names of a file are
// KindHardlink with the first one as Link. Sockets are passed over: a tar cannot hold them. Attributes are sorted by name.
//
// e is valid until fn returns and is used again. HdrOff, BodyOff, Seq and Chunks are 0. An error of fn ends the walk.
func (t *Tree) Walk(fn func(e *abi.Entry, f File) error) error {
	type frame struct {
		next, end uint32
		path      int
	}
	var e abi.Entry
	if err := t.visit(root, "", &e, nil, fn); err != nil {
		return err
	}
	r := t.inodeOf(root)
	stack := []frame{{r.data, r.data + r.count, 0}}
	links := map[int32]string{}
	var path []byte
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next == top.end {
			stack = stack[:len(stack)-1]
			continue
		}
		n := t.order[top.next]
		top.next++
		path = path[:top.path]
		if len(path) > 0 {
			path = append(path, '/')
		}
		path = append(path, t.name(n)...)
		if err := t.visit(n, string(path), &e, links, fn); err != nil {
			return err
		}
		if i := t.inodeOf(n); i.isDir() && i.count > 0 {
			stack = append(stack, frame{i.data, i.data + i.count, len(path)})
		}
	}
	return nil
}

var kinds = map[uint32]abi.Kind{modeReg: abi.KindRegular, modeDir: abi.KindDir, modeLink: abi.KindSymlink,
	modeChar: abi.KindChar, modeBlk: abi.KindBlock, modeFifo: abi.KindFifo}

func (t *Tree) visit(n int32, path string, e *abi.Entry, links map[int32]string, fn func(*abi.Entry, File) error) error {
	ino := t.nodes.at(n).inode
	i := t.inodes.at(ino)
	*e = abi.Entry{Kind: kinds[i.mode&modeType], Mode: i.mode & 0o7777, UID: i.uid, GID: i.gid, MtimeSec: i.mtime,
		MtimeNs: i.mtimeNs, Path: path, Xattrs: e.Xattrs[:0]}
	f := File{t: t}
	switch e.Kind {
	case 0:
		return nil // a socket
	case abi.KindRegular:
		if i.nlink > 1 {
			if first, ok := links[ino]; ok {
				e.Kind, e.Link = abi.KindHardlink, first
				break
			}
			links[ino] = path
		}
		e.Size, f.data, f.n = i.size, i.data, i.count
	case abi.KindSymlink:
		e.Link = string(t.target(i))
	case abi.KindChar, abi.KindBlock, abi.KindFifo:
		e.DevMajor, e.DevMinor = splitdev(i.rdev)
	}
	if i.xattrLen > 0 {
		e.Xattrs = sortXattrs(decodeXattrs(e.Xattrs, t.text.get(i.xattr, int(i.xattrLen))))
	}
	name := t.name(n)
	if len(name) > 4 && string(name[:4]) == ".wh." {
		e.Flags = abi.EntryWhiteout
		if string(name) == opaqueName {
			e.Flags = abi.EntryOpaque
		}
	}
	return fn(e, f)
}
