package rafs6

import "slices"

// A directory's data is a row of blocks (2.5): entries of 12 bytes, then their names without separators. The bytes
// behind the names of a block that is not the last are zero.
//
//	0 u64 nid   8 u16 position of the name in the block   10 u8 file type   11 zero
//
// All names, "." and ".." included, are sorted as bytes over the whole directory.

// listing is a directory with "." and ".." among its children.
type listing struct {
	nodes       []int32
	dot, dotdot int // where they are in nodes
}

// list fills l with directory d.
func (t *Tree) list(l *listing, d int32) {
	kids := t.children(t.inodeOf(d))
	for l.dot = 0; l.dot < len(kids) && string(t.name(kids[l.dot])) < "."; l.dot++ {
	}
	k := l.dot
	for k < len(kids) && string(t.name(kids[k])) < ".." {
		k++
	}
	l.dotdot = k + 1
	l.nodes = append(append(l.nodes[:0], kids[:l.dot]...), d)
	l.nodes = append(append(l.nodes, kids[l.dot:k]...), t.nodes.at(d).parent)
	l.nodes = append(l.nodes, kids[k:]...)
}

// nameLen is the length of name k in l.
func (t *Tree) nameLen(l *listing, k int) int {
	switch k {
	case l.dot:
		return 1
	case l.dotdot:
		return 2
	}
	return int(t.nodes.at(l.nodes[k]).nlen)
}

var dotDot = []byte("..")

// direntsSize is the i_size of directory d. l is scratch.
func (t *Tree) direntsSize(l *listing, d int32) int64 {
	t.list(l, d)
	full, used := int64(0), 0
	for k := range l.nodes {
		n := direntSize + t.nameLen(l, k)
		if used+n > blockSize {
			full, used = full+blockSize, 0
		}
		used += n
	}
	return full + int64(used)
}

// appendDirents appends the data of directory d; nids are known by now. l is scratch.
func (t *Tree) appendDirents(dst []byte, l *listing, d int32) []byte {
	t.list(l, d)
	start := len(dst)
	for first := 0; first < len(l.nodes); {
		end, size := first, 0
		for ; end < len(l.nodes); end++ {
			n := direntSize + t.nameLen(l, end)
			if size+n > blockSize {
				break
			}
			size += n
		}
		if first > 0 {
			dst = append(dst, zeros[:-(len(dst)-start)&(blockSize-1)]...)
		}
		dst = t.appendDirentBlock(dst, l, first, end)
		first = end
	}
	return dst
}

// appendDirentBlock appends the entries of l from first to end, and their names.
func (t *Tree) appendDirentBlock(dst []byte, l *listing, first, end int) []byte {
	at, head := len(dst), direntSize*(end-first)
	dst = slices.Grow(dst, blockSize)
	dst = dst[:at+head]
	for k := first; k < end; k++ {
		v := t.nodes.at(l.nodes[k])
		e := dst[at+direntSize*(k-first):][:direntSize]
		i := t.inodes.at(v.inode)
		le.PutUint64(e, uint64(i.nid))
		le.PutUint32(e[8:], uint32(len(dst)-at)|uint32(direntType(i.mode))<<16)
		switch k {
		case l.dot:
			dst = append(dst, '.')
		case l.dotdot:
			dst = append(dst, dotDot...)
		default:
			dst = append(dst, t.text.get(v.name, int(v.nlen))...)
		}
	}
	return dst
}
