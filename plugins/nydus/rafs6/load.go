package rafs6

import (
	"bytes"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
)

// tree reads all inodes and directories, breadth first.
func (l *loader) tree() error {
	l.dirs, l.links, l.first = map[uint32]bool{}, map[uint32]int32{}, map[uint32]int32{}
	for _, nid := range l.prefetch {
		l.first[nid] = -1
	}
	l.unnamed = len(l.first)
	ino, err := l.readInode(l.rootNid)
	if err != nil {
		return err
	}
	if i := l.t.inodes.at(ino); !i.isDir() {
		return badBoot(l.at(i.nid), "root inode's mode", "0o"+octalText(i.mode), "a directory")
	}
	r := l.t.nodes.at(root)
	r.inode, r.flags = ino, 0
	l.t.inodes.at(ino).nlink = 2
	l.dirs[l.rootNid] = true
	l.named(root)
	for n := root; n < l.t.nodes.n; n++ {
		if i := l.t.inodeOf(n); i.isDir() {
			l.t.nodes.at(n).flags |= nodeBare
			i.data = uint32(l.t.nodes.n)
			if err := l.readDir(n); err != nil {
				if err = l.rule(l.inEntry(err, n)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func octalText(v uint32) string {
	var p [11]byte
	octal(p[:], uint64(v))
	return strings.TrimLeft(string(p[:]), "0")
}

// inEntry adds the path of n to an error that has none.
func (l *loader) inEntry(err error, n int32) error {
	if f, ok := err.(*abi.FormatError); ok && f.Entry == "" {
		f.Entry = "/" + l.t.path(n)
	}
	return err
}

func (l *loader) at(nid uint32) int64 { return l.meta + int64(nid)*32 }

// named notes node n for the prefetch table.
func (l *loader) named(n int32) {
	if l.unnamed > 0 {
		nid := l.t.inodeOf(n).nid
		if v, ok := l.first[nid]; ok && v < 0 {
			l.first[nid] = n
			l.unnamed--
		}
	}
}

// readInode reads an inode of either form (2.1) with its attributes, link target and chunks. A file with several names is
// read once. The number of links an inode claims stays in blk until finish.
func (l *loader) readInode(nid uint32) (int32, error) {
	pos := l.at(nid)
	p, err := l.bytes(pos, compactSize, "inode")
	if err != nil {
		return 0, err
	}
	mode, links := uint32(le.Uint16(p[4:])), uint32(le.Uint16(p[6:]))
	if p[0]&1 != 0 {
		if p, err = l.bytes(pos, inodeSize, "inode"); err != nil {
			return 0, err
		}
		links = le.Uint32(p[44:])
	}
	shared := mode&modeType == modeReg && links > 1
	if shared {
		if n, ok := l.links[nid]; ok {
			return n, nil
		}
	}
	i, n := l.t.inodes.next()
	i.nid, i.mode, i.blk = nid, mode, links
	if err := l.fillInode(i, p, pos); err != nil {
		l.t.inodes.drop()
		return 0, err
	}
	if shared {
		l.links[nid] = n
	}
	return n, nil
}

// fillInode reads the rest of an inode of which p holds the fixed part.
func (l *loader) fillInode(i *inode, p []byte, pos int64) error {
	if err := l.spend(compactSize, pos); err != nil {
		return err
	}
	if len(p) == compactSize {
		i.size, i.uid, i.gid, i.ino = int64(le.Uint32(p[8:])), uint32(le.Uint16(p[24:])), uint32(le.Uint16(p[26:])), le.Uint32(p[20:])
	} else {
		i.size, i.uid, i.gid = int64(le.Uint64(p[8:])), le.Uint32(p[24:]), le.Uint32(p[28:])
		i.mtime, i.mtimeNs = int64(le.Uint64(p[32:])), le.Uint32(p[40:])
	}
	format := le.Uint16(p)
	i.layout = uint8(format >> 1 & 7)
	if format>>4 != 0 {
		return badBoot(pos, "i_format", hex(format), "no bits above 3")
	}
	if i.size < 0 {
		return badBoot(pos+8, "i_size", dec(i.size), "at most 2^63-1")
	}
	if i.mtimeNs > 999999999 {
		if err := l.rule(badBoot(pos+40, "i_mtime_nsec", udec(i.mtimeNs), "at most 999999999")); err != nil {
			return err
		}
	}
	end := pos + int64(len(p))
	ibody, err := l.readXattrs(i, le.Uint16(p[2:]), end)
	if err != nil {
		return err
	}
	return l.readData(i, le.Uint32(p[16:]), pos, end+ibody)
}

// readXattrs reads count words of attributes at pos and returns the bytes they take.
func (l *loader) readXattrs(i *inode, count uint16, pos int64) (int64, error) {
	if count == 0 {
		return 0, nil
	}
	n := xattrHeader + 4*(int64(count)-1)
	p, err := l.bytes(pos, n, "xattrs")
	if err != nil {
		return 0, err
	}
	if err := l.spend(n, pos); err != nil {
		return 0, err
	}
	if !bytes.Equal(p[:xattrHeader], zeros[:xattrHeader]) {
		return 0, unsupported(formatBoot, pos, "shared xattrs")
	}
	p = p[xattrHeader:]
	if at, what := checkXattrs(p); at >= 0 {
		return 0, badBoot(pos+xattrHeader+int64(at), what, "", "")
	}
	ref, ok := l.t.text.add(p)
	if !ok {
		return 0, errFull
	}
	i.xattr, i.xattrLen = ref, uint32(len(p))
	return n, nil
}

// readData reads what belongs to the inode's type. u is i_u, pos the inode, end the byte behind its attributes.
func (l *loader) readData(i *inode, u uint32, pos, end int64) error {
	switch i.mode & modeType {
	case modeReg:
		if i.layout != layoutChunk || u&0xffff&^0x3f != 0 || u&0x20 == 0 {
			return badBoot(pos, "layout, chunk format", udec(uint32(i.layout))+", "+hex(u), "4 (chunks), 0x20 … 0x3f")
		}
		if err := l.readRefs(i, end); err != nil {
			return err
		}
		if want := l.t.chunkFormat(i); u != want {
			l.note(badBoot(pos+16, "chunk format", hex(u), hex(want)))
		}
	case modeDir, modeLink:
		if i.layout != layoutPlain && i.layout != layoutInline {
			return badBoot(pos, "layout", udec(uint32(i.layout)), "0 or 2 (data in the bootstrap)")
		}
		if i.mode&modeType == modeDir {
			i.rdev = u // where the blocks are, for readDir
			return nil
		}
		if i.size == 0 || i.size > blockSize {
			return badBoot(pos+8, "i_size of a symlink", dec(i.size), "1 … 4096")
		}
		p, err := l.inlineData(i, u, end)
		if err != nil {
			return err
		}
		if bytes.IndexByte(p, 0) >= 0 {
			return badBoot(end, "symlink target", "with NUL bytes", "none")
		}
		var ok bool
		if i.data, ok = l.t.text.add(p); !ok {
			return errFull
		}
		i.count = uint32(len(p))
	case modeChar, modeBlk, modeFifo, modeSock:
		i.rdev = u
		if i.layout != layoutPlain || i.size != 0 {
			return badBoot(pos, "layout, i_size of a special file", udec(uint32(i.layout))+", "+dec(i.size), "0, 0")
		}
	default:
		return badBoot(pos+4, "i_mode", "0o"+octalText(i.mode), "a file type")
	}
	return nil
}

// inlineData returns the last block of an inode's data, up to a block, from behind the inode or from block u on.
func (l *loader) inlineData(i *inode, u uint32, end int64) ([]byte, error) {
	n := i.size
	if i.layout == layoutPlain {
		end = int64(u) * blockSize
	} else {
		if n %= blockSize; n == 0 || end/blockSize != (end+n-1)/blockSize {
			return nil, badBoot(end, "inline data", dec(n)+" bytes", "1 … 4095 in one block")
		}
	}
	if err := l.spend(n, end); err != nil {
		return nil, err
	}
	return l.bytes(end, n, "data of a directory or symlink")
}

// readDir reads the entries of directory n (2.5).
func (l *loader) readDir(n int32) error {
	i := l.t.inodeOf(n)
	full := i.size
	u := i.rdev
	i.rdev = 0
	if i.layout == layoutInline {
		full -= full % blockSize
	}
	d := dirReader{l: l, n: n, dir: i}
	p, err := l.bytes(int64(u)*blockSize, full, "directory blocks")
	if full == 0 {
		p, err = nil, nil
	}
	if err != nil {
		return err
	}
	if err := l.spend(full, int64(u)*blockSize); err != nil {
		return err
	}
	for k := int64(0); k < full; k += blockSize {
		if err := d.block(p[k:min(k+blockSize, full)], int64(u)*blockSize+k, k+blockSize >= i.size); err != nil {
			return err
		}
	}
	if i.layout == layoutInline {
		end := l.at(i.nid) + inodeSize
		if l.data[l.at(i.nid)]&1 == 0 {
			end = l.at(i.nid) + compactSize
		}
		if i.xattrLen > 0 || le.Uint16(l.data[l.at(i.nid)+2:]) > 0 {
			end += xattrHeader + int64(i.xattrLen)
		}
		p, err := l.inlineData(i, u, end)
		if err != nil {
			return err
		}
		if err := d.block(p, end, true); err != nil {
			return err
		}
	}
	if d.dots != 2 {
		return l.rule(badBoot(l.at(i.nid), "directory", "without . or ..", "both"))
	}
	return nil
}

// finish compares what the tree is with what the bootstrap claims, and resolves the prefetch table.
func (l *loader) finish() error {
	t := l.t
	var nids []uint32
	for n := root; n < t.nodes.n; n++ {
		i := t.inodeOf(n)
		// Older builders give the names of a hard-linked symlink or device an inode each, with the count of the source.
		if i.blk != i.nlink && (i.isDir() || i.isReg() || i.blk == 0) {
			if err := l.rule(l.inEntry(badBoot(l.at(i.nid), "i_nlink", udec(i.blk), udec(i.nlink)), n)); err != nil {
				return err
			}
		}
		if !l.strict && !(i.isReg() && i.nlink > 1) {
			nids = append(nids, i.nid)
		}
	}
	slices.Sort(nids)
	for k := 1; k < len(nids); k++ {
		if nids[k] == nids[k-1] {
			l.note(badBoot(l.at(nids[k]), "inode", "reached twice", "one name, or a regular file with more links"))
		}
	}
	if l.inos != uint64(t.nodes.n) {
		l.note(badBoot(sbOff+16, "inos", udec(l.inos), dec(t.nodes.n)))
	}
	var blocks uint64
	for k := range t.blobs {
		blocks += t.blobs[k].UncompressedSize / blockSize
	}
	if v := le.Uint32(l.data[sbOff+36:]); v != uint32(blocks) {
		l.note(badBoot(sbOff+36, "blocks", udec(v), udec(blocks)))
	}
	for _, nid := range l.prefetch {
		if n := l.first[nid]; n >= 0 {
			t.prefetch = append(t.prefetch, n)
		} else if err := l.rule(badBoot(extOff+40, "prefetch table", "nid "+udec(nid)+" without a name", "names of this image")); err != nil {
			return err
		}
	}
	return nil
}
