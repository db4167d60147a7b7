package ext4

import (
	"fmt"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
)

// xattrBlock opens the attribute block of n.
func (v *volume) xattrBlock(n *inode) (*block, error) {
	b, err := v.get(n.acl())
	if err != nil {
		return nil, err
	}
	at := int64(b.n) * BlockSize
	if u32(b.data, 0) != xattrMagic || u32(b.data, 8) != 1 || u32(b.data, 4) == 0 {
		return nil, bad(at, "attribute block of "+inoName(n.num), fmt.Sprintf("%x", b.data[:12]), "its magic, references, one block")
	}
	if !b.dirty {
		b.kind = kindXattr
		if err := v.sealed(b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// attrs reads all attributes of n in the order they stand. Values are copies.
func (v *volume) attrs(n *inode) ([]attr, error) {
	var out []attr
	if x := n.extra(); x != 0 && len(n.raw)-goodOldIno-x >= 8 {
		if area := n.raw[goodOldIno+x:]; u32(area, 0) == xattrMagic {
			at := v.inodeOff(n.num) + int64(goodOldIno+x+4)
			var err error
			if out, err = parseAttrs(out, area[4:], 0, at); err != nil {
				return nil, err
			}
		}
	}
	if n.acl() == 0 {
		return out, nil
	}
	b, err := v.xattrBlock(n)
	if err != nil {
		return nil, err
	}
	return parseAttrs(out, b.data, xattrHeader, int64(b.n)*BlockSize)
}

func parseAttrs(out []attr, p []byte, at int, off int64) ([]attr, error) {
	for at+4 <= len(p) && u32(p, at) != 0 {
		if at+xattrEntry > len(p) || at+xattrEntry+int(p[at]) > len(p) {
			return nil, bad(off+int64(at), "extended attribute", "cut off", "its entry within the area")
		}
		x := attr{index: p[at+1], name: string(p[at+xattrEntry : at+xattrEntry+int(p[at])]), sum: u32(p, at+12)}
		pos, size := int(u16(p, at+2)), u32(p, at+8)
		if u32(p, at+4) != 0 {
			return nil, unsupported(off+int64(at)+4, "value of an extended attribute", "in an inode of its own", "in place (no ea_inode)")
		}
		if pos > len(p) || uint64(size) > uint64(len(p)-pos) {
			return nil, bad(off+int64(at)+2, "value of an extended attribute", fmt.Sprintf("%d+%d", pos, size), "within the area")
		}
		x.value = slices.Clone(p[pos : pos+int(size)])
		out = append(out, x)
		at += (xattrEntry + len(x.name) + 3) &^ 3
	}
	return out, nil
}

// xattrs returns the attributes of n as they are known outside, sorted by key.
func (v *volume) xattrs(n *inode) ([]abi.Xattr, error) {
	list, err := v.attrs(n)
	if err != nil {
		return nil, err
	}
	var out []abi.Xattr
	for _, x := range list {
		val := x.value
		if x.index == 2 || x.index == 3 {
			var ok bool
			if val, ok = aclFromDisk(val); !ok {
				return nil, bad(v.inodeOff(n.num), "POSIX ACL of "+inoName(n.num), fmt.Sprintf("%x", x.value), "version 1, whole entries")
			}
		}
		out = append(out, abi.Xattr{Key: joinKey(x.index, x.name), Value: val})
	}
	slices.SortFunc(out, func(x, y abi.Xattr) int { return strings.Compare(x.Key, y.Key) })
	return out, nil
}
