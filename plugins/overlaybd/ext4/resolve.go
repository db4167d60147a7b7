package ext4

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/convhost/convhost/abi"
)

// Limits of package flatten, whose rules these are.
const (
	maxLinks = 255     // symbolic links on the way to one entry
	maxPath  = 4096    // directories above an entry
	maxSteps = 1 << 15 // elements of all paths and link targets on the way
)

// parent returns the directory for an entry and makes what is missing.
func (a *Applier) parent(e *abi.Entry, dir string) (uint32, error) {
	if a.last != 0 && a.lastDir == dir {
		return a.last, nil
	}
	ino, err := a.walk(e, dir, true)
	if err == nil {
		a.lastDir, a.last = dir, ino
	}
	return ino, err
}

// walk resolves dir. Without create it returns 0 if dir does not exist or is no directory. Symbolic links are followed as the
// kernel does below a changed root; what does not exist counts as a directory to be, so that ".." takes it back.
func (a *Applier) walk(e *abi.Entry, dir string, create bool) (uint32, error) {
	w := walker{stack: []uint32{rootIno}}
	for rest := dir; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		if w.steps++; w.steps > maxSteps {
			return 0, entryError(e, abi.ErrLimit, "steps to the parent through symbolic links", "too many", fmt.Sprintf("at most %d", maxSteps))
		}
		if w.trivial(name) {
			continue
		}
		kid, err := a.step(&w, name)
		if err != nil {
			return 0, err
		}
		switch {
		case kid == nil:
			w.missing = append(w.missing, name)
		case kid.isDir():
			w.stack = append(w.stack, kid.num)
		case kid.mode()&ifMask == ifLnk:
			if w.links++; w.links > maxLinks {
				return 0, entryError(e, abi.ErrCorrupt, "parent", "a loop of symbolic links", "a directory")
			}
			to, err := a.readLink(kid)
			if err != nil {
				return 0, err
			}
			if path.IsAbs(to) {
				w.stack = w.stack[:1]
			}
			rest = to + "/" + rest
		case !create:
			return 0, nil
		default:
			return 0, entryError(e, abi.ErrCorrupt, "parent", fmt.Sprintf("%q, which is no directory", name), "a directory")
		}
	}
	if !create && len(w.missing) > 0 {
		return 0, nil
	}
	if len(w.stack)+len(w.missing) > maxPath+1 {
		return 0, entryError(e, abi.ErrLimit, "directories above the entry", "too many", fmt.Sprintf("at most %d", maxPath))
	}
	ino := w.stack[len(w.stack)-1]
	if !create {
		return ino, nil
	}
	return a.imply(e, ino, w.missing)
}

// walker is where a walk stands: the directories from the root, and the names below the last one that do not exist.
type walker struct {
	stack        []uint32
	missing      []string
	links, steps int
}

// trivial takes elements that lead nowhere or up.
func (w *walker) trivial(name string) bool {
	if name != ".." {
		return name == "" || name == "."
	}
	if n := len(w.missing); n > 0 {
		w.missing = w.missing[:n-1]
	} else if n := len(w.stack); n > 1 {
		w.stack = w.stack[:n-1]
	}
	return true
}

// step looks name up where the walk stands; nil if it does not exist.
func (a *Applier) step(w *walker, name string) (*inode, error) {
	if len(w.missing) > 0 {
		return nil, nil
	}
	n, err := a.dir(w.stack[len(w.stack)-1])
	if err != nil {
		return nil, err
	}
	d, err := a.lookup(n, name)
	if d == nil || err != nil {
		return nil, err
	}
	return a.usedInode(d.ino)
}

// imply makes directories below ino, one in the other.
func (a *Applier) imply(e *abi.Entry, ino uint32, names []string) (uint32, error) {
	if ino == firstIno {
		if err := a.useLostFound(); err != nil {
			return 0, err
		}
	}
	for _, name := range names {
		if len(name) > 255 {
			return 0, entryError(e, abi.ErrUnsupported, "name", "longer", "at most 255 bytes")
		}
		pn, err := a.dir(ino)
		if err != nil {
			return 0, err
		}
		kid := abi.Entry{Kind: abi.KindDir, Path: e.Path, HdrOff: e.HdrOff, Mode: 0o755}
		if ino, err = a.allocInode(true); err != nil {
			return 0, err
		}
		n := a.newInode(ino)
		if err := a.content(context.Background(), &kid, n, pn.num, nil); err != nil {
			return 0, err
		}
		if err := a.update(&kid, n, false); err != nil {
			return 0, err
		}
		if err := a.insert(pn, ino, ftDir, name); err != nil {
			return 0, err
		}
		if err := a.addSubdir(pn, 1); err != nil {
			return 0, err
		}
		if e.Flags&(abi.EntryWhiteout|abi.EntryOpaque) == 0 {
			a.layer.mine(ino) // else it exists, but is nothing that this layer brings
		}
	}
	return ino, nil
}

// readLink returns the target of a symbolic link.
func (v *volume) readLink(n *inode) (string, error) {
	size := n.size()
	if size == 0 || size > maxLink {
		return "", bad(v.inodeOff(n.num)+inSizeLo, "length of symbolic link "+inoName(n.num), size, fmt.Sprintf("1 to %d", maxLink))
	}
	p := n.raw[inBlock : inBlock+inBlockSize]
	if hasBlocks(n) {
		m, err := v.mapping(n)
		if err != nil {
			return "", err
		}
		phys, _ := m.find(0)
		if phys == 0 {
			return "", bad(v.inodeOff(n.num)+inBlock, "symbolic link "+inoName(n.num), "without a block", "one")
		}
		b, err := v.get(phys)
		if err != nil {
			return "", err
		}
		p = b.data
	}
	to := string(p[:size])
	if strings.IndexByte(to, 0) >= 0 {
		return "", bad(v.inodeOff(n.num), "target of symbolic link "+inoName(n.num), fmt.Sprintf("%.40q", to), "without NUL")
	}
	return to, nil
}

// target finds the file that a hard link names.
func (a *Applier) target(e *abi.Entry) (*inode, error) {
	dir, base := path.Split(e.Link)
	ino, err := a.walk(e, strings.TrimSuffix(dir, "/"), false)
	if err != nil {
		return nil, err
	}
	var d *dirent
	if ino != 0 {
		pn, err := a.dir(ino)
		if err != nil {
			return nil, err
		}
		if d, err = a.lookup(pn, base); err != nil {
			return nil, err
		}
	}
	if d == nil {
		return nil, entryError(e, abi.ErrCorrupt, "hard link", fmt.Sprintf("to %q, which does not exist", e.Link), "an earlier file")
	}
	n, err := a.usedInode(d.ino)
	if err == nil && n.isDir() {
		return nil, entryError(e, abi.ErrCorrupt, "hard link", fmt.Sprintf("to the directory %q", e.Link), "a file")
	}
	return n, err
}
