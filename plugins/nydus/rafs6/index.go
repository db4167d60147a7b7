package rafs6

import (
	"github.com/convhost/convhost/abi"
)

// The index finds a name below a directory while a tree changes. Only its speed depends on the random seed. A slot holds the
// low half of the hash above node+1; 0 is a slot that was never used, slotGone one whose name was removed.

const slotGone = 1<<32 - 1

func slotOf(h uint64, n int32) uint64 { return h<<32 | uint64(uint32(n+1)) }

// hash multiplies by a secret odd number for every 8 bytes. The standard library's hash needs 128-bit products, which
// take longer than all the rest in a wasm guest.
func (t *Tree) hash(parent int32, name []byte) uint64 {
	h := t.seed ^ uint64(uint32(parent))<<32 ^ uint64(len(name))
	for rest := name; len(rest) > 8; rest = rest[8:] {
		h = (h ^ le.Uint64(rest)) * t.mult
		h ^= h >> 29
	}
	var tail uint64
	switch n := len(name); {
	case n >= 8:
		tail = le.Uint64(name[n-8:]) // once more what the loop has seen of it
	case n >= 4:
		tail = uint64(le.Uint32(name)) | uint64(le.Uint32(name[n-4:]))<<32
	case n > 0:
		tail = uint64(name[0]) | uint64(name[n/2])<<8 | uint64(name[n-1])<<16
	}
	h = (h ^ tail) * t.mult
	h ^= h >> 32
	h *= 0xD6E8FEB86659FD93
	return h ^ h>>32
}

// find returns the node called name below parent and its slot; node -1 if there is none.
func (t *Tree) find(parent int32, name []byte) (n int32, slot int) {
	return t.lookup(t.hash(parent, name), parent, name)
}

// lookup is find for a hash that is known.
func (t *Tree) lookup(h uint64, parent int32, name []byte) (n int32, slot int) {
	if t.nodes.at(parent).flags&nodeBare != 0 {
		t.adopt(parent)
	}
	if len(t.index) == 0 {
		return -1, -1
	}
	mask := uint32(len(t.index) - 1)
	for s := uint32(h) & mask; ; s = (s + 1) & mask {
		v := t.index[s]
		if v == 0 {
			return -1, -1
		}
		if uint32(v>>32) != uint32(h) || v&slotGone == slotGone {
			continue
		}
		n := int32(uint32(v)) - 1
		if c := t.nodes.at(n); c.parent == parent && int(c.nlen) == len(name) && string(t.text.get(c.name, len(name))) == string(name) {
			return n, int(s)
		}
	}
}

// link enters a node that find does not find yet. h is the hash of its name.
func (t *Tree) link(h uint64, n int32) {
	if 4*(t.used+1) > 3*len(t.index) {
		t.rehash()
	}
	mask := uint32(len(t.index) - 1)
	s := uint32(h) & mask
	for t.index[s] != 0 && t.index[s]&slotGone != slotGone {
		s = (s + 1) & mask
	}
	if t.index[s] == 0 {
		t.used++
	}
	t.index[s] = slotOf(h, n)
}

func (t *Tree) rehash() {
	live := 0
	for _, v := range t.index {
		if v != 0 && v&slotGone != slotGone {
			live++
		}
	}
	size := 64
	for size < 4*(live+1) {
		size *= 2
	}
	old, mask := t.index, uint32(size-1)
	t.index, t.used = make([]uint64, size), live
	for _, v := range old {
		if v == 0 || v&slotGone == slotGone {
			continue
		}
		s := uint32(v>>32) & mask
		for t.index[s] != 0 {
			s = (s + 1) & mask
		}
		t.index[s] = v
	}
}

// adopt enters the names of directory d. Trees that were loaded have no index at first: most of their directories nobody asks.
func (t *Tree) adopt(d int32) {
	t.nodes.at(d).flags &^= nodeBare
	i := t.inodeOf(d)
	for k := i.data; k < i.data+i.count; k++ {
		n := int32(k) // the loader adds them in a row
		if t.order != nil {
			n = t.order[k]
		}
		if v := t.nodes.at(n); v.flags&nodeDead == 0 {
			t.link(t.hash(d, t.text.get(v.name, int(v.nlen))), n)
		}
	}
}

// addNode adds a name without entering it into the index.
func (t *Tree) addNode(parent int32, name []byte, ino int32, flags uint8) (int32, error) {
	depth := t.nodes.at(parent).depth
	if depth >= MaxDepth {
		return 0, errDeep
	}
	ref, ok := t.text.add(name)
	if !ok || t.nodes.n == 1<<31-1 {
		return 0, errFull
	}
	return t.nodes.add(node{name: ref, nlen: uint8(len(name)), parent: parent, inode: ino, flags: flags, depth: depth + 1}), nil
}

// put makes name below parent a name of ino and returns its node. What was there before is replaced; a directory
// takes what is below it away, unless the new inode is a directory, too, and keep is set.
func (t *Tree) put(parent int32, name []byte, ino int32, flags uint8, keep bool) (int32, error) {
	h := t.hash(parent, name)
	old, slot := t.lookup(h, parent, name)
	if old < 0 {
		n, err := t.addNode(parent, name, ino, flags)
		if err == nil {
			t.link(h, n)
		}
		return n, err
	}
	return t.replace(old, slot, ino, flags, keep), nil
}

// replace is put for a name that is there, in that slot.
func (t *Tree) replace(old int32, slot int, ino int32, flags uint8, keep bool) int32 {
	v := t.nodes.at(old)
	wasDir := t.inodes.at(v.inode).isDir()
	if !wasDir || keep && t.inodes.at(ino).isDir() {
		if v.flags&nodeBare != 0 {
			t.adopt(old) // its inode knows what is below it
		}
		v.inode, v.flags = ino, flags
		return old
	}
	v.flags |= nodeDead
	n := t.nodes.add(node{name: v.name, nlen: v.nlen, parent: v.parent, inode: ino, flags: flags, depth: v.depth})
	t.index[slot] = slotOf(t.index[slot]>>32, n)
	return n
}

// remove takes name below parent away, with everything below it.
func (t *Tree) remove(parent int32, name []byte) {
	if n, slot := t.find(parent, name); n >= 0 {
		t.nodes.at(n).flags |= nodeDead
		t.index[slot] |= slotGone
	}
}

// empty takes everything below directory n away and returns the node that stands for it from now on.
func (t *Tree) empty(n int32) int32 {
	v := t.nodes.at(n)
	if n == root {
		for i := int32(1); i < t.nodes.n; i++ {
			if c := t.nodes.at(i); c.parent == root && c.flags&nodeDead == 0 {
				t.remove(root, t.name(i))
			}
		}
		return n
	}
	_, slot := t.find(v.parent, t.name(n))
	fresh := t.nodes.add(*v)
	t.nodes.at(fresh).flags &^= nodeBare
	v.flags |= nodeDead
	t.index[slot] = slotOf(t.index[slot]>>32, fresh)
	return fresh
}

// Reasons why a path cannot be entered; the caller adds which path.
var (
	errDeep   = abi.Errorf(abi.ErrLimit, "more than %d directories inside each other", MaxDepth)
	errFull   = abi.Errorf(abi.ErrLimit, "names, links and attributes need more than 4 GiB")
	errNotDir = abi.Errorf(abi.ErrCorrupt, "a parent is not a directory")
	errLoop   = abi.Errorf(abi.ErrCorrupt, "too many symbolic links in the path")
)

// maxLinks is how many symbolic links one path may lead through; containerd has the same number.
const (
	maxLinks = 255
	maxSteps = 1 << 15 // elements of a path and of all link targets on its way
)

// resolve walks path from dir as containerd's fs.RootPath does: symbolic links are followed, absolute ones from the
// root of the tree, and ".." stops at the root. What is missing counts as a directory to be, so that ".." takes it
// back; if something is still missing at the end, it is made (implied, 0755 0:0 mtime 0) if create is set, else the result is -1.
func (t *Tree) resolve(dir int32, path string, create bool) (int32, error) {
	links := 0
	return t.resolveOn(dir, path, create, &links)
}

// resolveOn is resolve behind a part of the path that led through links symbolic links, and counts on.
func (t *Tree) resolveOn(dir int32, path string, create bool, links *int) (int32, error) {
	steps := 0
	var missing []string
	for path != "" {
		elem := path
		if i := indexByte(path, '/'); i >= 0 {
			elem, path = path[:i], path[i+1:]
		} else {
			path = ""
		}
		if steps++; steps > maxSteps {
			return -1, errLoop
		}
		n := int32(-1)
		switch {
		case elem == "" || elem == ".":
			continue
		case elem == ".." && len(missing) > 0:
			missing = missing[:len(missing)-1]
			continue
		case elem == "..":
			if dir != root {
				dir = t.nodes.at(dir).parent
			}
			continue
		case len(missing) == 0:
			n, _ = t.find(dir, []byte(elem))
		}
		if n < 0 {
			missing = append(missing, elem)
			continue
		}
		i := t.inodeOf(n)
		switch i.mode & modeType {
		case modeDir:
			dir = n
		case modeLink:
			target := string(t.target(i))
			if *links++; *links > maxLinks || len(target)+len(path) > 1<<20 {
				return -1, errLoop
			}
			if target[0] == '/' {
				dir = root
			}
			path = target + "/" + path
		default:
			return -1, errNotDir
		}
	}
	return t.imply(dir, missing, create)
}

// imply makes the directories that resolve missed.
func (t *Tree) imply(dir int32, missing []string, create bool) (int32, error) {
	if len(missing) > 0 && !create {
		return -1, nil
	}
	for _, name := range missing {
		if len(name) > MaxName {
			return -1, errLong
		}
		var err error
		if dir, err = t.put(dir, []byte(name), t.inodes.add(inode{mode: modeDir | 0o755}), nodeImplied, false); err != nil {
			return -1, err
		}
	}
	return dir, nil
}

var errLong = abi.Errorf(abi.ErrLimit, "a path element is longer than %d bytes", MaxName)

func indexByte(s string, c byte) int {
	for i := range len(s) {
		if s[i] == c {
			return i
		}
	}
	return -1
}
