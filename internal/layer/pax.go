package layer

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
)

// extended is what extended headers said about the next member. Slices point into Reader.ext.
type extended struct {
	seen               bool   // some extended header came
	longName, longLink []byte // GNU 'L' and 'K'; they win over pax, as in containerd
	pax
}

// pax is what one 'x' header said; a later one replaces an earlier one, as in containerd.
type pax struct {
	path, link            []byte
	size, uid, gid        int64 // -1: not said
	hasMtime              bool
	sec                   int64
	ns                    uint32
	sparseMajor, sparseMi []byte
	sparseName            []byte
	sparseSize, realSize  int64 // -1: not said
	sparseCount           int64 // -1: not said
	sparseMap             []byte
	pairs                 []segment // GNU.sparse.offset and numbytes of version 0.0
	openPair              bool      // an offset without its numbytes
}

var noPax = pax{size: -1, uid: -1, gid: -1, sparseSize: -1, realSize: -1, sparseCount: -1}

func (x *extended) reset() {
	pairs := x.pairs[:0]
	*x = extended{pax: noPax}
	x.pairs = pairs
}

// parsePax reads the records "LENGTH KEY=VALUE\n" of an 'x' header whose body starts at off.
func (r *Reader) parsePax(b []byte, off int64) error {
	pairs := r.x.pairs[:0]
	r.x.pax = noPax
	r.x.pairs = pairs
	r.xattrs = r.xattrs[:0]
	r.foreign = r.foreign[:0]
	for len(b) > 0 {
		num, rest, ok := bytes.Cut(b[:min(len(b), 20)], []byte{' '})
		n, good := parseDecimal(num)
		if !ok || !good || n > int64(len(b)) || n < int64(len(num))+4 || len(rest) == 0 {
			return r.paxError(off, "length", clip(num), "the record's length")
		}
		rec := b[len(num)+1 : n]
		if rec[len(rec)-1] != '\n' {
			return r.paxError(off, "end", "", "a line feed after its length")
		}
		key, value, ok := bytes.Cut(rec[:len(rec)-1], []byte{'='})
		if !ok || len(key) == 0 || bytes.IndexByte(key, 0) >= 0 {
			return r.paxError(off, "key", fmt.Sprintf("%q", clip(key)), `KEY=VALUE without NUL in the key`)
		}
		if err := r.paxRecord(string(key), value, off); err != nil {
			return err
		}
		b = b[n:]
		off += n
	}
	if r.x.openPair {
		return r.paxError(off, "GNU.sparse.offset", "alone", "GNU.sparse.numbytes after it")
	}
	return r.mergeXattrs(off)
}

func (r *Reader) paxError(off int64, what, got, want string) error {
	return &abi.FormatError{Class: abi.ErrCorrupt, Format: "tar", Off: off, Field: "pax record " + what, Got: got, Want: want}
}

// paxRecord takes one record. An empty value of a standard key means that the header block's value holds.
func (r *Reader) paxRecord(key string, value []byte, off int64) error {
	if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
		return r.addXattr(&r.xattrs, name, value, off)
	}
	if name, ok := strings.CutPrefix(key, "LIBARCHIVE.xattr."); ok {
		if name, value, ok := decodeForeign(name, value); ok {
			return r.addXattr(&r.foreign, name, value, off)
		}
		return nil
	}
	x := &r.x.pax
	if len(value) == 0 && key != "GNU.sparse.map" {
		return nil
	}
	ok := true
	switch key {
	case "path":
		x.path = value
	case "linkpath":
		x.link = value
	case "size":
		x.size, ok = parseDecimal(value)
		ok = ok && x.size >= 0
	case "uid":
		x.uid, ok = parseDecimal(value)
		ok = ok && x.uid >= 0
	case "gid":
		x.gid, ok = parseDecimal(value)
		ok = ok && x.gid >= 0
	case "mtime":
		x.sec, x.ns, ok = parsePaxTime(value)
		x.hasMtime = true
	default:
		if strings.HasPrefix(key, "GNU.sparse.") {
			return r.paxSparse(key, value, off)
		}
	}
	if !ok {
		return r.paxError(off, key, fmt.Sprintf("%q", clip(value)), "a number that is possible here")
	}
	return nil
}

func (r *Reader) paxSparse(key string, value []byte, off int64) error {
	x := &r.x.pax
	ok := true
	switch key {
	case "GNU.sparse.major":
		x.sparseMajor = value
	case "GNU.sparse.minor":
		x.sparseMi = value
	case "GNU.sparse.name":
		x.sparseName = value
	case "GNU.sparse.size":
		x.sparseSize, ok = parseDecimal(value)
		ok = ok && x.sparseSize >= 0
	case "GNU.sparse.realsize":
		x.realSize, ok = parseDecimal(value)
		ok = ok && x.realSize >= 0
	case "GNU.sparse.numblocks":
		x.sparseCount, ok = parseDecimal(value)
		ok = ok && x.sparseCount >= 0
	case "GNU.sparse.map":
		x.sparseMap = value
	case "GNU.sparse.offset", "GNU.sparse.numbytes":
		var n int64
		n, ok = parseDecimal(value)
		first := key == "GNU.sparse.offset"
		if ok = ok && n >= 0 && first != x.openPair; !ok {
			break
		}
		if x.openPair = first; first {
			if len(x.pairs) >= r.lim.SparseChunks {
				return r.limitError(off, "sparse regions", r.lim.SparseChunks)
			}
			x.pairs = append(x.pairs, segment{off: n})
		} else {
			x.pairs[len(x.pairs)-1].n = n
		}
	}
	if !ok {
		return r.paxError(off, key, fmt.Sprintf("%q", clip(value)), "a number that is possible here")
	}
	return nil
}

func (r *Reader) limitError(off int64, what string, limit any) error {
	return &abi.FormatError{Class: abi.ErrLimit, Format: "tar", Entry: r.entryName(), Off: off, Field: "number or size of " + what,
		Got: "too large", Want: fmt.Sprintf("at most %d", limit)}
}

func (r *Reader) addXattr(to *[]abi.Xattr, name string, value []byte, off int64) error {
	switch {
	case name == "":
		return r.paxError(off, "xattr", "without a name", "a name")
	case len(name) > 255: // XATTR_NAME_MAX
		return r.limitError(off, "bytes of an xattr name", 255)
	case len(value) > r.lim.XattrBytes:
		return r.limitError(off, "bytes of xattr "+clip([]byte(name)), r.lim.XattrBytes)
	case len(*to) >= r.lim.Xattrs:
		return r.limitError(off, "xattrs", r.lim.Xattrs)
	}
	*to = append(*to, abi.Xattr{Key: name, Value: append([]byte{}, value...)})
	return nil
}

// mergeXattrs sorts the attributes and rejects doubles. Libarchive writes each attribute in both namespaces: equal
// pairs are one, SCHILY wins otherwise, for that is what containerd reads.
func (r *Reader) mergeXattrs(off int64) error {
	byKey := func(a, b abi.Xattr) int { return strings.Compare(a.Key, b.Key) }
	slices.SortStableFunc(r.xattrs, byKey)
	for i := 1; i < len(r.xattrs); i++ {
		if r.xattrs[i].Key == r.xattrs[i-1].Key {
			return r.paxError(off, "xattr", fmt.Sprintf("%q twice", clip([]byte(r.xattrs[i].Key))), "each name once")
		}
	}
	if len(r.foreign) == 0 {
		return nil
	}
	own := len(r.xattrs)
	for _, f := range r.foreign {
		if _, found := slices.BinarySearchFunc(r.xattrs[:own], f, byKey); !found {
			r.xattrs = append(r.xattrs, f)
		}
	}
	slices.SortStableFunc(r.xattrs, byKey)
	for i := 1; i < len(r.xattrs); i++ {
		if r.xattrs[i].Key == r.xattrs[i-1].Key {
			return r.paxError(off, "xattr", fmt.Sprintf("%q twice", clip([]byte(r.xattrs[i].Key))), "each name once")
		}
	}
	return nil
}

// decodeForeign reads a LIBARCHIVE.xattr record: the name with %XX escapes, the value in base64 with or without padding.
func decodeForeign(name string, value []byte) (string, []byte, bool) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b.WriteByte(name[i])
			continue
		}
		if i+2 >= len(name) {
			return "", nil, false
		}
		hi, ok1 := unhex(name[i+1])
		lo, ok2 := unhex(name[i+2])
		if !ok1 || !ok2 || hi|lo == 0 {
			return "", nil, false
		}
		b.WriteByte(hi<<4 | lo)
		i += 2
	}
	v, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(string(value), "="))
	return b.String(), v, err == nil && b.Len() > 0
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
