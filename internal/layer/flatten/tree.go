package flatten

import (
	"fmt"
	"path"
	"strings"

	"github.com/convhost/convhost/abi"
)

// Options choose between rules and set limits. The zero value is containerd on a plain filesystem.
type Options struct {
	// Overlay applies each layer on its own and lays it over the lower ones, as containerd's overlayfs snapshotter and
	// formats with independent layers do: links of lower layers are not followed.
	Overlay bool
	Names   int64 // names in the tree; default 20 million
}

// Limits that no real image comes near.
const (
	maxLinks = 255     // symbolic links on the way to one entry, as in containerd
	maxDepth = 4096    // directories above an entry
	maxSteps = 1 << 15 // elements of all paths and link targets on the way
)

// inode is a file with all its names. Directories have one.
type inode struct {
	xattrs         []abi.Xattr
	link           string
	size           int64
	sec            int64
	ns             uint32
	mode, uid, gid uint32
	major, minor   uint32
	names          int32
	kind           abi.Kind
	sum            [32]byte
}

// node is a name. layer is the last layer that gave it; pruned the layer whose whiteouts have been applied below it.
type node struct {
	name          string
	parent        *node // nil for the root
	ino           *inode
	kids          map[string]*node
	layer, pruned int32
	depth         int32 // of the root: 0
	implied       bool
}

// Tree is a root filesystem without contents. It is used from one goroutine.
type Tree struct {
	opt     Options
	root    *node
	layer   int32
	names   int64
	lastDir string // cache of the last parent; valid while nothing was removed
	last    *node
}

// New returns an empty root directory.
func New(opt Options) *Tree {
	if opt.Names <= 0 {
		opt.Names = 20_000_000
	}
	return &Tree{opt: opt, root: &node{ino: impliedInode(), implied: true}}
}

func impliedInode() *inode { return &inode{kind: abi.KindDir, mode: 0o755, names: 1} }

// BeginLayer starts the next layer: what was applied before is lower now.
func (t *Tree) BeginLayer() {
	t.layer++
	t.last = nil
}

// Apply applies one entry of the current layer; sum is the SHA-256 of a regular file's body. e is not kept.
func (t *Tree) Apply(e *abi.Entry, sum [32]byte) error {
	dir, base := path.Split(e.Path)
	dir = strings.TrimSuffix(dir, "/")
	if e.Path == "" {
		if e.Kind != abi.KindDir {
			return fail(e, abi.ErrCorrupt, "root directory", "replaced", "a directory")
		}
		t.root.ino.set(e, sum)
		t.root.implied = false
		return nil
	}
	parent, err := t.parent(e, dir)
	if err != nil {
		return err
	}
	switch {
	case e.Flags&abi.EntryOpaque != 0:
		t.prune(parent)
		return nil
	case e.Flags&abi.EntryWhiteout != 0:
		if n := parent.kids[strings.TrimPrefix(base, ".wh.")]; n != nil && !t.hide(n) {
			t.remove(n)
		}
		return nil
	}
	old := parent.kids[base]
	if old != nil && old.ino.kind == abi.KindDir && e.Kind == abi.KindDir {
		old.ino.set(e, sum)
		old.layer, old.implied = t.layer, false
		return nil
	}
	if old != nil {
		t.remove(old)
	}
	ino := &inode{}
	if e.Kind == abi.KindHardlink {
		if ino, err = t.target(e); err != nil {
			return err
		}
	} else {
		ino.set(e, sum)
	}
	_, err = t.add(e, parent, base, ino)
	return err
}

func fail(e *abi.Entry, c abi.Class, field, got, want string) error {
	return &abi.FormatError{Class: c, Format: "layer", Entry: e.Path, Off: e.HdrOff, Field: field, Got: got, Want: want}
}

// set takes the attributes of e.
func (ino *inode) set(e *abi.Entry, sum [32]byte) {
	ino.kind = e.Kind
	ino.link = strings.Clone(e.Link)
	ino.major, ino.minor = e.DevMajor, e.DevMinor
	ino.xattrs = nil
	if e.Kind == abi.KindRegular {
		ino.size, ino.sum = e.Size, sum
	}
	ino.attributes(e)
}

// attributes takes what a hard link's header changes, too.
func (ino *inode) attributes(e *abi.Entry) {
	ino.mode, ino.uid, ino.gid, ino.sec, ino.ns = e.Mode, e.UID, e.GID, e.MtimeSec, e.MtimeNs
	if ino.kind == abi.KindSymlink {
		ino.mode = 0o777
	}
	ino.xattrs = mergeXattrs(ino.xattrs, e.Xattrs)
}

// mergeXattrs returns a new slice with those of old that are not in more, and more. Both are sorted.
func mergeXattrs(old, more []abi.Xattr) []abi.Xattr {
	if len(more) == 0 {
		return old
	}
	out := make([]abi.Xattr, 0, len(old)+len(more))
	for len(old) > 0 && len(more) > 0 {
		switch c := strings.Compare(old[0].Key, more[0].Key); {
		case c < 0:
			out, old = append(out, old[0]), old[1:]
		case c == 0:
			old = old[1:]
		default:
			out, more = append(out, more[0]), more[1:]
		}
	}
	return append(append(out, old...), more...)
}

// target finds the file that a hard link names, and takes the link's attributes.
func (t *Tree) target(e *abi.Entry) (*inode, error) {
	dir, base := path.Split(e.Link)
	parent, err := t.walk(e, strings.TrimSuffix(dir, "/"), false)
	if err != nil {
		return nil, err
	}
	var n *node
	if parent != nil {
		n = parent.kids[base]
	}
	switch {
	case n == nil:
		return nil, fail(e, abi.ErrCorrupt, "hard link", "to "+quote(e.Link)+", which does not exist", "an earlier file")
	case n.ino.kind == abi.KindDir:
		return nil, fail(e, abi.ErrCorrupt, "hard link", "to the directory "+quote(e.Link), "a file")
	}
	n.ino.attributes(e)
	return n.ino, nil
}

func (t *Tree) add(e *abi.Entry, parent *node, name string, ino *inode) (*node, error) {
	if t.names >= t.opt.Names {
		return nil, fail(e, abi.ErrLimit, "names in the image", "too many", "fewer, see Options.Names")
	}
	if parent.depth >= maxDepth {
		return nil, fail(e, abi.ErrLimit, "directories above the entry", "too many", fmt.Sprintf("at most %d", maxDepth))
	}
	if parent.kids == nil {
		parent.kids = make(map[string]*node)
	}
	n := &node{name: strings.Clone(name), parent: parent, ino: ino, layer: t.layer, depth: parent.depth + 1}
	ino.names++
	t.names++
	parent.kids[n.name] = n
	return n, nil
}

// remove drops n and all below it.
func (t *Tree) remove(n *node) {
	delete(n.parent.kids, n.name)
	t.last = nil
	t.forget(n)
}

func (t *Tree) forget(n *node) {
	n.ino.names--
	t.names--
	for _, k := range n.kids {
		t.forget(k)
	}
}

// hide applies a whiteout to n: lower content goes. It tells whether something of this layer is left, at n or below.
func (t *Tree) hide(n *node) (stays bool) {
	if n.ino.kind != abi.KindDir {
		return n.layer == t.layer
	}
	stays = t.prune(n)
	if stays && n.layer < t.layer {
		*n.ino = *impliedInode()
		n.layer, n.implied = t.layer, true
	}
	return stays || n.layer == t.layer
}

// prune removes lower content below n and tells whether any name is left.
func (t *Tree) prune(n *node) bool {
	if n.pruned != t.layer {
		for _, k := range n.kids {
			if !t.hide(k) {
				t.remove(k)
			}
		}
		n.pruned = t.layer
	}
	return len(n.kids) > 0
}

// parent returns the directory for an entry of the current layer and implies what is missing.
func (t *Tree) parent(e *abi.Entry, dir string) (*node, error) {
	if t.last != nil && t.lastDir == dir {
		return t.last, nil
	}
	n, err := t.walk(e, dir, true)
	if err == nil {
		t.lastDir, t.last = dir, n
	}
	return n, err
}

// walk resolves dir. Without create it returns nil if dir does not exist or is no directory. Symbolic links are followed as
// the kernel does below a changed root; what does not exist counts as a directory to be, so that ".." takes it back.
func (t *Tree) walk(e *abi.Entry, dir string, create bool) (*node, error) {
	n, links, steps := t.root, 0, 0
	var missing []string // below n
	for rest := dir; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		if steps++; steps > maxSteps {
			return nil, fail(e, abi.ErrLimit, "steps to the parent through symbolic links", "too many", fmt.Sprintf("at most %d", maxSteps))
		}
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			if len(missing) > 0 {
				missing = missing[:len(missing)-1]
			} else if n.parent != nil {
				n = n.parent
			}
			continue
		}
		kid := n.kids[name]
		if len(missing) > 0 || kid == nil || t.replaceable(kid) {
			missing = append(missing, name)
			continue
		}
		switch kid.ino.kind {
		case abi.KindDir:
			n = kid
		case abi.KindSymlink:
			if links++; links > maxLinks {
				return nil, fail(e, abi.ErrCorrupt, "parent", "a loop of symbolic links", "a directory")
			}
			if path.IsAbs(kid.ino.link) {
				n = t.root
			}
			rest = kid.ino.link + "/" + rest
		default:
			if !create {
				return nil, nil
			}
			return nil, fail(e, abi.ErrCorrupt, "parent", quote(kid.path())+", which is no directory", "a directory")
		}
	}
	if len(missing) == 0 {
		return n, nil
	}
	if !create {
		return nil, nil
	}
	return t.imply(e, n, missing)
}

// replaceable tells whether a directory of the current layer would hide n.
func (t *Tree) replaceable(n *node) bool {
	return t.opt.Overlay && n.layer < t.layer && n.ino.kind != abi.KindDir
}

// imply creates directories below n.
func (t *Tree) imply(e *abi.Entry, n *node, names []string) (*node, error) {
	for _, name := range names {
		if old := n.kids[name]; old != nil {
			t.remove(old)
		}
		ino := impliedInode()
		ino.names = 0
		kid, err := t.add(e, n, name, ino)
		if err != nil {
			return nil, err
		}
		kid.implied = true
		if e.Flags&(abi.EntryWhiteout|abi.EntryOpaque) != 0 {
			kid.layer-- // exists, but is nothing that this layer brings
		}
		n = kid
	}
	return n, nil
}

func (n *node) path() string {
	if n.parent == nil {
		return ""
	}
	if n.parent.parent == nil {
		return n.name
	}
	return n.parent.path() + "/" + n.name
}
