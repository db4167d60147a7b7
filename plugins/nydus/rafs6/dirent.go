package rafs6

// A directory's data is a row of blocks (2.5): entries of 12 bytes, then their names without separators. The bytes
// behind the names of a block that is not the last are zero.
//
//	0 u64 nid   8 u16 position of the name in the block   10 u8 file type   11 zero
//
// All names, "." and ".." included, are sorted as bytes over the whole directory.

// dirents calls fn for each entry of directory d in order.
func (t *Tree) dirents(d int32, fn func(name []byte, n int32)) {
	parent := t.nodes.at(d).parent
	dots := 0 // how many of "." and ".." are out
	for _, k := range t.children(t.inodeOf(d)) {
		name := t.name(k)
		if dots == 0 && string(name) > "." {
			fn(dotDot[:1], d)
			dots = 1
		}
		if dots == 1 && string(name) > ".." {
			fn(dotDot, parent)
			dots = 2
		}
		fn(name, k)
	}
	if dots == 0 {
		fn(dotDot[:1], d)
	}
	if dots <= 1 {
		fn(dotDot, parent)
	}
}

var dotDot = []byte("..")

// direntsSize is the i_size of directory d.
func (t *Tree) direntsSize(d int32) int64 {
	full, used := int64(0), 0
	t.dirents(d, func(name []byte, _ int32) {
		n := direntSize + len(name)
		if used+n > blockSize {
			full, used = full+blockSize, 0
		}
		used += n
	})
	return full + int64(used)
}

// appendDirents appends the data of directory d; nids are known by now.
func (t *Tree) appendDirents(dst []byte, d int32) []byte {
	start := len(dst)
	var names []byte
	var ends []int
	flush := func() {
		for k := range ends {
			off := 0
			if k > 0 {
				off = ends[k-1]
			}
			le.PutUint16(dst[start+direntSize*k+8:], uint16(direntSize*len(ends)+off))
		}
		dst = append(dst, names...)
	}
	t.dirents(d, func(name []byte, n int32) {
		if len(dst)-start+len(names)+direntSize+len(name) > blockSize {
			flush()
			for (len(dst)-start)%blockSize != 0 {
				dst = append(dst, 0)
			}
			start, names, ends = len(dst), names[:0], ends[:0]
		}
		i := t.inodeOf(n)
		dst = le.AppendUint64(dst, uint64(i.nid))
		dst = append(dst, 0, 0, direntType(i.mode), 0)
		names = append(names, name...)
		ends = append(ends, len(names))
	})
	flush()
	return dst
}
