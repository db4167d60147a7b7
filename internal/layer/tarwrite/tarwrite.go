// Package tarwrite encodes layer entries as tar headers: USTAR, with a pax header in front where USTAR has no room.
// Plugins use it, also in a wasm guest, to turn their format back into a layer; it keeps no state and imports only the
// standard library and abi.
//
//	buf, err = tarwrite.AppendHeader(buf[:0], &e) // then e.Size bytes of body
//	buf = tarwrite.AppendPadding(buf, e.Size)     // after the body
//	buf = tarwrite.AppendEnd(buf)                 // after the last member
//
// The same entry always gives the same bytes, and package layer reads back an equal entry. A directory's name gets a
// trailing slash, the root is "./". Only the fields of [abi.Entry] are written: no user names, no access times. Flags,
// Seq, Chunks and offsets are not part of a tar: a whiteout is written by its name.
package tarwrite

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/convhost/convhost/abi"
)

const (
	blockSize = 512
	maxOctal7 = 1<<21 - 1 // seven octal digits: ids and device numbers
	maxOctal  = 1<<33 - 1 // eleven: size and mtime
)

// typeFlags are the member types by kind.
var typeFlags = [...]byte{abi.KindRegular: '0', abi.KindHardlink: '1', abi.KindSymlink: '2', abi.KindChar: '3',
	abi.KindBlock: '4', abi.KindDir: '5', abi.KindFifo: '6'}

// AppendHeader appends the header blocks of e to dst, a multiple of 512 bytes. Xattrs are written in the order of their
// keys, whatever order e has. ErrInvalid: e breaks the rules of [abi.Entry]; ErrUnsupported: an attribute's name
// contains "=", which pax cannot say. dst is returned unchanged with an error.
func AppendHeader(dst []byte, e *abi.Entry) ([]byte, error) {
	if err := check(e); err != nil {
		return dst, err
	}
	name := e.Path
	switch {
	case name == "":
		name = "./"
	case e.Kind == abi.KindDir:
		name += "/"
	}
	var h header
	pax, err := xattrRecords(nil, e.Xattrs)
	if err != nil {
		return dst, abi.Errorf(abi.ClassOf(err), "tar header of %q: %w", e.Path, err)
	}
	if h.gid = e.GID; e.GID > maxOctal7 {
		h.gid, pax = 0, record(pax, "gid", strconv.FormatUint(uint64(e.GID), 10))
	}
	link := ""
	if e.Kind == abi.KindSymlink || e.Kind == abi.KindHardlink {
		if link = e.Link; len(link) > 100 {
			pax = record(pax, "linkpath", link)
		}
	}
	if h.mtime = e.MtimeSec; e.MtimeSec < 0 || e.MtimeSec > maxOctal || e.MtimeNs != 0 {
		pax = record(pax, "mtime", formatTime(e.MtimeSec, e.MtimeNs))
		h.mtime = min(max(e.MtimeSec, 0), maxOctal)
	}
	prefix, short, ok := split(name)
	if !ok {
		pax = record(pax, "path", name)
	}
	if h.size = e.Size; e.Size > maxOctal {
		h.size, pax = 0, record(pax, "size", strconv.FormatInt(e.Size, 10))
	}
	if h.uid = e.UID; e.UID > maxOctal7 {
		h.uid, pax = 0, record(pax, "uid", strconv.FormatUint(uint64(e.UID), 10))
	}
	if len(pax) > 0 {
		px := header{typ: 'x', mode: 0o644, size: int64(len(pax)), name: cut("PaxHeaders.0/" + name)}
		dst = append(px.append(dst), pax...)
		dst = AppendPadding(dst, int64(len(pax)))
	}
	h.typ, h.mode, h.name, h.prefix, h.link = typeFlags[e.Kind], e.Mode, short, prefix, link
	h.major, h.minor = e.DevMajor, e.DevMinor
	return h.append(dst), nil
}

// AppendPadding appends the zeros that follow a body of size bytes.
func AppendPadding(dst []byte, size int64) []byte {
	var zeros [blockSize]byte
	return append(dst, zeros[:Padding(size)]...)
}

// Padding returns how many zeros follow a body of size bytes: 0 to 511.
func Padding(size int64) int { return int(-size & (blockSize - 1)) }

// AppendEnd appends the end of an archive: two blocks of zeros.
func AppendEnd(dst []byte) []byte {
	var zeros [2 * blockSize]byte
	return append(dst, zeros[:]...)
}

func check(e *abi.Entry) error {
	bad := func(field, want string) error {
		return abi.Errorf(abi.ErrInvalid, "tar header of %q: %s, want %s", e.Path, field, want)
	}
	link := e.Kind == abi.KindSymlink || e.Kind == abi.KindHardlink
	dev := e.Kind == abi.KindChar || e.Kind == abi.KindBlock
	switch {
	case e.Kind == 0 || int(e.Kind) >= len(typeFlags):
		return bad("kind "+strconv.Itoa(int(e.Kind)), "1 to 7")
	case !clean(e.Path) || e.Path == "" && e.Kind != abi.KindDir:
		return bad("unclean path", `a relative path without NUL, "." and ".." (the root only as a directory)`)
	case link && (e.Link == "" || strings.IndexByte(e.Link, 0) >= 0), !link && e.Link != "":
		return bad("link target "+strconv.Quote(e.Link), "one without NUL for links, and none for others")
	case e.Kind == abi.KindHardlink && !clean(e.Link):
		return bad("hard link to "+strconv.Quote(e.Link), "a clean path")
	case e.Size < 0 || e.Size > 0 && e.Kind != abi.KindRegular:
		return bad("size "+strconv.FormatInt(e.Size, 10), "0 or more, and 0 for all but regular files")
	case e.Mode > 0o7777:
		return bad("mode "+strconv.FormatUint(uint64(e.Mode), 8), "at most 7777")
	case e.MtimeNs > 999999999:
		return bad("mtime nanoseconds "+strconv.Itoa(int(e.MtimeNs)), "at most 999999999")
	case !dev && (e.DevMajor != 0 || e.DevMinor != 0):
		return bad("a device number", "none for all but devices")
	}
	return nil
}

// clean tells whether p is as package layer gives paths.
func clean(p string) bool {
	if p == "" {
		return true
	}
	if strings.IndexByte(p, 0) >= 0 {
		return false
	}
	for el := range strings.SplitSeq(p, "/") {
		if el == "" || el == "." || el == ".." {
			return false
		}
	}
	return true
}

func xattrRecords(pax []byte, xs []abi.Xattr) ([]byte, error) {
	byKey := func(a, b abi.Xattr) int { return strings.Compare(a.Key, b.Key) }
	if !slices.IsSortedFunc(xs, byKey) {
		xs = slices.Clone(xs)
		slices.SortStableFunc(xs, byKey)
	}
	for i, x := range xs {
		switch {
		case x.Key == "" || strings.IndexByte(x.Key, 0) >= 0:
			return nil, abi.Errorf(abi.ErrInvalid, "xattr name %q, want one without NUL", x.Key)
		case strings.IndexByte(x.Key, '=') >= 0:
			return nil, abi.Errorf(abi.ErrUnsupported, `xattr name %q, want one without "="`, x.Key)
		case i > 0 && xs[i-1].Key == x.Key:
			return nil, abi.Errorf(abi.ErrInvalid, "xattr %q twice", x.Key)
		}
		pax = record(pax, "SCHILY.xattr."+x.Key, string(x.Value))
	}
	return pax, nil
}

// record appends "LENGTH KEY=VALUE\n"; the length counts itself.
func record(b []byte, key, value string) []byte {
	n := len(key) + len(value) + 3
	total := n + len(strconv.Itoa(n))
	total = n + len(strconv.Itoa(total))
	b = strconv.AppendInt(b, int64(total), 10)
	b = append(append(b, ' '), key...)
	b = append(append(b, '='), value...)
	return append(b, '\n')
}

// formatTime writes seconds with as many digits as needed. The sign holds for both parts.
func formatTime(sec int64, ns uint32) string {
	if ns == 0 {
		return strconv.FormatInt(sec, 10)
	}
	sign := ""
	if sec < 0 {
		sign, sec, ns = "-", -(sec + 1), 1e9-ns
	}
	frac := strconv.Itoa(1e9 + int(ns))[1:]
	return sign + strconv.FormatInt(sec, 10) + "." + strings.TrimRight(frac, "0")
}

// split divides a name into the two fields of USTAR. If it does not fit, name is its beginning, for readers without pax.
func split(s string) (prefix, name string, ok bool) {
	if len(s) <= 100 {
		return "", s, true
	}
	// The latest slash that leaves a prefix of at most 155 bytes and a name of 1 to 100.
	for i := min(155, len(s)-2); i > 0 && len(s)-i-1 <= 100; i-- {
		if s[i] == '/' {
			return s[:i], s[i+1:], true
		}
	}
	return "", cut(s), false
}

// cut shortens s to a name field, without a slash at its new end.
func cut(s string) string {
	if len(s) <= 100 {
		return s
	}
	return strings.TrimRight(s[:100], "/")
}

// header is one USTAR block; the fields fit.
type header struct {
	typ                byte
	name, prefix, link string
	mode, uid, gid     uint32
	size, mtime        int64
	major, minor       uint32
}

func (h *header) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, blockSize)...)
	b := dst[at:]
	copy(b[:100], h.name)
	octal(b[100:108], int64(h.mode))
	octal(b[108:116], int64(h.uid))
	octal(b[116:124], int64(h.gid))
	octal(b[124:136], h.size)
	octal(b[136:148], h.mtime)
	b[156] = h.typ
	copy(b[157:257], h.link)
	copy(b[257:265], "ustar\x0000")
	device(b[329:337], h.major)
	device(b[337:345], h.minor)
	copy(b[345:500], h.prefix)
	copy(b[148:156], bytes.Repeat([]byte{' '}, 8))
	var sum int64
	for _, c := range b {
		sum += int64(c)
	}
	octal(b[148:155], sum)
	b[155] = ' '
	return dst
}

// octal fills b with digits and a NUL.
func octal(b []byte, n int64) {
	b[len(b)-1] = 0
	for i := len(b) - 2; i >= 0; i-- {
		b[i] = byte('0' + n&7)
		n >>= 3
	}
}

// device writes octal, or base-256 if that has no room: pax has no record for device numbers.
func device(b []byte, n uint32) {
	if n <= maxOctal7 {
		octal(b, int64(n))
		return
	}
	b[0] = 0x80
	for i := len(b) - 1; i > 3; i-- {
		b[i] = byte(n)
		n >>= 8
	}
}
