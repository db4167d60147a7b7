package ext4

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
)

// Attributes stand in the free part of an inode and in at most one block. Entries grow from the front, values from the end.
//
//	0 u8 name length   1 u8 namespace   2 u16 offset of the value   4 u32 0 (inode of the value)   8 u32 size   12 u32 hash   16 name
//
// In the inode the entries follow a magic, and offsets count from the first entry; in a block they follow a header of 32 bytes
// (magic, references, 1, hash, checksum), are sorted, and offsets count from the start of the block. Four zero bytes end them.
const (
	xattrMagic   = 0xEA020000
	xattrEntry   = 16
	xattrHeader  = 32
	xattrMax     = 1 << 16
	maxXattrName = 255
)

// Namespaces by their number. A key of no known namespace has number 0 and stands in full: the kernel does not list it.
var namespaces = []struct {
	index  uint8
	prefix string
}{{2, "system.posix_acl_access"}, {3, "system.posix_acl_default"}, {8, "system.richacl"}, {1, "user."}, {4, "trusted."}, {6, "security."}, {7, "system."}, {10, "gnu."}}

func splitKey(key string) (index uint8, name string) {
	for _, ns := range namespaces {
		if strings.HasSuffix(ns.prefix, ".") && strings.HasPrefix(key, ns.prefix) && len(key) > len(ns.prefix) || key == ns.prefix {
			return ns.index, key[len(ns.prefix):]
		}
	}
	return 0, key
}

func joinKey(index uint8, name string) string {
	for _, ns := range namespaces {
		if ns.index == index {
			return ns.prefix + name
		}
	}
	return name
}

// attr is an attribute as it stands on disk.
type attr struct {
	index uint8
	name  string
	value []byte
	sum   uint32 // the hash that was read
}

func (x *attr) size() int { return (xattrEntry+len(x.name)+3)&^3 + (len(x.value)+3)&^3 }

func (x *attr) hash() uint32 { return x.hashAs(false) }

// hashAs counts the characters of the name as signed or unsigned: both are found in the field.
func (x *attr) hashAs(signed bool) (h uint32) {
	for i := range len(x.name) {
		h = h<<5 ^ h>>27 ^ char(x.name[i], signed)
	}
	for v := x.value; len(v) > 0; {
		var w [4]byte
		v = v[copy(w[:], v):]
		h = h<<16 ^ h>>16 ^ le.Uint32(w[:])
	}
	return h
}

func compareAttrs(a, b attr) int {
	return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), strings.Compare(a.name, b.name))
}

// setXattrs gives n the attributes of e. With merge those that e has not stay. The caller writes n.
func (a *Applier) setXattrs(e *abi.Entry, n *inode, merge bool) error {
	if merge && len(e.Xattrs) == 0 {
		return nil
	}
	var list []attr
	if merge {
		var err error
		if list, err = a.attrs(n); err != nil {
			return err
		}
	}
	for _, x := range e.Xattrs {
		at, err := toDisk(e, x)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(o attr) bool { return o.index == at.index && o.name == at.name })
		if i >= 0 {
			list[i] = at
		} else {
			list = append(list, at)
		}
	}
	if len(list) == 0 && n.acl() == 0 && (n.extra() == 0 || allZero(n.raw[goodOldIno+n.extra():])) {
		return nil
	}
	slices.SortFunc(list, compareAttrs)
	return a.putAttrs(e, n, list)
}

func toDisk(e *abi.Entry, x abi.Xattr) (attr, error) {
	index, name := splitKey(x.Key)
	if len(name) > maxXattrName {
		return attr{}, entryError(e, abi.ErrUnsupported, "name of an extended attribute", fmt.Sprintf("%d bytes", len(name)), "at most 255 behind the namespace")
	}
	if index == 7 && name == "data" {
		return attr{}, entryError(e, abi.ErrUnsupported, "extended attribute", x.Key, "another name: the file system keeps this one for itself")
	}
	at := attr{index: index, name: name, value: x.Value}
	if index == 2 || index == 3 {
		v, ok := aclToDisk(x.Value)
		if !ok {
			return attr{}, entryError(e, abi.ErrCorrupt, "extended attribute", x.Key+" of an unknown form", "a POSIX ACL, version 2")
		}
		at.value = v
	}
	return at, nil
}

// putAttrs writes sorted attributes: into the inode what fits there, the rest into a block.
func (a *Applier) putAttrs(e *abi.Entry, n *inode, list []attr) error {
	var in, out []attr
	room := -8 // behind the magic and before the end mark
	if n.extra() != 0 {
		room = len(n.raw) - goodOldIno - n.extra() - 8
	}
	size := 0
	for _, x := range list {
		if s := x.size(); s <= room {
			in, room = append(in, x), room-s
		} else {
			out, size = append(out, x), size+s
		}
	}
	if size > BlockSize-xattrHeader-4 {
		return entryError(e, abi.ErrUnsupported, "extended attributes", fmt.Sprintf("%d bytes", size), fmt.Sprintf("at most %d besides what fits into the inode", BlockSize-xattrHeader-4))
	}
	if n.extra() != 0 {
		area := n.raw[goodOldIno+n.extra():]
		clear(area)
		if len(in) > 0 {
			put32(area, 0, xattrMagic)
			fillAttrs(area[4:], 0, in)
		}
	}
	if len(out) == 0 {
		return a.dropXattrBlock(n)
	}
	return a.putXattrBlock(n, out)
}

// fillAttrs writes entries from offset at of p on, values from its end.
func fillAttrs(p []byte, at int, list []attr) {
	end := len(p) &^ 3
	for _, x := range list {
		p[at], p[at+1] = byte(len(x.name)), x.index
		if len(x.value) > 0 {
			end -= (len(x.value) + 3) &^ 3
			put16(p, at+2, uint32(end))
		}
		put32(p, at+8, uint32(len(x.value)))
		put32(p, at+12, x.hash())
		copy(p[at+xattrEntry:], x.name)
		copy(p[end:], x.value)
		at += (xattrEntry + len(x.name) + 3) &^ 3
	}
}

func (a *Applier) putXattrBlock(n *inode, list []attr) error {
	phys := n.acl()
	shared := false
	if phys != 0 {
		b, err := a.xattrBlock(n)
		if err != nil {
			return err
		}
		shared = u32(b.data, 4) != 1
	}
	if phys == 0 || shared {
		if err := a.dropXattrBlock(n); err != nil {
			return err
		}
		var err error
		if phys, err = a.allocMeta(); err != nil {
			return err
		}
		put32(a.sb, sbCompat, u32(a.sb, sbCompat)|compatExtAttr)
		n.setACL(phys)
		n.setBlocks(n.sectors()/(BlockSize/512) + 1)
	}
	p := a.fresh(phys, kindXattr, 0).data
	put32(p, 0, xattrMagic)
	put32(p, 4, 1)
	put32(p, 8, 1)
	fillAttrs(p, xattrHeader, list)
	h := uint32(0)
	for i := range list {
		x := list[i].hash()
		if x == 0 {
			h = 0
			break
		}
		h = h<<16 ^ h>>16 ^ x
	}
	put32(p, 12, h)
	return nil
}

// dropXattrBlock takes the attribute block off n. Where others share it, it stays for them.
func (a *allocator) dropXattrBlock(n *inode) error {
	phys := n.acl()
	if phys == 0 {
		return nil
	}
	b, err := a.xattrBlock(n)
	if err != nil {
		return err
	}
	if refs := u32(b.data, 4); refs > 1 {
		put32(b.data, 4, refs-1)
		b.dirty = true
	} else if err := a.freeRun(phys, 1); err != nil {
		return err
	}
	n.setACL(0)
	n.setBlocks(max(n.sectors()/(BlockSize/512), 1) - 1)
	return nil
}
