package rafs6

import (
	"bytes"
	"cmp"
	"math/bits"
	"slices"

	"github.com/convhost/convhost/abi"
)

// plan fixes every address of a bootstrap before its first byte is written (1.4, 2.4).
type plan struct {
	blobTable, prefetch, meta, end uint64 // end: first byte behind the inodes
	chunkTable, size               uint64
	pieces                         []uint64 // what lies where: (offset-meta)/32 << 32 | node << 1 | is data of a directory or symlink
	records                        []uint32 // chunk table: chunk numbers in order
}

// placer holds the state of the placement algorithm (2.4). Offsets count from the start of the metadata.
type placer struct {
	off   uint64
	avail [blockSize / 32][]uint64 // block starts by free 32-byte units at the block's end, first in first out
	some  [2]uint64                // bit per non-empty queue
}

// leave remembers that the block of o is free behind o.
func (p *placer) leave(o uint64) {
	if o%blockSize != 0 {
		k := (blockSize - o%blockSize) / 32
		p.avail[k] = append(p.avail[k], o/blockSize*blockSize)
		p.some[k/64] |= 1 << (k % 64)
	}
}

// reuse finds room for size bytes at the end of an earlier block; 0 if there is none.
func (p *placer) reuse(size uint64) uint64 {
	if size >= blockSize {
		return 0
	}
	lo := (size + 31) / 32
	for k := lo; k < blockSize/32; {
		word := p.some[k/64] >> (k % 64)
		if word == 0 {
			k = (k/64 + 1) * 64
			continue
		}
		k += uint64(bits.TrailingZeros64(word))
		b := p.avail[k][0]
		if p.avail[k] = p.avail[k][1:]; len(p.avail[k]) == 0 {
			p.avail[k] = nil
			p.some[k/64] &^= 1 << (k % 64)
		}
		o := b + blockSize - k*32
		p.leave(o + lo*32)
		return o
	}
	return 0
}

func (p *placer) align(to uint64) { p.off = roundup(p.off, to) }

// place gives inode i of a size its position: isz bytes of inode and attributes, then data of d bytes.
func (p *placer) place(i *inode, isz uint64) {
	d := uint64(i.size)
	var o uint64
	switch i.mode & modeType {
	case modeReg:
		total := roundup(isz, 8) + 8*uint64(i.count)
		if o = p.reuse(total); o == 0 {
			o = p.off
			p.off += total
		}
		i.layout = layoutChunk
	case modeDir, modeLink:
		o = p.placeData(i, isz, d)
	default:
		o = p.off
		p.off += isz
		i.layout = layoutPlain
	}
	p.align(32)
	i.nid = uint32(o / 32)
}

func (p *placer) placeData(i *inode, isz, d uint64) uint64 {
	tail := d % blockSize
	if i.mode&modeType == modeLink && d > blockSize {
		tail = 0
	}
	if tail == 0 || isz+tail > blockSize {
		o := p.reuse(isz)
		if o == 0 {
			o = p.off
			p.off += isz
		}
		p.leave(p.off)
		p.align(blockSize)
		i.blk, i.layout = uint32(p.off/blockSize), layoutPlain
		p.off += d
		p.align(blockSize)
		return o
	}
	o := p.reuse(isz + tail)
	if o == 0 {
		if blockSize-p.off%blockSize < isz+tail {
			p.leave(p.off)
			p.align(blockSize)
		}
		o = p.off
		p.off += isz + tail
	}
	if d != tail {
		p.leave(p.off)
		p.align(blockSize)
	}
	i.blk, i.layout = uint32(p.off/blockSize), layoutInline
	p.off += d - tail
	return o
}

// inodeBytes is the size of the inode structure with attributes.
func (i *inode) bytes() uint64 {
	if i.xattrLen == 0 {
		return inodeSize
	}
	return inodeSize + xattrHeader + uint64(i.xattrLen)
}

// layout plans the bootstrap of a sealed tree.
func (t *Tree) layout() (*plan, error) {
	if len(t.blobs) > MaxBlobs {
		return nil, fail(abi.ErrLimit, formatTree, -1, "data blobs", dec(len(t.blobs)), "at most "+dec(MaxBlobs))
	}
	p := &plan{blobTable: roundup(uint64(slotOff+slotSize*len(t.blobs)), blockSize)}
	end := p.blobTable + blobSize*uint64(len(t.blobs))
	if len(t.blobs) > 0 {
		if len(t.prefetch) > 0 {
			p.prefetch = end
			end += 4 * uint64(len(t.prefetch))
		}
		p.meta = roundup(end, blockSize)
	}
	var err error
	if p.records, err = t.chunkRecords(); err != nil {
		return nil, err
	}
	if p.end, p.pieces, err = t.placeAll(); err != nil {
		return nil, err
	}
	p.end += p.meta
	p.chunkTable = roundup(p.end, blockSize)
	p.size = roundup(p.chunkTable+chunkRecSize*uint64(len(p.records)), blockSize)
	return p, nil
}

// placeAll places every inode and lists the pieces in the order of their offsets.
func (t *Tree) placeAll() (end uint64, pieces []uint64, err error) {
	for i := int32(0); i < t.inodes.n; i++ {
		t.inodes.at(i).nid = 0
	}
	p := &placer{off: rootOff}
	var l pieceList
	l.rising = make([]uint64, 0, len(t.order)+1)
	put := func(n int32) {
		i := t.inodeOf(n)
		if i.nid != 0 {
			return // another name of a file that has its place
		}
		p.place(i, i.bytes())
		l.add(uint64(i.nid)<<32 | uint64(n)<<1)
		if full := i.size - i.size%blockSize; i.layout == layoutInline && full > 0 || i.layout == layoutPlain && i.size > 0 {
			l.add(uint64(i.blk)*(blockSize/32)<<32 | uint64(n)<<1 | 1)
		}
	}
	var names listing
	for _, d := range t.dirs {
		i := t.inodeOf(d)
		i.size = t.direntsSize(&names, d)
		put(d)
		for _, k := range t.children(i) {
			if !t.inodeOf(k).isDir() {
				put(k)
			}
		}
		if p.off >= 32<<32 {
			return 0, nil, fail(abi.ErrLimit, formatTree, -1, "metadata", udec(p.off)+" bytes", "less than 128 GiB")
		}
	}
	return p.off, l.sorted(), nil
}

// pieceList collects the pieces of a plan. Nearly all come in order; those that fill the end of an earlier block do not.
type pieceList struct{ rising, others []uint64 }

func (l *pieceList) add(piece uint64) {
	if k := len(l.rising); k > 0 && piece < l.rising[k-1] {
		l.others = append(l.others, piece)
	} else {
		l.rising = append(l.rising, piece)
	}
}

// sorted returns all pieces in order.
func (l *pieceList) sorted() []uint64 {
	slices.Sort(l.others)
	a, b := len(l.rising)-1, len(l.others)-1
	l.rising = append(l.rising, l.others...)
	for k := len(l.rising) - 1; b >= 0; k-- {
		if a >= 0 && l.rising[a] > l.others[b] {
			l.rising[k] = l.rising[a]
			a--
		} else {
			l.rising[k] = l.others[b]
			b--
		}
	}
	return l.rising
}

// chunkRecords lists the chunks in use in the order of the chunk table: by digest, then blob (5.4). The offset in the
// file is that of the last use in the walk.
func (t *Tree) chunkRecords() ([]uint32, error) {
	for i := int32(0); i < t.chunks.n; i++ {
		t.chunks.at(i).used = false
	}
	var recs []chunkKey
	for _, n := range t.order {
		i := t.inodeOf(n)
		if !i.isReg() {
			continue
		}
		for k := range i.count {
			c := *t.refs.at(int32(i.data + k))
			v := t.chunks.at(int32(c))
			v.inode = uint64(k) * uint64(t.chunkSize)
			if !v.used {
				v.used = true
				recs = append(recs, chunkKey{be64(v.digest[:]), c})
			}
		}
	}
	recs = t.sortRecords(recs)
	out := make([]uint32, len(recs))
	for k, r := range recs {
		out[k] = r.n
		if k == 0 {
			continue
		}
		x, y := t.chunks.at(int32(recs[k-1].n)), t.chunks.at(int32(r.n))
		if x.digest == y.digest && x.blob == y.blob {
			return nil, fail(abi.ErrCorrupt, formatTree, -1, "chunks "+udec(x.index)+" and "+udec(y.index)+" of one blob", "equal digests", "one chunk a digest")
		}
	}
	return out, nil
}

// chunkKey is a chunk number with the start of the chunk's digest.
type chunkKey struct {
	key uint64
	n   uint32
}

// sortRecords sorts chunks for the chunk table. Digests are spread evenly, so dealing them out by their first bits leaves almost
// nothing to do; digests that are not, in a bootstrap from elsewhere, make it an ordinary sort.
func (t *Tree) sortRecords(recs []chunkKey) []chunkKey {
	width := bits.Len(uint(len(recs)) / 2)
	shift := 64 - width
	starts := make([]int32, 1<<width+1)
	for k := range recs {
		starts[recs[k].key>>shift+1]++
	}
	for k := range 1 << width {
		starts[k+1] += starts[k]
	}
	out := make([]chunkKey, len(recs))
	for k := range recs {
		p := &starts[recs[k].key>>shift]
		out[*p] = recs[k]
		*p++
	}
	for first := 0; first < len(out); {
		end := int(starts[out[first].key>>shift]) // by now where the next group starts
		t.sortGroup(out[first:end])
		first = end
	}
	return out
}

func (t *Tree) sortGroup(g []chunkKey) {
	if len(g) > 16 {
		slices.SortFunc(g, t.compareRecords)
		return
	}
	for j := 1; j < len(g); j++ {
		for k := j; k > 0 && (g[k].key < g[k-1].key || g[k].key == g[k-1].key && t.compareRecords(g[k], g[k-1]) < 0); k-- {
			g[k], g[k-1] = g[k-1], g[k]
		}
	}
}

func (t *Tree) compareRecords(a, b chunkKey) int {
	if a.key != b.key {
		return cmp.Compare(a.key, b.key)
	}
	x, y := t.chunks.at(int32(a.n)), t.chunks.at(int32(b.n))
	return cmp.Or(bytes.Compare(x.digest[:], y.digest[:]), cmp.Compare(x.blob, y.blob), cmp.Compare(a.n, b.n))
}

func be64(p []byte) uint64 {
	_ = p[7]
	return uint64(p[0])<<56 | uint64(p[1])<<48 | uint64(p[2])<<40 | uint64(p[3])<<32 |
		uint64(p[4])<<24 | uint64(p[5])<<16 | uint64(p[6])<<8 | uint64(p[7])
}
