package rafs6

import (
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
)

// An attribute, after the inode and a header of 12 zero bytes (3). Padded with zeros to 4 bytes.
//
//	0 u8 length of the name without its prefix   1 u8 number of the prefix   2 u16 length of the value
//	4 name, value

// xattrPrefixes are the five namespaces; the two with whole set stand for exactly one name.
var xattrPrefixes = [...]struct {
	prefix string
	index  byte
	whole  bool
}{
	{"user.", 1, false},
	{"system.posix_acl_access", 2, true},
	{"system.posix_acl_default", 3, true},
	{"trusted.", 4, false},
	{"security.", 6, false},
}

// splitXattr returns the prefix number and the rest of a name; ok is false for a name that has no place in RAFS.
func splitXattr(key string) (index byte, suffix string, ok bool) {
	for _, p := range xattrPrefixes {
		if p.whole && key == p.prefix {
			return p.index, "", true
		}
		if !p.whole && len(key) > len(p.prefix) && strings.HasPrefix(key, p.prefix) {
			return p.index, key[len(p.prefix):], true
		}
	}
	return 0, "", false
}

// appendXattrs encodes attributes sorted by name. Of two with one name the later counts.
func appendXattrs(dst []byte, e *abi.Entry, xs []abi.Xattr, drop bool) ([]byte, error) {
	byKey := func(a, b abi.Xattr) int { return strings.Compare(a.Key, b.Key) }
	if !slices.IsSortedFunc(xs, byKey) {
		xs = slices.Clone(xs)
		slices.SortStableFunc(xs, byKey)
	}
	start := len(dst)
	for k, x := range xs {
		if k+1 < len(xs) && xs[k+1].Key == x.Key {
			continue
		}
		index, suffix, ok := splitXattr(x.Key)
		if !ok {
			if drop {
				continue
			}
			return nil, badEntry(e, abi.ErrUnsupported, "xattr "+x.Key, "", "a name in user., trusted., security. or a posix_acl (or the option to drop others)")
		}
		if len(suffix) > 255 || len(x.Value) > 65535 {
			return nil, badEntry(e, abi.ErrLimit, "xattr "+x.Key, dec(len(x.Key))+" + "+dec(len(x.Value))+" bytes", "at most 255 + 65535")
		}
		dst = append(dst, byte(len(suffix)), index)
		dst = le.AppendUint16(dst, uint16(len(x.Value)))
		dst = append(append(dst, suffix...), x.Value...)
		for (len(dst)-start)%4 != 0 {
			dst = append(dst, 0)
		}
	}
	if n := len(dst) - start; n > maxXattrs {
		return nil, badEntry(e, abi.ErrLimit, "xattrs together", dec(n)+" bytes", "at most "+dec(maxXattrs))
	}
	return dst, nil
}

// decodeXattrs appends the attributes in p, which checkXattrs has accepted, to dst.
func decodeXattrs(dst []abi.Xattr, p []byte) []abi.Xattr {
	for len(p) >= 4 {
		nl, vl := int(p[0]), int(le.Uint16(p[2:]))
		key := ""
		for _, x := range xattrPrefixes {
			if x.index == p[1] {
				key = x.prefix
			}
		}
		key += string(p[4 : 4+nl])
		dst = append(dst, abi.Xattr{Key: key, Value: slices.Clone(p[4+nl : 4+nl+vl])})
		p = p[min(len(p), roundup(4+nl+vl, 4)):]
	}
	return dst
}

// checkXattrs says what is wrong with encoded attributes: the position in p and the rule, or -1.
func checkXattrs(p []byte) (at int, rule string) {
	for pos := 0; pos < len(p); {
		q := p[pos:]
		if len(q) < 4 {
			return pos, "xattr entry is cut off"
		}
		size := 4 + int(q[0]) + int(le.Uint16(q[2:]))
		if size > len(q) {
			return pos, "xattr entry leaves the inode's attributes"
		}
		known := false
		for _, x := range xattrPrefixes {
			known = known || x.index == q[1] && (q[0] == 0) == x.whole
		}
		if !known {
			return pos, "xattr namespace is unknown"
		}
		pos += min(len(q), roundup(size, 4))
	}
	return -1, ""
}

func sortXattrs(xs []abi.Xattr) []abi.Xattr {
	slices.SortFunc(xs, func(a, b abi.Xattr) int { return strings.Compare(a.Key, b.Key) })
	return xs
}
