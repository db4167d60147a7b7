package rafs6

import (
	"errors"
	"strings"

	"github.com/convhost/convhost/abi"
)

// Options describe a layer to build.
type Options struct {
	ChunkSize int        // power of two, 4 KiB … 16 MiB; 0: 1 MiB
	Codec     abi.Codec  // of the chunks: none, lz4 block or zstd
	Digest    abi.Digest // of the chunks: BLAKE3 or SHA-256

	// DropUnknownXattrs leaves out attributes that RAFS cannot hold instead of failing.
	DropUnknownXattrs bool
	// Prefetch lists absolute paths whose data a mount reads first; see Tree.SetPrefetch.
	Prefetch []string
}

// Builder makes the tree of one layer from its entries and chunk results.
type Builder struct {
	t       *Tree
	o       Options
	next    int32 // inode that waits for chunks
	have    uint32
	recent  []recentDir // directories on the way to the last entry, each below the one before
	scratch []byte
	end     uint64 // bytes of chunk data in the blob
	expand  uint64
}

// NewBuilder starts a layer. Wrong options are ErrInvalid.
func NewBuilder(o Options) (*Builder, error) {
	if o.ChunkSize == 0 {
		o.ChunkSize = 1 << 20
	}
	_, cf, ok := codecNumber(o.Codec)
	_, df, ok2 := digestNumber(o.Digest)
	if !ok || o.Codec == abi.CodecGzip || !ok2 || o.ChunkSize < 0 || !chunkSizeOK(uint32(o.ChunkSize)) {
		return nil, abi.Errorf(abi.ErrInvalid, "rafs v6: chunk size %d, codec %d, digest %d: want a power of two from 4096 to 16777216, "+
			"none, lz4 or zstd, and BLAKE3 or SHA-256", o.ChunkSize, o.Codec, o.Digest)
	}
	b := &Builder{t: newTree(uint32(o.ChunkSize)), o: o}
	b.t.flags = cf | df | flagExplicitIDs | flagEncryptNone
	b.t.fresh = true
	return b, nil
}

// dropped reports the index and landmarks of eStargz layers; nydus images have no use for them.
func dropped(path string) bool {
	switch path {
	case "stargz.index.json", ".prefetch.landmark", ".no.prefetch.landmark":
		return true
	}
	return false
}

// Add enters the next entry of the layer. e is not kept.
//
// A later entry with the same path replaces the earlier one as extraction would: what lies below a directory stays only
// if the new entry is a directory, too. Missing parents are made as 0755 0:0 with time 0 and remembered as implied.
// Symbolic links of the layer that lead to a parent are followed. A hard link shares content and attributes with its
// target; the attributes of the last of their entries count, as if each had been set on the shared inode.
//
// Errors: ErrCorrupt for an entry that cannot be extracted (hard link to nowhere, parent that is a file), ErrUnsupported and
// ErrLimit for what RAFS cannot hold. They name the entry and where its header starts.
func (b *Builder) Add(e *abi.Entry) error {
	if e.Path == "" {
		return b.addRoot(e)
	}
	if dropped(e.Path) {
		if e.Kind == abi.KindRegular {
			_, err := b.inode(e) // its chunks come nevertheless
			return err
		}
		return nil
	}
	dir, name := "", e.Path
	if i := strings.LastIndexByte(e.Path, '/'); i >= 0 {
		dir, name = e.Path[:i], e.Path[i+1:]
	}
	if len(name) > MaxName || name == "" || name == "." || name == ".." {
		return badEntry(e, abi.ErrLimit, "length of the name", dec(len(name)), "1 … 255, not \".\" or \"..\"")
	}
	parent, err := b.parent(e, dir)
	if err != nil {
		return err
	}
	ino := int32(-1)
	if e.Kind == abi.KindHardlink {
		ino, err = b.linkTarget(e, parent, name)
	} else {
		ino, err = b.inode(e)
	}
	if err != nil {
		return err
	}
	return b.enter(e, parent, name, ino)
}

func (b *Builder) enter(e *abi.Entry, parent int32, name string, ino int32) error {
	b.scratch = append(b.scratch[:0], name...)
	h := b.t.hash(parent, b.scratch)
	old, slot := b.t.lookup(h, parent, b.scratch)
	if old < 0 {
		n, err := b.t.addNode(parent, b.scratch, ino, 0)
		if err != nil {
			return b.dress(e, "path", err)
		}
		b.t.link(h, n)
		if e.Kind == abi.KindDir {
			b.remember(e.Path, n, b.parentLinks())
		}
		return nil
	}
	flags := b.t.nodes.at(old).flags & nodeFresh
	m := b.t.inodeOf(old).mode & modeType
	if m != modeDir {
		flags = nodeFresh
	}
	if m == modeDir && e.Kind != abi.KindDir || m == modeLink {
		b.recent = b.recent[:0] // the remembered parents may be gone
	}
	if e.Kind != abi.KindDir {
		flags &^= nodeFresh
	}
	b.t.replace(old, slot, ino, flags, true)
	return nil
}

// dress turns a reason of index.go into an error about an entry.
func (b *Builder) dress(e *abi.Entry, field string, err error) error {
	return badEntry(e, abi.ClassOf(err), field+": "+err.Error(), "", "")
}

func (b *Builder) addRoot(e *abi.Entry) error {
	if e.Kind != abi.KindDir {
		return badEntry(e, abi.ErrCorrupt, "kind of the root entry", dec(int32(e.Kind)), "a directory")
	}
	ino, err := b.inode(e)
	if err == nil {
		b.t.nodes.at(root).inode, b.t.nodes.at(root).flags = ino, 0
	}
	return err
}

// parent returns the directory called dir. Entries mostly come in the order of a walk, so the search starts at the nearest
// of the directories that lead to the last one.
func (b *Builder) parent(e *abi.Entry, dir string) (int32, error) {
	if dir == "" {
		b.recent = b.recent[:0]
		return root, nil
	}
	from, rest, links := root, dir, 0
	for len(b.recent) > 0 {
		top := &b.recent[len(b.recent)-1]
		if dir == top.path {
			return top.node, nil
		}
		if len(dir) > len(top.path) && dir[len(top.path)] == '/' && dir[:len(top.path)] == top.path {
			from, rest, links = top.node, dir[len(top.path)+1:], top.links
			break
		}
		b.recent = b.recent[:len(b.recent)-1]
	}
	n, err := b.t.resolveOn(from, rest, true, &links)
	if err != nil {
		return 0, b.dress(e, "path", err)
	}
	b.remember(dir, n, links)
	return n, nil
}

// recentDir is a path that was looked up, and the node it leads to.
type recentDir struct {
	path  string
	node  int32
	links int // symbolic links on the way
}

// parentLinks returns the symbolic links on the way to the directory that parent has just found.
func (b *Builder) parentLinks() int {
	if len(b.recent) == 0 {
		return 0
	}
	return b.recent[len(b.recent)-1].links
}

// remember puts directory n on top of those that parent knows.
func (b *Builder) remember(path string, n int32, links int) {
	if len(b.recent) < MaxDepth {
		b.recent = append(b.recent, recentDir{path, n, links})
	}
}

// linkTarget returns the inode a hard link names and gives it the link's attributes.
func (b *Builder) linkTarget(e *abi.Entry, parent int32, name string) (int32, error) {
	dir, base := "", e.Link
	if i := strings.LastIndexByte(e.Link, '/'); i >= 0 {
		dir, base = e.Link[:i], e.Link[i+1:]
	}
	// Extraction removes what the link replaces before it looks for the target.
	if old, slot := b.t.find(parent, []byte(name)); old >= 0 {
		was := b.t.index[slot]
		b.t.index[slot] |= slotGone
		defer func() { b.t.index[slot] = was }()
	}
	d, err := b.t.resolve(root, dir, false)
	if err != nil && !errors.Is(err, errNotDir) {
		return 0, b.dress(e, "hard link target "+quote(e.Link), err)
	}
	n := int32(-1)
	if err == nil && d >= 0 && base != "" {
		n, _ = b.t.find(d, []byte(base))
	}
	if n < 0 {
		return 0, badEntry(e, abi.ErrCorrupt, "hard link target "+quote(e.Link), "missing", "an earlier file of this layer")
	}
	ino := b.t.nodes.at(n).inode
	i := b.t.inodes.at(ino)
	if i.isDir() {
		return 0, badEntry(e, abi.ErrCorrupt, "hard link target "+quote(e.Link), "a directory", "an earlier file of this layer")
	}
	if i.mode&modeType != modeLink {
		i.mode = i.mode&modeType | e.Mode&0o7777
	}
	i.uid, i.gid, i.mtime, i.mtimeNs = e.UID, e.GID, e.MtimeSec, e.MtimeNs
	if len(e.Xattrs) > 0 { // setting them on the shared inode adds to those it has
		old := decodeXattrs(nil, b.t.text.get(i.xattr, int(i.xattrLen)))
		err = b.xattrs(e, i, append(old, e.Xattrs...))
	}
	return ino, err
}

func (b *Builder) xattrs(e *abi.Entry, i *inode, xs []abi.Xattr) error {
	p, err := appendXattrs(b.scratch[:0], e, xs, b.o.DropUnknownXattrs)
	if err != nil {
		return err
	}
	b.scratch = p
	return b.keep(e, p, &i.xattr, &i.xattrLen)
}

func (b *Builder) keep(e *abi.Entry, p []byte, ref, n *uint32) error {
	r, ok := b.t.text.add(p)
	if !ok {
		return b.dress(e, "layer", errFull)
	}
	*ref, *n = r, uint32(len(p))
	return nil
}

// inode makes the inode of an entry that is not a hard link.
func (b *Builder) inode(e *abi.Entry) (int32, error) {
	if b.t.inodes.n == 1<<31-1 {
		return 0, b.dress(e, "layer", errFull)
	}
	i, n := b.t.inodes.next()
	if err := b.fill(i, e); err != nil {
		b.t.inodes.drop()
		return 0, err
	}
	return n, nil
}

// fill sets what e says of inode i, which is zero.
func (b *Builder) fill(i *inode, e *abi.Entry) error {
	i.mode, i.uid, i.gid, i.mtime, i.mtimeNs, i.seq = e.Mode&0o7777, e.UID, e.GID, e.MtimeSec, e.MtimeNs, e.Seq
	switch e.Kind {
	case abi.KindRegular:
		n := chunkCount(e.Size, b.t.chunkSize)
		if e.Size < 0 || n > MaxChunks {
			return badEntry(e, abi.ErrLimit, "size", dec(e.Size), "at most 16777216 chunks")
		}
		i.mode, i.size, i.count = i.mode|modeReg, e.Size, uint32(n)
	case abi.KindDir:
		i.mode |= modeDir
	case abi.KindSymlink:
		if len(e.Link) == 0 || len(e.Link) > MaxTarget || strings.IndexByte(e.Link, 0) >= 0 {
			return badEntry(e, abi.ErrLimit, "length of the link target", dec(len(e.Link)), "1 … 4095 bytes without NUL")
		}
		i.mode, i.size = i.mode|modeLink, int64(len(e.Link))
		b.scratch = append(b.scratch[:0], e.Link...)
		if err := b.keep(e, b.scratch, &i.data, &i.count); err != nil {
			return err
		}
	case abi.KindChar, abi.KindBlock, abi.KindFifo:
		if e.DevMajor > 0xfff || e.DevMinor > 0xfffff {
			return badEntry(e, abi.ErrLimit, "device", udec(e.DevMajor)+":"+udec(e.DevMinor), "at most 4095:1048575")
		}
		i.mode |= map[abi.Kind]uint32{abi.KindChar: modeChar, abi.KindBlock: modeBlk, abi.KindFifo: modeFifo}[e.Kind]
		i.rdev = makedev(e.DevMajor, e.DevMinor)
	default:
		return badEntry(e, abi.ErrUnsupported, "kind", dec(int32(e.Kind)), "a kind of this version")
	}
	if len(e.Xattrs) > 0 {
		return b.xattrs(e, i, e.Xattrs)
	}
	return nil
}

func quote(s string) string { return "\"" + s + "\"" }
