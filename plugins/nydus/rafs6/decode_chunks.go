package rafs6

import (
	"bytes"
	"slices"
)

// readChunks reads the chunk table (5.4).
func (l *loader) readChunks(off, size uint64) error {
	if size == 0 {
		return nil
	}
	p, err := l.table(off, size, chunkRecSize, blockSize, "chunk table")
	if err != nil {
		return err
	}
	var prev *chunk
	for k := 0; k < len(p)/chunkRecSize; k++ {
		at := int64(off) + int64(chunkRecSize*k)
		c, n := l.t.chunks.next()
		if err := l.readChunk(c, p[chunkRecSize*k:], at); err != nil {
			l.t.chunks.drop()
			if err = l.rule(err); err != nil {
				return err
			}
			continue
		}
		if prev != nil && (bytes.Compare(prev.digest[:], c.digest[:]) > 0 || prev.digest == c.digest && prev.blob >= c.blob) {
			l.note(badBoot(at, "chunk table entry", "out of order or repeated", "sorted by digest and blob"))
		}
		prev = c
		l.keys = append(l.keys, uint64(c.blob)<<56|uint64(c.index)<<32|uint64(uint32(n)))
	}
	if !l.dealKeys() {
		slices.Sort(l.keys)
	}
	for k := 1; k < len(l.keys); k++ {
		if l.keys[k]>>32 == l.keys[k-1]>>32 {
			c := l.t.chunks.at(int32(uint32(l.keys[k])))
			if err := l.rule(badBoot(int64(off), "chunk table", "two entries for chunk "+udec(c.index)+" of blob "+udec(c.blob), "one")); err != nil {
				return err
			}
		}
	}
	return nil
}

// dealKeys sorts the keys of a layer, whose one blob has chunks 0 to n-1: each key knows its place.
func (l *loader) dealKeys() bool {
	out := make([]uint64, len(l.keys))
	for _, k := range l.keys {
		index := k >> 32
		if index >= uint64(len(out)) || out[index] != 0 {
			return false
		}
		out[index] = k + 1 // not 0
	}
	for k := range out {
		out[k]--
	}
	l.keys = out
	return true
}

// readChunk reads one entry into c, which is zero.
func (l *loader) readChunk(c *chunk, p []byte, at int64) error {
	p = p[:chunkRecSize]
	copy(c.digest[:], p)
	c.flags, c.stored, c.raw = le.Uint32(p[36:]), le.Uint32(p[40:]), le.Uint32(p[44:])
	c.offset, c.expanded, c.inode = le.Uint64(p[48:]), le.Uint64(p[56:]), le.Uint64(p[64:])
	c.index, c.crc = le.Uint32(p[72:]), le.Uint32(p[76:])
	blob := le.Uint32(p[32:])
	if blob >= uint32(len(l.t.blobs)) {
		return badBoot(at+32, "chunk's blob", udec(blob), "less than "+dec(len(l.t.blobs)))
	}
	c.blob = uint16(blob)
	b := &l.t.blobs[c.blob]
	data := b.dataSize()
	if c.flags&^(chunkCompressed|chunkHasCRC) == 0 && c.raw > 0 && c.raw <= l.t.chunkSize && c.stored > 0 && c.stored <= c.raw &&
		(c.flags&chunkCompressed != 0) == (c.stored < c.raw) && c.offset <= data && uint64(c.stored) <= data-c.offset &&
		c.expanded%blockSize == 0 && c.expanded <= b.UncompressedSize &&
		roundup(uint64(c.raw), blockSize) <= b.UncompressedSize-c.expanded && c.index < b.ChunkCount {
		return nil
	}
	return l.chunkRule(c, b, data, at)
}

// chunkRule says which rule a chunk table entry breaks.
func (l *loader) chunkRule(c *chunk, b *Blob, data uint64, at int64) error {
	for _, r := range [...]struct {
		ok        bool
		off       int64
		name      string
		got, want string
	}{
		{c.flags&^(chunkCompressed|chunkHasCRC) == 0, 36, "flags", hex(c.flags), "no bits but 0x11"},
		{c.raw > 0 && c.raw <= l.t.chunkSize, 44, "uncompressed size", udec(c.raw), "1 … " + udec(l.t.chunkSize)},
		{c.stored > 0 && c.stored <= c.raw, 40, "compressed size", udec(c.stored), "1 … " + udec(c.raw)},
		{(c.flags&chunkCompressed != 0) == (c.stored < c.raw), 36, "compressed flag", hex(c.flags), "set exactly when smaller"},
		{c.offset <= data && uint64(c.stored) <= data-c.offset, 48, "position in the blob", udec(c.offset), "its bytes before " + udec(data)},
		{c.expanded%blockSize == 0 && c.expanded <= b.UncompressedSize && roundup(uint64(c.raw), blockSize) <= b.UncompressedSize-c.expanded,
			56, "position in the expansion", udec(c.expanded), "a multiple of 4096, its bytes before " + udec(b.UncompressedSize)},
		{c.index < b.ChunkCount, 72, "index", udec(c.index), "less than " + udec(b.ChunkCount)},
	} {
		if !r.ok {
			return badBoot(at+r.off, "chunk's "+r.name, r.got, r.want)
		}
	}
	return badBoot(at, "chunk table entry", "", "")
}

// findChunk returns the number of chunk index of blob in the chunk table.
func (l *loader) findChunk(blob uint8, index uint32) (uint32, bool) {
	key := uint64(blob)<<56 | uint64(index)<<32
	k := int(index) // where it is in a layer
	if k >= len(l.keys) || l.keys[k]>>32 != key>>32 {
		k, _ = slices.BinarySearch(l.keys, key)
	}
	if k == len(l.keys) || l.keys[k]>>32 != key>>32 {
		return 0, false
	}
	return uint32(l.keys[k]), true
}

// readRefs reads the chunk array of a regular file (4.2) and enters it.
func (l *loader) readRefs(i *inode, pos int64) error {
	n := chunkCount(i.size, l.t.chunkSize)
	if n > int64(len(l.data))/8 {
		return badBoot(pos, "i_size", dec(i.size), "one chunk index in the file for each chunk")
	}
	pos = roundup(pos, 8)
	p, err := l.bytes(pos, 8*n, "chunk indexes")
	if err != nil {
		return err
	}
	if err := l.spend(8*n, pos); err != nil {
		return err
	}
	i.data, i.count = uint32(l.t.refs.n), uint32(n)
	for k := int64(0); k < n; k++ {
		q, at := p[8*k:], pos+8*k
		blob, index := q[2], uint32(le.Uint16(q))|uint32(q[3])<<16
		if blob == 0 || int(blob) > len(l.t.blobs) {
			return badBoot(at+2, "blob of a chunk index", udec(uint32(blob)), "1 … "+dec(len(l.t.blobs)))
		}
		if count := l.t.blobs[blob-1].ChunkCount; index >= count {
			return badBoot(at, "chunk index", udec(index), "less than the blob's "+udec(count)+" chunks")
		}
		c, ok := l.findChunk(blob-1, index)
		if !ok {
			if l.t.chunks.n == 0 {
				return unsupported(formatBoot, extOff+32, "bootstrap without chunk table")
			}
			return badBoot(at, "chunk index", udec(index)+" of blob "+dec(int(blob)-1), "an entry in the chunk table")
		}
		v := l.t.chunks.at(int32(c))
		if e := uint64(le.Uint32(q[4:])) * blockSize; e != v.expanded {
			return badBoot(at+4, "block of a chunk index", udec(e/blockSize), udec(v.expanded/blockSize)+" as in the chunk table")
		}
		if want := chunkLen(i.size, k, l.t.chunkSize); v.raw != want {
			return badBoot(at, "chunk "+dec(k)+" of a file of "+dec(i.size)+" bytes", udec(v.raw)+" bytes", udec(want))
		}
		l.t.refs.add(c)
	}
	return nil
}
