package ext4

import (
	"fmt"

	"github.com/convhost/convhost/abi"
)

// layerState knows what the current layer brought: whiteouts hide only what was there before. A name is of this layer if its inode
// is marked, or if it is a hard link that this layer made to a lower file.
type layerState struct {
	marks  map[uint32]uint64 // by inode number / 64
	links  map[string]bool   // directory's inode number, name
	pruned map[uint32]bool   // directories without lower content
}

func newLayerState() layerState {
	return layerState{marks: map[uint32]uint64{}, links: map[string]bool{}, pruned: map[uint32]bool{}}
}

func (l *layerState) mine(ino uint32)        { l.marks[ino/64] |= 1 << (ino % 64) }
func (l *layerState) isMine(ino uint32) bool { return l.marks[ino/64]>>(ino%64)&1 != 0 }

func (l *layerState) forget(ino uint32) {
	if m := l.marks[ino/64] &^ (1 << (ino % 64)); m != 0 {
		l.marks[ino/64] = m
	} else {
		delete(l.marks, ino/64)
	}
	delete(l.pruned, ino)
}

func linkKey(dir uint32, name string) string { return fmt.Sprintf("%d/%s", dir, name) }

// whiteout hides what lower layers have under a name.
func (a *Applier) whiteout(parent uint32, name string) error {
	pn, err := a.dir(parent)
	if err != nil {
		return err
	}
	d, err := a.lookup(pn, name)
	if d == nil || err != nil {
		return err
	}
	stays, err := a.hide(pn, d, 0)
	if err != nil || stays {
		return err
	}
	return a.remove(pn, d)
}

// hide applies a whiteout to the name d of pn. It tells whether something of this layer is left, at d or below.
func (a *Applier) hide(pn *inode, d *dirent, depth int) (stays bool, err error) {
	if depth > maxPath {
		return false, bad(a.inodeOff(pn.num), "directory "+inoName(pn.num), "too deep", "no cycle of directories")
	}
	n, err := a.usedInode(d.ino)
	if err != nil {
		return false, err
	}
	if !n.isDir() {
		return a.layer.isMine(d.ino) || a.layer.links[linkKey(pn.num, d.name)], nil
	}
	if stays, err = a.prune(d.ino, depth+1); err != nil {
		return false, err
	}
	if pn.num == rootIno && d.ino == firstIno && d.name == lostFound && !stays {
		return true, a.resetLostFound()
	}
	if stays && !a.layer.isMine(d.ino) {
		if n, err = a.dir(d.ino); err != nil {
			return false, err
		}
		a.layer.mine(d.ino)
		return true, a.update(&abi.Entry{Kind: abi.KindDir, Mode: 0o755}, n, false)
	}
	return stays || a.layer.isMine(d.ino), nil
}

// prune removes lower content of a directory and tells whether any name is left.
func (a *Applier) prune(dir uint32, depth int) (bool, error) {
	n, err := a.dir(dir)
	if err != nil {
		return false, err
	}
	list, err := a.list(n)
	if err != nil {
		return false, err
	}
	if a.layer.pruned[dir] {
		return len(list) > 0, nil
	}
	left := false
	for i := range list {
		stays, err := a.hide(n, &list[i], depth)
		if err != nil {
			return false, err
		}
		if left = left || stays; stays {
			continue
		}
		d, err := a.lookup(n, list[i].name) // its place may have changed
		if err != nil {
			return false, err
		}
		if d == nil || d.ino != list[i].ino {
			return false, bad(a.inodeOff(dir), "directory "+inoName(dir), fmt.Sprintf("with %q twice, or not where its index says", list[i].name), "each name once")
		}
		if err := a.remove(n, d); err != nil {
			return false, err
		}
		if n, err = a.dir(dir); err != nil {
			return false, err
		}
	}
	a.layer.pruned[dir] = true
	return left, nil
}

// remove takes a name away, and what it names if that was the last one, with all below it. pn is read again if it changed.
func (a *Applier) remove(pn *inode, d *dirent) error {
	a.last = 0
	if err := a.unlink(pn, d); err != nil {
		return err
	}
	delete(a.layer.links, linkKey(pn.num, d.name))
	n, err := a.usedInode(d.ino)
	if err != nil {
		return err
	}
	if n.isDir() {
		if d.ino == rootIno || d.ino == pn.num {
			return bad(a.inodeOff(pn.num), "directory "+inoName(pn.num), "with itself or the root in it", "a tree")
		}
		if err := a.addSubdir(pn, -1); err != nil {
			return err
		}
		return a.removeTree(n, map[uint32]bool{pn.num: true}, 0)
	}
	return a.release(n)
}

// removeTree frees a directory and all below it. on holds the directories that were met: a second time is a cycle.
func (a *Applier) removeTree(n *inode, on map[uint32]bool, depth int) error {
	if on[n.num] || depth > maxPath || n.num == rootIno {
		return bad(a.inodeOff(n.num), "directory "+inoName(n.num), "named twice", "a tree")
	}
	on[n.num] = true
	list, err := a.list(n)
	if err != nil {
		return err
	}
	for i := range list {
		delete(a.layer.links, linkKey(n.num, list[i].name))
		kid, err := a.usedInode(list[i].ino)
		if err != nil {
			return err
		}
		if kid.isDir() {
			err = a.removeTree(kid, on, depth+1)
		} else {
			err = a.release(kid)
		}
		if err != nil {
			return err
		}
	}
	if err := a.freeContent(n); err != nil {
		return err
	}
	a.layer.forget(n.num)
	delete(a.recount, n.num)
	return a.freeInode(n.num, true)
}

// release takes one name off a file; without names it is freed.
func (a *Applier) release(n *inode) error {
	if l := n.links(); l > 1 {
		n.setLinks(l - 1)
		return a.putInode(n)
	}
	if err := a.freeContent(n); err != nil {
		return err
	}
	a.layer.forget(n.num)
	return a.freeInode(n.num, false)
}

// hardlink gives an earlier file the name base in pn, and the attributes of e.
func (a *Applier) hardlink(e *abi.Entry, pn *inode, old *dirent, base string) error {
	if old != nil {
		if err := a.remove(pn, old); err != nil {
			return err
		}
	}
	n, err := a.target(e)
	if err != nil {
		return err
	}
	if n.links() >= linkMax {
		return entryError(e, abi.ErrUnsupported, "names of one file", "more", fmt.Sprintf("at most %d", linkMax))
	}
	n.setLinks(n.links() + 1)
	if err := a.update(e, n, true); err != nil {
		return err
	}
	if pn, err = a.dir(pn.num); err != nil {
		return err
	}
	if !a.layer.isMine(n.num) {
		a.layer.links[linkKey(pn.num, base)] = true
	}
	return a.insert(pn, n.num, fileType(n.mode()), base)
}

// lost+found belongs to the file system: it is never removed by a whiteout. As made, it is not part of the image; see isPristine.

func (a *Applier) resetLostFound() error {
	n, err := a.dir(firstIno)
	if err != nil {
		return err
	}
	sec, ns := n.time(inCrtime, inCrtimeX)
	a.layer.forget(firstIno)
	return a.update(&abi.Entry{Kind: abi.KindDir, Mode: 0o700, MtimeSec: sec, MtimeNs: ns}, n, false)
}

// useLostFound makes lost+found part of the image when an entry needs it as a parent.
func (a *Applier) useLostFound() error {
	n, err := a.usedInode(firstIno)
	if err != nil || !isPristine(n) {
		return err
	}
	if list, err := a.list(n); err != nil || len(list) > 0 {
		return err
	}
	return a.update(&abi.Entry{Kind: abi.KindDir, Mode: 0o755}, n, false)
}

// isPristine tells whether lost+found is as mkfs made it. Its times are those of its creation then.
func isPristine(n *inode) bool {
	sec, ns := n.time(inMtime, inMtimeX)
	csec, cns := n.time(inCrtime, inCrtimeX)
	if n.extra() < inCrtime+4-goodOldIno {
		csec, cns = sec, ns // small inodes have no such time
	}
	return n.num == firstIno && n.isDir() && n.mode()&0o7777 == 0o700 && n.uid() == 0 && n.gid() == 0 && sec == csec && ns == cns
}
