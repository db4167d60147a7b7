package rafs6

import (
	"io"
	"math"
	"math/bits"
	"slices"

	"github.com/convhost/convhost/abi"
)

// emitter writes forward and knows where it is.
type emitter struct {
	w   io.Writer
	buf []byte
	pos uint64 // of the first byte in buf
	err error
}

const emitBuffer = 64 << 10

func (e *emitter) at() uint64 { return e.pos + uint64(len(e.buf)) }

func (e *emitter) flush() {
	if e.err == nil && len(e.buf) > 0 {
		_, e.err = e.w.Write(e.buf)
	}
	e.pos += uint64(len(e.buf))
	e.buf = e.buf[:0]
}

// seek fills with zeros up to the planned offset off.
func (e *emitter) seek(off uint64) {
	if off < e.at() && e.err == nil {
		e.err = abi.Errorf(abi.ErrInternal, "rafs v6 bootstrap: planned offset %#x lies before %#x", off, e.at())
	}
	for e.err == nil && e.at() < off {
		n := min(off-e.at(), blockSize)
		e.buf = append(e.buf, zeros[:n]...)
		e.spill()
	}
}

func (e *emitter) spill() {
	if len(e.buf) >= emitBuffer {
		e.flush()
	}
}

func (e *emitter) write(p []byte) {
	e.buf = append(e.buf, p...)
	e.spill()
}

var zeros [blockSize]byte

// Bootstrap is a tree whose inodes, directories and tables have their places. The tree must not change any more.
type Bootstrap struct {
	t *Tree
	p *plan
}

// Layout places everything. ErrLimit says that the image does not fit into the format.
func (t *Tree) Layout() (*Bootstrap, error) {
	p, err := t.layout()
	if err != nil {
		return nil, err
	}
	return &Bootstrap{t, p}, nil
}

// Size returns the size of the bootstrap in bytes, a multiple of 4096.
func (b *Bootstrap) Size() int64 { return int64(b.p.size) }

// WriteTo writes the bootstrap to w, forward. The same tree gives the same bytes. Errors of w come back as they are.
func (b *Bootstrap) WriteTo(w io.Writer) (int64, error) {
	return b.t.emit(w, b.p)
}

// WriteBootstrap lays t out and writes its bootstrap to w.
func (t *Tree) WriteBootstrap(w io.Writer) (int64, error) {
	b, err := t.Layout()
	if err != nil {
		return 0, err
	}
	return b.WriteTo(w)
}

func (t *Tree) emit(w io.Writer, p *plan) (int64, error) {
	e := &emitter{w: w, buf: make([]byte, 0, emitBuffer+blockSize)}
	t.emitHead(e, p)
	t.emitInodes(e, p)
	e.seek(p.chunkTable)
	for _, n := range p.records {
		e.buf = appendChunkRecord(e.buf, t.chunks.at(int32(n)))
		e.spill()
	}
	e.seek(p.size)
	e.flush()
	return int64(e.pos), e.err
}

// Bootstrap returns what WriteBootstrap writes.
func (t *Tree) Bootstrap() ([]byte, error) {
	p, err := t.layout()
	if err != nil {
		return nil, err
	}
	if p.size > math.MaxInt32 {
		return nil, fail(abi.ErrLimit, formatTree, -1, "bootstrap", udec(p.size)+" bytes", "less than 2 GiB in memory")
	}
	b := make(sliceWriter, 0, p.size)
	if _, err := t.emit(&b, p); err != nil {
		return nil, err
	}
	return b, nil
}

type sliceWriter []byte

func (s *sliceWriter) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// emitHead writes superblock, device slots, blob table and prefetch table.
func (t *Tree) emitHead(e *emitter, p *plan) {
	var total uint64
	for i := range t.blobs {
		total += t.blobs[i].UncompressedSize / blockSize
	}
	h := make([]byte, slotOff)
	sb := h[sbOff:]
	le.PutUint32(sb, erofsMagic)
	le.PutUint32(sb[8:], compatRafs)
	sb[12] = blockBits
	le.PutUint16(sb[14:], rootOff/32)
	le.PutUint64(sb[16:], uint64(len(t.order)+1))
	le.PutUint32(sb[36:], uint32(total))
	le.PutUint32(sb[40:], uint32(p.meta/blockSize))
	le.PutUint32(sb[80:], incompat)
	le.PutUint16(sb[86:], uint16(len(t.blobs)))
	le.PutUint16(sb[88:], slotOff/slotSize)
	x := h[extOff:]
	le.PutUint64(x, uint64(t.flags))
	le.PutUint64(x[8:], p.blobTable)
	le.PutUint32(x[16:], uint32(blobSize*len(t.blobs)))
	le.PutUint32(x[20:], t.chunkSize)
	le.PutUint64(x[24:], p.chunkTable)
	le.PutUint64(x[32:], uint64(chunkRecSize*len(p.records)))
	if p.prefetch != 0 {
		le.PutUint64(x[40:], p.prefetch)
		le.PutUint32(x[48:], uint32(4*len(t.prefetch)))
	}
	e.write(h)
	pos := p.size
	for i := range t.blobs {
		m, cnt := roundup(pos, mapAlign)/blockSize, t.blobs[i].UncompressedSize/blockSize
		pos = (m + cnt) * blockSize
		var s [slotSize]byte
		copy(s[:64], t.blobs[i].ID)
		le.PutUint32(s[64:], uint32(cnt))
		le.PutUint32(s[68:], uint32(m))
		e.write(s[:])
	}
	e.seek(p.blobTable)
	for i := range t.blobs {
		e.buf = t.blobs[i].append(e.buf, i, t.chunkSize)
		e.spill()
	}
	if p.prefetch != 0 {
		for _, n := range t.prefetch {
			e.buf = le.AppendUint32(e.buf, t.inodeOf(n).nid)
		}
	}
}

// append encodes the blob table entry (5.2).
func (b *Blob) append(dst []byte, index int, chunkSize uint32) []byte {
	var v [blobSize]byte
	copy(v[:64], b.ID)
	codec, _, _ := codecNumber(b.Codec)
	ci, _, _ := codecNumber(b.MetaCodec)
	digest, _, _ := digestNumber(b.Digest)
	for k, x := range [...]uint32{uint32(index), chunkSize, b.ChunkCount, codec, digest, b.Features} {
		le.PutUint32(v[64+4*k:], x)
	}
	le.PutUint64(v[88:], b.CompressedSize)
	le.PutUint64(v[96:], b.UncompressedSize)
	le.PutUint32(v[104:], b.TocSize)
	le.PutUint32(v[108:], ci)
	le.PutUint64(v[112:], b.MetaOffset)
	le.PutUint64(v[120:], b.MetaStored)
	le.PutUint64(v[128:], b.MetaSize)
	copy(v[136:168], b.TocDigest[:])
	return append(dst, v[:]...)
}

// appendChunkRecord encodes a chunk table entry (5.4).
func appendChunkRecord(dst []byte, c *chunk) []byte {
	dst = slices.Grow(dst, chunkRecSize)
	v := dst[len(dst) : len(dst)+chunkRecSize]
	*(*[32]byte)(v) = c.digest
	le.PutUint64(v[32:], uint64(c.blob)|uint64(c.flags)<<32)
	le.PutUint64(v[40:], uint64(c.stored)|uint64(c.raw)<<32)
	le.PutUint64(v[48:], c.offset)
	le.PutUint64(v[56:], c.expanded)
	le.PutUint64(v[64:], c.inode)
	le.PutUint64(v[72:], uint64(c.index)|uint64(c.crc)<<32)
	return dst[:len(dst)+chunkRecSize]
}

// emitInodes writes inodes, inline tails and the data of directories and symlinks in the order of their offsets.
func (t *Tree) emitInodes(e *emitter, p *plan) {
	var data []byte
	var l listing
	for _, piece := range p.pieces {
		n := int32(piece >> 1 & 0x7fffffff)
		i := t.inodeOf(n)
		data = data[:0]
		if i.isDir() {
			data = t.appendDirents(data, &l, n)
		} else if i.mode&modeType == modeLink {
			data = append(data, t.target(i)...)
		}
		tail := 0
		if i.layout == layoutInline {
			tail = len(data) % blockSize
		}
		e.seek(p.meta + piece>>32*32)
		if piece&1 != 0 {
			e.write(data[:len(data)-tail])
			continue
		}
		t.emitInode(e, p, i)
		e.write(data[len(data)-tail:])
	}
	e.seek(p.end)
}

func (t *Tree) emitInode(e *emitter, p *plan, i *inode) {
	xattrs := uint64(0)
	if i.xattrLen > 0 {
		xattrs = uint64(i.xattrLen/4 + 1)
	}
	u := i.rdev
	switch i.mode & modeType {
	case modeReg:
		u = t.chunkFormat(i)
	case modeDir, modeLink:
		u = i.blk + uint32(p.meta/blockSize)
	}
	e.buf = slices.Grow(e.buf, inodeSize)
	v := e.buf[len(e.buf) : len(e.buf)+inodeSize]
	le.PutUint64(v[0:], 1|uint64(i.layout)<<1|xattrs<<16|uint64(uint16(i.mode))<<32)
	le.PutUint64(v[8:], uint64(i.size))
	le.PutUint64(v[16:], uint64(u)|uint64(i.ino)<<32)
	le.PutUint64(v[24:], uint64(i.uid)|uint64(i.gid)<<32)
	le.PutUint64(v[32:], uint64(i.mtime))
	le.PutUint64(v[40:], uint64(i.mtimeNs)|uint64(i.nlink)<<32)
	le.PutUint64(v[48:], 0)
	le.PutUint64(v[56:], 0)
	e.buf = e.buf[:len(e.buf)+inodeSize]
	if i.xattrLen > 0 {
		e.buf = append(e.buf, zeros[:xattrHeader]...)
		e.write(t.text.get(i.xattr, int(i.xattrLen)))
	}
	if i.isReg() && i.count > 0 {
		e.seek(roundup(e.at(), 8))
		for k := range i.count {
			c := t.chunks.at(int32(*t.refs.at(int32(i.data + k))))
			e.buf = appendChunkIndex(e.buf, c)
			e.spill()
		}
	}
}

// appendChunkIndex encodes one element of a file's chunk array (4.2).
//
//	0 u16 chunk number in its blob, low bits   2 u8 blob number + 1   3 u8 chunk number, high bits   4 u32 block
func appendChunkIndex(dst []byte, c *chunk) []byte {
	dst = le.AppendUint16(dst, uint16(c.index))
	dst = append(dst, byte(c.blob+1), byte(c.index>>16))
	return le.AppendUint32(dst, uint32(c.expanded/blockSize))
}

// chunkFormat is i_u of a regular file (4.1): chunks that lie in a row are one large chunk for the kernel.
func (t *Tree) chunkFormat(i *inode) uint32 {
	shift := uint32(bits.TrailingZeros32(t.chunkSize)) - blockBits
	if i.size > int64(t.chunkSize) {
		row := true
		for k := uint32(1); k < i.count && row; k++ {
			a, b := t.chunks.at(int32(*t.refs.at(int32(i.data + k - 1)))), t.chunks.at(int32(*t.refs.at(int32(i.data + k))))
			row = a.blob == b.blob && a.expanded+uint64(t.chunkSize) == b.expanded
		}
		if big := uint32(bits.Len64(uint64(i.size-1))) - blockBits; row && big <= 31 {
			shift = big
		}
	}
	return 0x20 | shift
}
