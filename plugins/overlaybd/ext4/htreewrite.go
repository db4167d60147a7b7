package ext4

import (
	"cmp"
	"slices"

	"github.com/convhost/convhost/abi"
)

// hashed is an entry of a directory with the hash of its name.
type hashed struct {
	name string
	hash uint32
	ino  uint32
	typ  uint8
}

// indexInsert adds a name to a directory with an index; leaves and nodes without room are split in two.
func (a *allocator) indexInsert(n *inode, m *extentMap, ino uint32, typ uint8, name string) error {
	path, hash, err := a.indexPath(n, m, name)
	if err != nil {
		return err
	}
	b, err := a.dirBlock(n, m, leaf(path), kindDirLeaf)
	if err != nil {
		return err
	}
	if ok, err := a.insertIn(b, ino, typ, name); ok || err != nil {
		return err
	}
	for path[len(path)-1].full() {
		if err := a.splitNode(n, m, path); err != nil {
			return err
		}
		if path, hash, err = a.indexPath(n, m, name); err != nil {
			return err
		}
	}
	if b, err = a.splitLeaf(n, m, path, b, hash); err != nil {
		return err
	}
	ok, err := a.insertIn(b, ino, typ, name)
	if err == nil && !ok {
		err = abi.Errorf(abi.ErrUnsupported, "ext4: directory %d has more names with one hash than a block holds", n.num)
	}
	return err
}

// entriesOf returns the entries of a leaf with their hashes, in order of hash, then name.
func (a *allocator) entriesOf(n *inode, m *extentMap, b *block) ([]hashed, error) {
	version, err := a.hashVersion(n, m)
	if err != nil {
		return nil, err
	}
	var out []hashed
	err = a.eachIn(b.data, 0, int64(b.n)*BlockSize, func(d dirent, name []byte) bool {
		h, _ := a.nameHash(version, string(name))
		out = append(out, hashed{string(name), h, d.ino, d.typ})
		return true
	})
	sortHashed(out)
	return out, err
}

func sortHashed(s []hashed) {
	slices.SortFunc(s, func(x, y hashed) int {
		return cmp.Or(cmp.Compare(x.hash, y.hash), cmp.Compare(x.name, y.name))
	})
}

// hashVersion returns the version of an indexed directory, else that of the file system.
func (a *allocator) hashVersion(n *inode, m *extentMap) (uint8, error) {
	if n.flags()&flagIndex == 0 {
		version := a.sb[sbHashVersion]
		if _, ok := a.nameHash(version, ""); !ok {
			version = hashHalfMD4
		}
		return version, nil
	}
	b, err := a.dirBlock(n, m, 0, kindIndex)
	if err != nil {
		return 0, err
	}
	return b.data[rootInfo+4], nil
}

// fill writes entries into a leaf, packed.
func (a *allocator) fill(b *block, es []hashed) {
	a.emptyLeaf(b.data)
	off := 0
	for i, e := range es {
		size := direntSize(len(e.name))
		if i == len(es)-1 {
			size = a.dirEnd() - off
		}
		putRecord(b.data, off, size, e.ino, e.typ, e.name)
		off += size
	}
	b.dirty = true
}

// splitLeaf moves the upper half of a leaf into a new block and returns the half for hash.
func (a *allocator) splitLeaf(n *inode, m *extentMap, path []*node, b *block, hash uint32) (*block, error) {
	es, err := a.entriesOf(n, m, b)
	if err != nil {
		return nil, err
	}
	if len(es) < 2 {
		return nil, bad(int64(b.n)*BlockSize, "leaf of directory "+inoName(n.num), "full of nothing", "entries")
	}
	half, k := 0, len(es)
	for k > 1 && half < a.dirEnd()/2 {
		k--
		half += direntSize(len(es[k].name))
	}
	upper, log, err := a.grow(n, m, kindDirLeaf)
	if err != nil {
		return nil, err
	}
	split := es[k].hash
	mark := split
	if es[k-1].hash == split {
		mark |= 1
	}
	a.fill(b, es[:k])
	a.fill(upper, es[k:])
	path[len(path)-1].add(mark, log)
	if hash >= split {
		return upper, nil
	}
	return b, nil
}

// splitNode makes room in the last node of the path. The caller looks its path up again.
func (a *allocator) splitNode(n *inode, m *extentMap, path []*node) error {
	k := len(path) - 1
	for k > 0 && path[k-1].full() {
		k--
	}
	x := path[k]
	if k == 0 { // the root is full: its pairs move into a new node below it
		if len(path) > 2 {
			return abi.Errorf(abi.ErrLimit, "ext4: directory %d has too many names for its index", n.num)
		}
		b, log, err := a.grow(n, m, kindIndex)
		if err != nil {
			return err
		}
		a.emptyNode(b, x.b.data[x.co+8:x.co+x.count()*8], x.block(0))
		p := x.b.data
		clear(p[x.co+8 : x.co+x.limit()*8])
		put16(p, x.co+2, 1)
		put32(p, x.co+4, log)
		p[rootInfo+6]++
		x.b.dirty = true
		return a.splitIfFull(n, m, &node{b: b, co: nodeEntries}, x)
	}
	return a.splitIfFull(n, m, x, path[k-1])
}

// splitIfFull moves the upper half of an inner node into a new one behind it.
func (a *allocator) splitIfFull(n *inode, m *extentMap, x, up *node) error {
	if x.co == rootEntries || x.count() < x.limit()/2 {
		return nil
	}
	b, log, err := a.grow(n, m, kindIndex)
	if err != nil {
		return err
	}
	h, c := x.count()/2, x.count()
	p := x.b.data
	a.emptyNode(b, p[x.co+(h+1)*8:x.co+c*8], x.block(h))
	mark := x.hash(h)
	clear(p[x.co+h*8 : x.co+c*8])
	put16(p, x.co+2, uint32(h))
	x.b.dirty = true
	if up.co == rootEntries && up.count() == 1 {
		up.at = 0
	}
	up.add(mark, log)
	return nil
}

// emptyNode makes b an inner node with a first block and the pairs behind it.
func (a *allocator) emptyNode(b *block, pairs []byte, first uint32) {
	p := b.data
	clear(p)
	put16(p, 4, BlockSize)
	put16(p, nodeEntries, uint32(a.nodeLimit(nodeEntries)))
	put16(p, nodeEntries+2, uint32(1+len(pairs)/8))
	put32(p, nodeEntries+4, first)
	copy(p[nodeEntries+8:], pairs)
	b.kind, b.dirty = kindIndex, true
}

// buildIndex turns a directory without index into one with an index: its entries are packed into leaves by hash.
func (a *allocator) buildIndex(n *inode, m *extentMap) error {
	version, err := a.hashVersion(n, m)
	if err != nil {
		return err
	}
	list, err := a.list(n)
	if err != nil {
		return err
	}
	es := make([]hashed, 0, len(list))
	total := 0
	for _, d := range list {
		h, _ := a.nameHash(version, d.name)
		es = append(es, hashed{d.name, h, d.ino, d.typ})
		total += direntSize(len(d.name))
	}
	sortHashed(es)
	first, err := a.dirBlock(n, m, 0, kindDirLeaf)
	if err != nil {
		return err
	}
	if u32(first.data, 0) != n.num || u16(first.data, 4) != 12 || string(first.data[20:22]) != ".." {
		return bad(int64(first.n)*BlockSize, "directory "+inoName(n.num), "without its first two entries", `"." and ".."`)
	}
	parent := u32(first.data, 12)
	leaves := max(1, (total+BlockSize*3/4-1)/(BlockSize*3/4))
	if leaves > a.nodeLimit(rootEntries) {
		return abi.Errorf(abi.ErrUnsupported, "ext4: directory %d has %d names and no index, which is too many to index it now", n.num, len(es))
	}
	first.kind = kindIndex
	p := first.data
	clear(p)
	putRecord(p, 0, 12, n.num, ftDir, ".")
	putRecord(p, 12, BlockSize-12, parent, ftDir, "..")
	p[rootInfo+4], p[rootInfo+5] = version, 8
	put16(p, rootEntries, uint32(a.nodeLimit(rootEntries)))
	first.dirty = true
	n.setFlags(n.flags() | flagIndex)
	return a.fillLeaves(n, m, first, es, total, leaves)
}

func (a *allocator) fillLeaves(n *inode, m *extentMap, root *block, es []hashed, total, leaves int) error {
	share := (total + leaves - 1) / leaves
	x := &node{b: root, co: rootEntries}
	have := uint32(n.size() / BlockSize)
	log, k := uint32(1), 0
	for ; k < len(es) || log == 1; log++ {
		var b *block
		var err error
		if log < have {
			phys, _ := m.find(log)
			b = a.fresh(phys, kindDirLeaf, a.inodeSeed(n.num, n.gen()))
		} else if b, _, err = a.grow(n, m, kindDirLeaf); err != nil {
			return err
		}
		from, size := k, 0
		for k < len(es) && size < share && size+direntSize(len(es[k].name)) <= a.dirEnd() {
			size += direntSize(len(es[k].name))
			k++
		}
		a.fill(b, es[from:k])
		if log == 1 {
			put32(root.data, x.co+4, log)
			put16(root.data, x.co+2, 1)
			continue
		}
		mark := es[from].hash
		if es[from-1].hash == mark {
			mark |= 1
		}
		x.add(mark, log)
		x.at++
	}
	return a.shrink(n, m, log)
}
