package ext4

import (
	"bytes"
	"fmt"
)

// A directory is a sequence of blocks of entries. In a directory with an index some blocks hold index nodes; they look like one
// empty entry to those who do not know.
//
//	0 u32 inode, 0 unused   4 u16 record length, multiple of 4   6 u8 name length   7 u8 type   8 name
//
// With metadata checksums the last 12 bytes are an unused record of type 0xDE with the checksum.
const (
	direntHead  = 8
	dirTailSize = 12
	dirTailType = 0xDE
)

// File types in entries.
const (
	ftReg  = 1
	ftDir  = 2
	ftChr  = 3
	ftBlk  = 4
	ftFifo = 5
	ftSock = 6
	ftLnk  = 7
)

func fileType(mode uint32) uint8 {
	switch mode & ifMask {
	case ifReg:
		return ftReg
	case ifDir:
		return ftDir
	case ifChr:
		return ftChr
	case ifBlk:
		return ftBlk
	case ifFifo:
		return ftFifo
	case ifSock:
		return ftSock
	case ifLnk:
		return ftLnk
	}
	return 0
}

// dirent is one name in a directory and where it stands.
type dirent struct {
	name string
	ino  uint32
	typ  uint8
	log  uint32 // block of the directory
	off  int    // in it
	prev int    // the record before it in the block, -1: it is the first
}

func direntSize(name int) int { return (direntHead + name + 3) &^ 3 }

func hasDirTail(p []byte) bool {
	t := p[BlockSize-dirTailSize:]
	return u32(t, 0) == 0 && u16(t, 4) == dirTailSize && t[6] == 0 && t[7] == dirTailType
}

// dirEnd returns where entries of a block end.
func (v *volume) dirEnd() int {
	if v.metaCsum {
		return BlockSize - dirTailSize
	}
	return BlockSize
}

// record checks the entry at off of a directory block and returns its length and name.
func (v *volume) record(p []byte, off int, at int64) (size int, name []byte, err error) {
	if off > BlockSize-direntHead {
		return 0, nil, bad(at+int64(off), "directory entry", off, "8 bytes within the block")
	}
	size, n := int(u16(p, off+4)), int(p[off+6])
	if size%4 != 0 || size < direntHead || size > BlockSize-off || size < direntHead+n {
		return 0, nil, bad(at+int64(off)+4, "length of a directory entry", size, "a multiple of 4 that holds the name, within the block")
	}
	return size, p[off+direntHead : off+direntHead+n], nil
}

// eachIn calls fn for the entries in use of one directory block, "." and ".." left out, until fn returns false.
func (v *volume) eachIn(p []byte, log uint32, at int64, fn func(d dirent, name []byte) bool) error {
	prev := -1
	for off := 0; off < BlockSize; {
		size, name, err := v.record(p, off, at)
		if err != nil {
			return err
		}
		if ino := u32(p, off); ino != 0 && !isDots(name) {
			if ino > v.inodeCount {
				return v.badEntry(ino, at+int64(off))
			}
			if err := checkName(name, at+int64(off)); err != nil {
				return err
			}
			if !fn(dirent{ino: ino, typ: p[off+7], log: log, off: off, prev: prev}, name) {
				return nil
			}
		}
		prev = off
		off += size
	}
	return nil
}

func (v *volume) badEntry(ino uint32, at int64) error {
	return bad(at, "inode of a directory entry", ino, fmt.Sprintf("at most %d", v.inodeCount))
}

func isDots(name []byte) bool {
	return len(name) == 1 && name[0] == '.' || len(name) == 2 && name[0] == '.' && name[1] == '.'
}

func checkName(name []byte, at int64) error {
	if bytes.IndexByte(name, '/') >= 0 || bytes.IndexByte(name, 0) >= 0 {
		return bad(at, "name in a directory", fmt.Sprintf("%q", name), "without slash and NUL")
	}
	if len(name) == 0 {
		return bad(at, "name in a directory", "empty", "1 to 255 bytes")
	}
	return nil
}

// dirMap returns the mapping of a directory, kept for the next time.
func (v *volume) dirMap(n *inode) (*extentMap, error) {
	if m := v.extents[n.num]; m != nil {
		return m, nil
	}
	m, err := v.mapping(n)
	if err != nil {
		return nil, err
	}
	if size := n.size(); size == 0 || size%BlockSize != 0 || size/BlockSize > m.end() {
		return nil, bad(v.inodeOff(n.num)+inSizeLo, "size of directory "+inoName(n.num), size, "the blocks that it has")
	}
	if m.overlaps() { // else a few blocks could pretend to be billions of names
		return nil, bad(v.inodeOff(n.num)+inBlock, "blocks of directory "+inoName(n.num), "the same one twice", "each block once")
	}
	if len(v.extents) >= 1024 {
		clear(v.extents)
	}
	v.extents[n.num] = m
	return m, nil
}

// dirBlock returns a block of a directory; kind says what the caller takes it for.
func (v *volume) dirBlock(n *inode, m *extentMap, log uint32, kind blockKind) (*block, error) {
	phys, unwritten := m.find(log)
	if phys == 0 || unwritten || uint64(log) >= n.size()/BlockSize {
		return nil, bad(v.inodeOff(n.num), "directory "+inoName(n.num), fmt.Sprintf("without block %d", log), "no holes")
	}
	b, err := v.get(phys)
	if err != nil {
		return nil, err
	}
	if !b.dirty {
		b.kind, b.seed = kind, v.inodeSeed(n.num, n.gen())
		if v.metaCsum && kind == kindDirLeaf && !hasDirTail(b.data) && indexOffset(b.data) >= 0 {
			b.kind = kindIndex
		}
		if err := v.sealed(b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// list returns all names of a directory in the order of its blocks.
func (v *volume) list(n *inode) ([]dirent, error) {
	m, err := v.dirMap(n)
	if err != nil {
		return nil, err
	}
	var out []dirent
	for log := range uint32(n.size() / BlockSize) {
		b, err := v.dirBlock(n, m, log, kindDirLeaf)
		if err != nil {
			return nil, err
		}
		err = v.eachIn(b.data, log, int64(b.n)*BlockSize, func(d dirent, name []byte) bool {
			d.name = string(name)
			out = append(out, d)
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// lookup finds a name; nil if there is none.
func (v *volume) lookup(n *inode, name string) (*dirent, error) {
	m, err := v.dirMap(n)
	if err != nil {
		return nil, err
	}
	if n.flags()&flagIndex != 0 {
		return v.indexLookup(n, m, name)
	}
	for log := range uint32(n.size() / BlockSize) {
		d, err := v.lookupIn(n, m, log, name)
		if d != nil || err != nil {
			return d, err
		}
	}
	return nil, nil
}

// lookupIn finds a name in one block.
func (v *volume) lookupIn(n *inode, m *extentMap, log uint32, name string) (found *dirent, err error) {
	b, err := v.dirBlock(n, m, log, kindDirLeaf)
	if err != nil {
		return nil, err
	}
	p, at, prev := b.data, int64(b.n)*BlockSize, -1
	for off := 0; off < BlockSize; {
		size, s, err := v.record(p, off, at)
		if err != nil {
			return nil, err
		}
		if string(s) == name && !isDots(s) {
			if ino := u32(p, off); ino > v.inodeCount {
				return nil, v.badEntry(ino, at+int64(off))
			} else if ino != 0 {
				return &dirent{ino: ino, typ: p[off+7], log: log, off: off, prev: prev, name: name}, nil
			}
		}
		prev = off
		off += size
	}
	return nil, nil
}
