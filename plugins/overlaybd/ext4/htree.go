package ext4

import "fmt"

// An index node is an array of pairs (hash, block of the directory) in ascending order. The hash of the first pair is not
// there: its place holds limit and count. The root stands behind "." and ".." in block 0, inner nodes behind an
// empty record. A hash with the lowest bit set says that names with the same hash stand in the block before, too.
const (
	rootEntries = 32 // offset of the pairs in the root
	nodeEntries = 8
	rootInfo    = 24 // u32 0, u8 hash version, u8 8, u8 levels below the root, u8 flags
)

// indexOffset returns where limit and count stand in a block that looks like an index, else -1.
func indexOffset(p []byte) int {
	switch {
	case u16(p, 4) == BlockSize && u32(p, 0) == 0:
		return nodeEntries
	case u16(p, 4) == 12 && u16(p, 16) == BlockSize-12 && u32(p, rootInfo) == 0 && p[rootInfo+5] == 8:
		return rootEntries
	}
	return -1
}

// node is an index node on the way to a leaf.
type node struct {
	b  *block
	co int // offset of the pairs
	at int // pair that was taken
}

func (x *node) count() int         { return int(u16(x.b.data, x.co+2)) }
func (x *node) limit() int         { return int(u16(x.b.data, x.co)) }
func (x *node) hash(i int) uint32  { return u32(x.b.data, x.co+i*8) }
func (x *node) block(i int) uint32 { return u32(x.b.data, x.co+i*8+4) & 0x0fffffff }
func (x *node) full() bool         { return x.count() >= x.limit() }
func (v *volume) nodeLimit(co int) int {
	n := (BlockSize - co) / 8
	if v.metaCsum {
		n--
	}
	return n
}

// add puts a pair behind the one that was taken.
func (x *node) add(hash, block uint32) {
	p, c := x.b.data, x.count()
	i := x.at + 1
	copy(p[x.co+(i+1)*8:x.co+(c+1)*8], p[x.co+i*8:x.co+c*8])
	put32(p, x.co+i*8, hash)
	put32(p, x.co+i*8+4, block)
	put16(p, x.co+2, uint32(c+1))
	x.b.dirty = true
}

// indexNode opens a node and takes the pair for hash.
func (v *volume) indexNode(n *inode, m *extentMap, log uint32, hash uint32) (*node, error) {
	b, err := v.dirBlock(n, m, log, kindIndex)
	if err != nil {
		return nil, err
	}
	x := &node{b: b, co: nodeEntries}
	if log == 0 {
		x.co = rootEntries
	}
	if indexOffset(b.data) != x.co || x.limit() != v.nodeLimit(x.co) || x.count() == 0 || x.count() > x.limit() {
		return nil, bad(int64(b.n)*BlockSize, "index of directory "+inoName(n.num), fmt.Sprintf("%x", b.data[:40]), "an index node")
	}
	lo, hi := 1, x.count()
	for lo < hi {
		if mid := (lo + hi) / 2; x.hash(mid) > hash {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	x.at = lo - 1
	return x, nil
}

// indexPath returns the nodes from the root to the leaf for name, and its hash.
func (v *volume) indexPath(n *inode, m *extentMap, name string) (path []*node, hash uint32, err error) {
	b, err := v.dirBlock(n, m, 0, kindIndex)
	if err != nil {
		return nil, 0, err
	}
	at := int64(b.n) * BlockSize
	version, levels := b.data[rootInfo+4], int(b.data[rootInfo+6])
	hash, ok := v.nameHash(version, name)
	if !ok {
		return nil, 0, unsupported(at+rootInfo+4, "hash version of directory "+inoName(n.num), version, "0 to 5")
	}
	if levels > 2 {
		return nil, 0, bad(at+rootInfo+6, "levels of the index of "+inoName(n.num), levels, "at most 2")
	}
	log := uint32(0)
	for range levels + 1 {
		x, err := v.indexNode(n, m, log, hash)
		if err != nil {
			return nil, 0, err
		}
		path = append(path, x)
		log = x.block(x.at)
	}
	return path, hash, nil
}

// leaf returns the block that the path leads to.
func leaf(path []*node) uint32 {
	x := path[len(path)-1]
	return x.block(x.at)
}

func (v *volume) indexLookup(n *inode, m *extentMap, name string) (*dirent, error) {
	path, hash, err := v.indexPath(n, m, name)
	if err != nil {
		return nil, err
	}
	for range n.size() / BlockSize {
		d, err := v.lookupIn(n, m, leaf(path), name)
		if d != nil || err != nil {
			return d, err
		}
		more, err := v.nextLeaf(n, m, path, hash)
		if err != nil || !more {
			return nil, err
		}
	}
	return nil, bad(v.inodeOff(n.num), "index of directory "+inoName(n.num), "endless", "each block once")
}

// nextLeaf moves path to the leaf behind it, if that one goes on with the same hash.
func (v *volume) nextLeaf(n *inode, m *extentMap, path []*node, hash uint32) (bool, error) {
	k := len(path) - 1
	for ; path[k].at+1 >= path[k].count(); k-- {
		if k == 0 {
			return false, nil
		}
	}
	if path[k].hash(path[k].at+1) != hash|1 {
		return false, nil
	}
	path[k].at++
	for ; k < len(path)-1; k++ {
		x, err := v.indexNode(n, m, path[k].block(path[k].at), 0)
		if err != nil {
			return false, err
		}
		x.at = 0
		path[k+1] = x
	}
	return true, nil
}
