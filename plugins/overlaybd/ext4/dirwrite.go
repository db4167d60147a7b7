package ext4

// putRecord writes one entry of a directory block.
func putRecord(p []byte, off, size int, ino uint32, typ uint8, name string) {
	put32(p, off, ino)
	put16(p, off+4, uint32(size))
	p[off+6], p[off+7] = byte(len(name)), typ
	copy(p[off+direntHead:], name)
}

// emptyLeaf makes p a block without entries.
func (v *volume) emptyLeaf(p []byte) {
	clear(p)
	put16(p, 4, uint32(v.dirEnd()))
	if v.metaCsum {
		t := p[BlockSize-dirTailSize:]
		put16(t, 4, dirTailSize)
		t[7] = dirTailType
	}
}

// insertIn adds an entry to a block if there is room.
func (v *volume) insertIn(b *block, ino uint32, typ uint8, name string) (bool, error) {
	p, need := b.data, direntSize(len(name))
	for off := 0; off < v.dirEnd(); {
		size, old, err := v.record(p, off, int64(b.n)*BlockSize)
		if err != nil {
			return false, err
		}
		used := 0
		if u32(p, off) != 0 {
			used = direntSize(len(old))
		}
		if size-used >= need && off+size <= v.dirEnd() {
			if used > 0 {
				put16(p, off+4, uint32(used))
			}
			putRecord(p, off+used, size-used, ino, typ, name)
			b.dirty = true
			return true, nil
		}
		off += size
	}
	return false, nil
}

// insert adds a name that is not there to directory n and writes n if it grew.
func (a *allocator) insert(n *inode, ino uint32, typ uint8, name string) error {
	m, err := a.dirMap(n)
	if err != nil {
		return err
	}
	if n.flags()&flagIndex != 0 {
		return a.indexInsert(n, m, ino, typ, name)
	}
	count := uint32(n.size() / BlockSize)
	for log := range count {
		if a.compat(compatDirIndex) && count > 1 && log < count-1 {
			continue // a long list without index is indexed when its last block is full
		}
		b, err := a.dirBlock(n, m, log, kindDirLeaf)
		if err != nil {
			return err
		}
		if ok, err := a.insertIn(b, ino, typ, name); ok || err != nil {
			return err
		}
	}
	if a.compat(compatDirIndex) {
		if err := a.buildIndex(n, m); err != nil {
			return err
		}
		return a.indexInsert(n, m, ino, typ, name)
	}
	b, _, err := a.grow(n, m, kindDirLeaf)
	if err != nil {
		return err
	}
	a.emptyLeaf(b.data)
	_, err = a.insertIn(b, ino, typ, name)
	return err
}

// grow appends a block to directory n.
func (a *allocator) grow(n *inode, m *extentMap, kind blockKind) (*block, uint32, error) {
	phys, err := a.allocMeta()
	if err != nil {
		return nil, 0, err
	}
	log := uint32(n.size() / BlockSize)
	m.add(log, phys, 1)
	n.setSize(n.size() + BlockSize)
	if err := a.putMapping(n, m, aclBlocks(n)); err != nil {
		return nil, 0, err
	}
	if err := a.putInode(n); err != nil {
		return nil, 0, err
	}
	return a.fresh(phys, kind, a.inodeSeed(n.num, n.gen())), log, nil
}

// unlink removes the entry d from directory n. Its bytes are cleared.
func (a *allocator) unlink(n *inode, d *dirent) error {
	m, err := a.dirMap(n)
	if err != nil {
		return err
	}
	b, err := a.dirBlock(n, m, d.log, kindDirLeaf)
	if err != nil {
		return err
	}
	p, size := b.data, int(u16(b.data, d.off+4))
	if d.prev < 0 {
		clear(p[d.off : d.off+size])
		put16(p, d.off+4, uint32(size))
	} else {
		clear(p[d.off : d.off+size])
		put16(p, d.prev+4, u16(p, d.prev+4)+uint32(size))
	}
	b.dirty = true
	return nil
}

// retype changes the file type of an entry, where its inode is used for something else now.
func (a *allocator) retype(n *inode, d *dirent, typ uint8) error {
	if d.typ == typ {
		return nil
	}
	m, err := a.dirMap(n)
	if err != nil {
		return err
	}
	b, err := a.dirBlock(n, m, d.log, kindDirLeaf)
	if err != nil {
		return err
	}
	b.data[d.off+7] = typ
	b.dirty = true
	return nil
}

// newDir gives n its first block, with "." and "..".
func (a *allocator) newDir(n *inode, parent uint32) error {
	phys, err := a.allocMeta()
	if err != nil {
		return err
	}
	b := a.fresh(phys, kindDirLeaf, a.inodeSeed(n.num, n.gen()))
	a.emptyLeaf(b.data)
	putRecord(b.data, 0, 12, n.num, ftDir, ".")
	putRecord(b.data, 12, a.dirEnd()-12, parent, ftDir, "..")
	m := &extentMap{}
	m.add(0, phys, 1)
	n.setSize(BlockSize)
	delete(a.extents, n.num)
	return a.putMapping(n, m, 0)
}

// shrink keeps the first blocks of directory n, frees the others, and writes n.
func (a *allocator) shrink(n *inode, m *extentMap, blocks uint32) error {
	for m.end() > uint64(blocks) {
		x := &m.list[len(m.list)-1]
		drop := min(x.n, uint32(m.end()-uint64(blocks)))
		if err := a.freeRun(x.phys+uint64(x.n-drop), uint64(drop)); err != nil {
			return err
		}
		if x.n -= drop; x.n == 0 {
			m.list = m.list[:len(m.list)-1]
		}
	}
	n.setSize(uint64(blocks) * BlockSize)
	if err := a.putMapping(n, m, aclBlocks(n)); err != nil {
		return err
	}
	return a.putInode(n)
}

// aclBlocks returns 1 if n has a block of attributes.
func aclBlocks(n *inode) uint64 {
	if n.acl() != 0 {
		return 1
	}
	return 0
}
