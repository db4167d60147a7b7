package rawrafs

import (
	"bytes"
	"cmp"
	"slices"
)

// Canonical returns a copy of a merged bootstrap in which everything is one that releases of nydus-image write differently:
//
//   - the order of the blobs is that of their ids (2.2 writes layer order, 2.4 the order of first use), with the device
//     numbers of all chunks and the order of the chunk table following;
//   - the addresses of the blobs in a flat image are 0 (2.2 aligns them to 2 MiB, 2.4 to 512 KiB);
//   - the flag for "no encryption" is set (2.2 does not know it);
//   - chunks have no CRC (2.2 does not know it);
//   - the number of the root inode is 1 (2.2 writes 0);
//   - the prefetch table ends with its last entry (2.2 counts patterns that match nothing);
//   - extended attributes of an inode are in the order of their names (upstream's is random);
//   - an image without blobs has chunks of 1 MiB and begins with zeros (2.2 writes that size always, and the prefetch table
//     to the file's start).
func Canonical(b []byte) []byte {
	out := bytes.Clone(b)
	m := Open(out)
	out[1152+3] |= 1
	le.PutUint32(out[m.meta+4096+20:], 1)
	if m.cutPrefetch(); m.n == 0 {
		clear(out[:4])
		le.PutUint32(out[1152+20:], 1<<20)
	}
	order := make([]int, m.n)
	for i := range order {
		order[i] = i
	}
	ids := m.Blobs()
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(ids[a].ID, ids[b].ID) })
	to := make([]uint32, m.n)
	for i, from := range order {
		to[from] = uint32(i)
		copy(out[1408+128*i:], b[1408+128*from:1408+128*from+128])
		copy(out[m.blobs+256*i:], b[m.blobs+256*from:m.blobs+256*from+256])
		clear(out[1408+128*i+68 : 1408+128*i+72])
		le.PutUint32(out[m.blobs+256*i+64:], uint32(i))
	}
	m.each(func(p []byte) { p[2] = byte(to[p[2]-1] + 1) })
	table := out[m.chunks : m.chunks+m.chunksSize]
	var rows [][]byte
	for t := bytes.Clone(table); len(t) > 0; t = t[80:] {
		le.PutUint32(t[32:], to[le.Uint32(t[32:])])
		le.PutUint32(t[36:], le.Uint32(t[36:])&^0x10)
		clear(t[76:80])
		rows = append(rows, t[:80])
	}
	slices.SortStableFunc(rows, func(a, b []byte) int {
		return cmp.Or(bytes.Compare(a[:32], b[:32]), cmp.Compare(le.Uint32(a[32:]), le.Uint32(b[32:])))
	})
	copy(table, bytes.Join(rows, nil))
	return out
}

// cutPrefetch takes empty entries from the end of the prefetch table.
func (m *Image) cutPrefetch() {
	at, size := int(le.Uint64(m.b[1152+40:])), int(le.Uint32(m.b[1152+48:]))
	for size > 0 && le.Uint32(m.b[at+size-4:]) == 0 {
		size -= 4
	}
	if le.PutUint32(m.b[1152+48:], uint32(size)); size == 0 {
		clear(m.b[1152+40 : 1152+48])
	}
}

// each walks the tree, once for each inode: it calls fn with each index entry of each regular file, and orders attributes.
func (m *Image) each(fn func([]byte)) {
	seen := map[uint64]bool{}
	var walk func(nid uint64)
	walk = func(nid uint64) {
		if seen[nid] {
			return
		}
		seen[nid] = true
		at := m.meta + int(nid)*32
		ino := m.b[at:]
		format, icount, mode, size := le.Uint16(ino), int(le.Uint16(ino[2:])), le.Uint16(ino[4:]), int(le.Uint64(ino[8:]))
		end := 64
		if format&1 == 0 {
			panic("compact inode")
		}
		if icount > 0 {
			end += 12 + 4*(icount-1)
			sortXattrs(ino[64+12 : end])
		}
		switch mode & 0xf000 {
		case 0x8000:
			if m.n == 0 {
				le.PutUint32(ino[16:], 0x20|8) // empty files tell the chunk size too
			}
			end = (at + end + 7) / 8 * 8
			for k := range (size + m.chunkSize - 1) / m.chunkSize {
				fn(m.b[end+8*k:])
			}
		case 0x4000:
			blocks := m.b[int(le.Uint32(ino[16:]))*4096:]
			for off := 0; off < size; off += 4096 {
				n := min(4096, size-off)
				p := blocks[min(off, len(blocks)):]
				if format>>1 == 2 && n < 4096 {
					p = ino[end:]
				}
				m.eachName(p[:n], func(nid uint64, name string) {
					if name != "." && name != ".." {
						walk(nid)
					}
				})
			}
		}
	}
	walk(uint64(le.Uint16(m.b[1024+14:])))
}

// sortXattrs orders the attributes of an inode.
func sortXattrs(p []byte) {
	var all [][]byte
	for rest := bytes.Clone(p); len(rest) > 0; {
		n := (4 + int(rest[0]) + int(le.Uint16(rest[2:])) + 3) / 4 * 4
		all, rest = append(all, rest[:n]), rest[n:]
	}
	slices.SortFunc(all, func(a, b []byte) int {
		return cmp.Or(cmp.Compare(a[1], b[1]), bytes.Compare(a[4:4+a[0]], b[4:4+b[0]]))
	})
	copy(p, bytes.Join(all, nil))
}

// eachName reads a block of directory entries.
func (m *Image) eachName(p []byte, fn func(uint64, string)) {
	count := int(le.Uint16(p[8:])) / 12
	for k := range count {
		from, to := int(le.Uint16(p[12*k+8:])), len(p)
		if k+1 < count {
			to = int(le.Uint16(p[12*k+20:]))
		}
		fn(le.Uint64(p[12*k:]), string(bytes.TrimRight(p[from:to], "\x00")))
	}
}
