package ext4

import (
	"context"
	"io"
	"path"
	"strings"

	"github.com/convhost/convhost/abi"
)

// Options of an [Applier]. The zero value is right for most.
type Options struct {
	// Scratch takes metadata that does not fit into Memory; a temporary file of the caller. Without it everything stays in memory.
	Scratch Scratch
	// Memory is about how many bytes of metadata blocks are kept; 0: 48 MiB.
	Memory int64
	// Remote, if not nil, is told where the data of files would stand: blocks device blocks from block on hold the bytes from off on
	// of e's body. Nothing is read from the body or written; blocks get no holes. For formats that leave data in the tar. Sparse
	// files, whose bytes do not stand in one piece there, are read and written as without it.
	Remote func(e *abi.Entry, block uint64, blocks uint32, off int64) error
}

// Stats of a layer.
type Stats struct {
	DataBlocks     int64  // blocks of file data that were written
	MetadataBlocks int64  // other blocks that were written
	FreeBlocks     uint64 // left on the device
	FreeInodes     uint32
}

// Applier applies the entries of one layer to a file system. It is used from one goroutine.
type Applier struct {
	*allocator
	dev   Device
	opt   Options
	layer layerState
	buf   []byte
	stats Stats
	err   error // sticky

	recount map[uint32]bool // directories that lost one of more subdirectories than they can count

	lastDir string // cache of the last parent; valid while nothing was removed
	last    uint32
}

// Format makes a new file system on a device that reads as zeros, and an Applier for the first layer on it. Without any entry,
// Commit writes the empty file system.
func Format(dev Device, mk MkfsOptions, opt Options) (*Applier, error) {
	v, err := format(dev, mk)
	if err != nil {
		return nil, err
	}
	return newApplier(v, dev, opt)
}

// NewApplier opens the file system of the lower layers on dev. File systems with features that it cannot keep up are refused
// with [abi.ErrUnsupported].
func NewApplier(dev Device, opt Options) (*Applier, error) {
	v, err := openVolume(dev, dev.Size(), true)
	if err != nil {
		return nil, err
	}
	return newApplier(v, dev, opt)
}

func newApplier(v *volume, dev Device, opt Options) (*Applier, error) {
	v.scratch = opt.Scratch
	if opt.Memory > 0 {
		v.budget = int(max(opt.Memory/BlockSize, 64))
	}
	al, err := newAllocator(v)
	if err != nil {
		return nil, err
	}
	return &Applier{allocator: al, dev: dev, opt: opt, layer: newLayerState(), recount: map[uint32]bool{}}, nil
}

// Apply applies one entry. body is read to e.Size for regular files without flags, and not otherwise. Neither is kept. After an
// error the Applier only returns that error, and nothing of the layer's metadata gets written.
//
// abi.ErrCorrupt: the layer cannot be applied to anything; abi.ErrUnsupported: not to ext4; abi.ErrLimit: not to this device.
func (a *Applier) Apply(ctx context.Context, e *abi.Entry, body io.Reader) error {
	if a.err == nil {
		if err := ctx.Err(); err != nil {
			a.err = abi.Errorf(abi.ClassOf(err), "apply layer: %w", err)
		} else if a.err = a.trim(); a.err == nil {
			a.err = a.apply(ctx, e, body)
		}
	}
	return a.err
}

func (a *Applier) apply(ctx context.Context, e *abi.Entry, body io.Reader) error {
	if e.Path == "" {
		return a.applyRoot(e)
	}
	dir, base := path.Split(e.Path)
	if len(base) > 255 {
		return entryError(e, abi.ErrUnsupported, "name", "longer", "at most 255 bytes")
	}
	parent, err := a.parent(e, strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	switch {
	case e.Flags&abi.EntryOpaque != 0:
		_, err := a.prune(parent, 0)
		return err
	case e.Flags&abi.EntryWhiteout != 0:
		return a.whiteout(parent, strings.TrimPrefix(base, ".wh."))
	}
	pn, err := a.dir(parent)
	if err != nil {
		return err
	}
	old, err := a.lookup(pn, base)
	if err != nil {
		return err
	}
	if e.Kind == abi.KindHardlink {
		return a.hardlink(e, pn, old, base)
	}
	if old != nil {
		n, err := a.usedInode(old.ino)
		if err != nil {
			return err
		}
		switch {
		case n.isDir() && e.Kind == abi.KindDir:
			a.layer.mine(n.num)
			return a.update(e, n, false)
		case !n.isDir() && e.Kind != abi.KindDir && n.links() == 1:
			return a.overwrite(ctx, e, pn, old, n, body)
		}
		if err := a.remove(pn, old); err != nil {
			return err
		}
	}
	return a.create(ctx, e, pn, base, body)
}

func (a *Applier) applyRoot(e *abi.Entry) error {
	if e.Kind != abi.KindDir {
		return entryError(e, abi.ErrCorrupt, "root directory", "replaced", "a directory")
	}
	n, err := a.dir(rootIno)
	if err != nil {
		return err
	}
	return a.update(e, n, false)
}

// dir returns the inode of a directory.
func (v *volume) dir(ino uint32) (*inode, error) {
	n, err := v.usedInode(ino)
	if err == nil && !n.isDir() {
		return nil, bad(v.inodeOff(ino)+inMode, "mode of "+inoName(ino), n.mode(), "a directory, for an entry says so")
	}
	return n, err
}

// update gives n the attributes of e and writes it. With merge, extended attributes that e has not stay.
func (a *Applier) update(e *abi.Entry, n *inode, merge bool) error {
	n.setAttributes(e)
	if err := a.setXattrs(e, n, merge); err != nil {
		return err
	}
	return a.putInode(n)
}

// create makes a new inode for e and names it in pn.
func (a *Applier) create(ctx context.Context, e *abi.Entry, pn *inode, base string, body io.Reader) error {
	if int(e.Kind) >= len(modeOfKind) || modeOfKind[e.Kind] == 0 {
		return entryError(e, abi.ErrUnsupported, "kind of entry", "unknown", "a file, directory, link, device or fifo")
	}
	ino, err := a.allocInode(e.Kind == abi.KindDir)
	if err != nil {
		return err
	}
	a.layer.mine(ino)
	n := a.newInode(ino)
	if err := a.content(ctx, e, n, pn.num, body); err != nil {
		return err
	}
	if err := a.update(e, n, false); err != nil {
		return err
	}
	if err := a.insert(pn, ino, fileType(n.mode()), base); err != nil {
		return err
	}
	if e.Kind == abi.KindDir {
		return a.addSubdir(pn, 1)
	}
	return nil
}

// addSubdir counts a subdirectory of pn. Above the most that a directory can count it has 1 link.
func (a *Applier) addSubdir(pn *inode, d int) error {
	switch l := pn.links(); {
	case l == 1:
		if d < 0 {
			a.recount[pn.num] = true
		}
		return nil
	case d > 0 && l >= linkMax && !a.ro(roDirNlink):
		return abi.Errorf(abi.ErrUnsupported, "ext4: directory %d would have more than %d subdirectories, and the file system cannot count more (no dir_nlink)", pn.num, linkMax-2)
	case d > 0 && l >= linkMax:
		pn.setLinks(1)
	default:
		pn.setLinks(uint32(int(l) + d))
	}
	return a.putInode(pn)
}

// countAgain gives directories that could not count their subdirectories the number again, if they can now.
func (a *Applier) countAgain() error {
	for _, ino := range sortedKeys(a.recount) {
		n, err := a.dir(ino)
		if err != nil {
			return err
		}
		list, err := a.list(n)
		if err != nil {
			return err
		}
		links := uint32(2)
		for i := range list {
			if list[i].typ == ftDir {
				links++
			}
		}
		if links > linkMax {
			continue
		}
		n.setLinks(links)
		if err := a.putInode(n); err != nil {
			return err
		}
	}
	return nil
}

// overwrite uses the inode of a file that has no other name for the one that replaces it.
func (a *Applier) overwrite(ctx context.Context, e *abi.Entry, pn *inode, old *dirent, n *inode, body io.Reader) error {
	if int(e.Kind) >= len(modeOfKind) || modeOfKind[e.Kind] == 0 {
		return entryError(e, abi.ErrUnsupported, "kind of entry", "unknown", "a file, directory, link, device or fifo")
	}
	if err := a.freeContent(n); err != nil {
		return err
	}
	a.layer.mine(n.num)
	n = a.newInode(n.num)
	if err := a.content(ctx, e, n, pn.num, body); err != nil {
		return err
	}
	if err := a.update(e, n, false); err != nil {
		return err
	}
	return a.retype(pn, old, fileType(n.mode()))
}

// Commit writes all metadata of the layer. The Applier cannot be used afterwards.
func (a *Applier) Commit() (Stats, error) {
	if a.err != nil {
		return Stats{}, a.err
	}
	a.err = abi.Errorf(abi.ErrInternal, "ext4: the layer is committed already")
	if err := a.countAgain(); err != nil {
		return Stats{}, err
	}
	if err := a.finish(); err != nil {
		return Stats{}, err
	}
	if err := a.sealDescriptors(); err != nil {
		return Stats{}, err
	}
	for i := range a.gdtBlocks() {
		copy(a.fresh(1+i, kindPlain, 0).data, a.gdt[i*BlockSize:])
	}
	if a.metaCsum {
		put32(a.sb, sbChecksum, crc32c(^uint32(0), a.sb[:sbChecksum]))
	}
	b, err := a.get(0)
	if err != nil {
		return Stats{}, err
	}
	copy(b.data[superOff:], a.sb)
	b.dirty = true
	if a.stats.MetadataBlocks, err = a.flush(a.dev); err != nil {
		return Stats{}, err
	}
	a.stats.FreeBlocks, a.stats.FreeInodes = a.freeBlocks(), u32(a.sb, sbFreeInodes)
	return a.stats, nil
}
