package rafs6

import (
	"github.com/convhost/convhost/abi"
)

// Open reads a bootstrap completely and checks everything a reader depends on: superblock, tables, every inode, every
// directory entry, every chunk reference. data is not kept.
//
// ErrCorrupt and ErrTruncated say where which rule is broken; ErrUnsupported starts with "not supported yet" and
// names the feature; ErrLimit is a tree deeper than MaxDepth or larger than its image can be. Memory is bounded by the size of data.
func Open(data []byte) (*Tree, error) {
	l := &loader{data: data, strict: true}
	if err := l.load(); err != nil {
		return nil, err
	}
	l.t.seal()
	return l.t, nil
}

// Check reads a bootstrap like Open but goes on behind a broken rule where that makes sense, and also checks what
// no reader depends on (counts, order of tables, mapped addresses). It returns every violation, at most 1000, and nil
// for a bootstrap that is right.
func Check(data []byte) []error {
	l := &loader{data: data}
	if err := l.load(); err != nil {
		l.errs = append(l.errs, err)
	}
	return l.errs
}

// loader turns bytes into a tree that is not sealed. Every number it reads is a claim.
type loader struct {
	data   []byte
	t      *Tree
	strict bool // stop at the first violation
	errs   []error
	budget int64 // bytes of data not yet accounted for; no image needs a byte twice

	meta     int64 // start of the metadata
	rootNid  uint32
	inos     uint64
	keys     []uint64 // blob<<56 | chunk index<<32 | number in the chunk table, sorted
	dirs     map[uint32]bool
	links    map[uint32]int32 // nid -> inode of files with several names
	prefetch []uint32
	first    map[uint32]int32 // nids of the prefetch table -> node
	unnamed  int              // how many of them have none yet
}

// rule reports a broken rule behind which reading can go on.
func (l *loader) rule(err error) error {
	if l.strict {
		return err
	}
	if len(l.errs) < maxErrors {
		l.errs = append(l.errs, err)
	}
	return nil
}

// note reports a broken rule that only Check cares for.
func (l *loader) note(err error) {
	if !l.strict {
		_ = l.rule(err)
	}
}

// bytes returns n bytes at off, or an error naming what they should be.
func (l *loader) bytes(off, n int64, what string) ([]byte, error) {
	if off < 0 || n < 0 || off > int64(len(l.data)) || n > int64(len(l.data))-off {
		return nil, fail(abi.ErrTruncated, formatBoot, off, what, dec(n)+" bytes", "within the file of "+dec(len(l.data)))
	}
	return l.data[off : off+n : off+n], nil
}

func (l *loader) spend(n, off int64) error {
	if l.budget -= n; l.budget < 0 {
		return badBoot(off, "inodes and directories", "larger together than the file", "bytes used once")
	}
	return nil
}

func (l *loader) load() error {
	l.budget = int64(len(l.data))
	x, err := l.superblock()
	if err != nil {
		return err
	}
	if err := l.tables(x); err != nil {
		return err
	}
	if err := l.tree(); err != nil {
		return err
	}
	l.t.sorted = l.t.nodes.n // what is out of order was refused
	return l.finish()
}

// superblock checks the EROFS superblock (1.1) and returns the RAFS superblock.
func (l *loader) superblock() ([]byte, error) {
	n := len(l.data)
	if n < blockSize {
		return nil, fail(abi.ErrTruncated, formatBoot, int64(n), "file", dec(n)+" bytes", "at least 4096")
	}
	s := l.data[sbOff:]
	if v := le.Uint32(s); v != erofsMagic {
		return nil, badBoot(sbOff, "magic", hex(v), hex(uint32(erofsMagic)))
	}
	if s[12] == 9 {
		return nil, unsupported(formatBoot, sbOff+12, "tarfs (blocks of 512 bytes)")
	}
	for _, f := range [...]struct {
		off       int64
		name      string
		got, want uint64
	}{
		{4, "checksum", uint64(le.Uint32(s[4:])), 0},
		{8, "feature_compat bit 30", uint64(le.Uint32(s[8:]) & compatRafs), compatRafs},
		{12, "blkszbits", uint64(s[12]), blockBits},
		{13, "sb_extslots", uint64(s[13]), 0},
		{44, "xattr_blkaddr", uint64(le.Uint32(s[44:])), 0},
		{80, "feature_incompat", uint64(le.Uint32(s[80:])), incompat},
		{84, "compression configuration", uint64(le.Uint16(s[84:])), 0},
		{88, "devt_slotoff", uint64(le.Uint16(s[88:])), slotOff / slotSize},
	} {
		if f.got != f.want {
			return nil, badBoot(sbOff+f.off, f.name, hex(f.got), hex(f.want))
		}
	}
	if n%blockSize != 0 {
		return nil, fail(abi.ErrTruncated, formatBoot, int64(n), "file", dec(n)+" bytes", "a multiple of 4096")
	}
	l.inos, l.rootNid = le.Uint64(s[16:]), uint32(le.Uint16(s[14:]))
	if l.inos == 0 || l.rootNid == 0 {
		return nil, badBoot(sbOff+14, "root nid, inodes", udec(l.rootNid)+", "+udec(l.inos), "not 0")
	}
	l.meta = int64(le.Uint32(s[40:])) * blockSize
	if l.meta >= int64(n) {
		return nil, fail(abi.ErrTruncated, formatBoot, sbOff+40, "meta_blkaddr", udec(le.Uint32(s[40:])), "within the file")
	}
	return l.data[extOff:slotOff], nil
}

// tables reads the RAFS superblock x (1.2), blobs, chunks and prefetch table.
func (l *loader) tables(x []byte) error {
	flags := le.Uint64(x)
	if flags&^flagsKnown != 0 {
		return badBoot(extOff, "flags", hex(flags), "no bits but "+hex(uint64(flagsKnown)))
	}
	if flags&flagTarfs != 0 {
		return unsupported(formatBoot, extOff, "tarfs")
	}
	if flags&flagEncryptAES != 0 {
		return unsupported(formatBoot, extOff, "encrypted image")
	}
	if !isPow2(uint32(flags&flagsCompressor)) || !isPow2(uint32(flags&flagsDigest)) {
		return badBoot(extOff, "flags", hex(flags), "one compressor and one digest bit")
	}
	size := le.Uint32(x[20:])
	if !chunkSizeOK(size) {
		return badBoot(extOff+20, "chunk_size", udec(size), "a power of two from 4096 to 16777216")
	}
	l.t = newTree(size)
	l.t.flags = uint32(flags)
	if err := l.readBlobs(le.Uint64(x[8:]), le.Uint32(x[16:])); err != nil {
		return err
	}
	if err := l.readChunks(le.Uint64(x[24:]), le.Uint64(x[32:])); err != nil {
		return err
	}
	off, n := le.Uint64(x[40:]), int64(le.Uint32(x[48:]))
	if n == 0 || off == 0 {
		return nil
	}
	p, err := l.table(off, uint64(n), 4, 8, "prefetch table")
	for ; len(p) >= 4 && le.Uint32(p) != 0; p = p[4:] {
		l.prefetch = append(l.prefetch, le.Uint32(p))
	}
	return err
}

// table returns a table of size bytes at off after the common checks of the RAFS superblock.
func (l *loader) table(off, size, entry, align uint64, what string) ([]byte, error) {
	if off < blockSize || off%align != 0 || size%entry != 0 || off > uint64(len(l.data)) {
		return nil, badBoot(extOff, what, udec(size)+" bytes at "+hex(off), "entries of "+udec(entry)+" bytes at a multiple of "+udec(align)+" in the file")
	}
	if size > uint64(len(l.data))-off {
		return nil, fail(abi.ErrTruncated, formatBoot, int64(off), what, udec(size)+" bytes", "within the file of "+dec(len(l.data)))
	}
	return l.data[off : off+size], nil
}

func (l *loader) readBlobs(off uint64, size uint32) error {
	p, err := l.table(off, uint64(size), blobSize, blockSize, "blob table")
	if err != nil {
		return err
	}
	n := len(p) / blobSize
	if extra := int(le.Uint16(l.data[sbOff+86:])); n != extra || n > MaxBlobs {
		return badBoot(sbOff+86, "extra_devices", dec(extra), "the number of blobs, "+dec(n)+", at most 254")
	}
	if slots := int64(slotOff + slotSize*n); slots > int64(off) {
		return badBoot(slotOff, "device slots", dec(n), "room before the blob table")
	}
	inlined := 0
	end := uint64(len(l.data))
	for k := range n {
		at := int64(off) + int64(blobSize*k)
		b, err := l.readBlob(p[blobSize*k:], k, at)
		if err != nil {
			return err
		}
		if b.Features&FeatInlinedMeta != 0 {
			inlined++
		}
		l.t.blobs = append(l.t.blobs, *b)
		if end, err = l.readSlot(b, k, end); err != nil {
			return err
		}
	}
	if inlined > 0 && n > 1 {
		return unsupported(formatBoot, int64(off), "layer with a chunk dictionary")
	}
	return nil
}

// readBlob reads a blob table entry (5.2) and checks it as upstream's loader does.
func (l *loader) readBlob(v []byte, k int, at int64) (*Blob, error) {
	u32 := func(o int) uint32 { return le.Uint32(v[o:]) }
	u64 := func(o int) uint64 { return le.Uint64(v[o:]) }
	b := &Blob{ChunkCount: u32(72), Features: u32(84), CompressedSize: u64(88), UncompressedSize: u64(96), TocSize: u32(104),
		MetaOffset: u64(112), MetaStored: u64(120), MetaSize: u64(128)}
	copy(b.TocDigest[:], v[136:168])
	if what := unsupportedFeature(b.Features); what != "" {
		return nil, unsupported(formatBoot, at+84, what)
	}
	id := v[:64]
	for len(id) > 0 && id[len(id)-1] == 0 {
		id = id[:len(id)-1]
	}
	b.ID = string(id)
	known := uint32(FeatAligned | FeatInlinedMeta | FeatInlinedDigest | FeatTarHeader | FeatToc | FeatCapTarToc)
	var ok1, ok2, ok3 bool
	b.Codec, ok1 = codecOf(u32(76))
	b.Digest, ok2 = digestOf(u32(80))
	b.MetaCodec, ok3 = codecOf(u32(108))
	for _, r := range [...]struct {
		ok        bool
		off       int64
		name      string
		got, want string
	}{
		{textOK(id), 0, "blob id", quote(b.ID), "1 … 64 printable characters"},
		{u32(64) == uint32(k), 64, "blob index", udec(u32(64)), dec(k)},
		{u32(68) == l.t.chunkSize, 68, "blob chunk_size", udec(u32(68)), udec(l.t.chunkSize)},
		{b.ChunkCount > 0 && b.ChunkCount <= MaxChunks, 72, "chunk count", udec(b.ChunkCount), "1 … 16777216"},
		{ok1, 76, "compressor", udec(u32(76)), "0 … 3"},
		{ok2, 80, "digester", udec(u32(80)), "0 or 1"},
		{b.Features&^known == 0, 84, "features", hex(b.Features), "no unknown bits"},
		{b.Features&FeatAligned != 0, 84, "features", hex(b.Features), "bit 0 (aligned) set"},
		{b.CompressedSize <= maxCompressed, 88, "compressed size", udec(b.CompressedSize), "at most 2^40"},
		{b.UncompressedSize <= maxExpanded && b.UncompressedSize%blockSize == 0, 96, "uncompressed size", udec(b.UncompressedSize), "a multiple of 4096, at most 2^44"},
		{ok3, 108, "compressor of chunk info", udec(u32(108)), "0 … 3"},
		{b.MetaOffset <= maxCompressed, 112, "position of chunk info", udec(b.MetaOffset), "at most 2^40"},
		{b.MetaStored <= b.MetaSize, 120, "stored chunk info", udec(b.MetaStored), "at most " + udec(b.MetaSize)},
		{b.MetaSize == chunkInfoSize*uint64(b.ChunkCount), 128, "size of chunk info", udec(b.MetaSize), "16 bytes a chunk"},
		{u32(216) == 0, 216, "cipher", udec(u32(216)), "0"},
	} {
		if !r.ok {
			return nil, badBoot(at+r.off, r.name, r.got, r.want)
		}
	}
	for j := range l.t.blobs {
		if l.t.blobs[j].ID == b.ID {
			return nil, badBoot(at, "blob id", quote(b.ID), "different in each entry")
		}
	}
	return b, nil
}

func textOK(p []byte) bool {
	for _, c := range p {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(p) > 0
}

// readSlot compares device slot k with its blob. end is where what is mapped before it ends; the new end comes back.
func (l *loader) readSlot(b *Blob, k int, end uint64) (uint64, error) {
	at := int64(slotOff + slotSize*k)
	s := l.data[at : at+slotSize]
	id := s[:64]
	for len(id) > 0 && id[len(id)-1] == 0 {
		id = id[:len(id)-1]
	}
	blocks, mapped := le.Uint32(s[64:]), le.Uint32(s[68:])
	if string(id) != b.ID {
		if err := l.rule(badBoot(at, "device slot's blob id", quote(string(id)), quote(b.ID))); err != nil {
			return 0, err
		}
	}
	if blocks == 0 || uint64(blocks) != b.UncompressedSize/blockSize {
		if err := l.rule(badBoot(at+64, "device slot's blocks", udec(blocks), udec(b.UncompressedSize/blockSize)+", not 0")); err != nil {
			return 0, err
		}
	}
	if mapped != 0 && uint64(mapped)*blockSize < end {
		l.note(badBoot(at+68, "mapped_blkaddr", udec(mapped), "0, or at least "+udec(end/blockSize)))
	}
	return max(end, (uint64(mapped)+uint64(blocks))*blockSize), nil
}
