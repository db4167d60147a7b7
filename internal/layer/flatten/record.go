package flatten

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/convhost/convhost/abi"
)

// Record is one name of a flattened image. Kind is never KindHardlink: all names of a file are equal.
type Record struct {
	Path               string // "" is the root
	Kind               abi.Kind
	Mode               uint32 // 07777
	UID, GID           uint32
	MtimeSec           int64
	MtimeNs            uint32
	Size               int64  // regular files
	Link               string // target of a symbolic link
	Group              string // first path of all names of this file if there is more than one, else ""
	DevMajor, DevMinor uint32
	Xattrs             []abi.Xattr // sorted by key; shared with the tree
	SHA256             [32]byte    // of a regular file's content
	Implied            bool        // a directory that no layer lists
}

// Records returns all names, the root first: a directory before its content, siblings in the order of their bytes. The
// tree must not change meanwhile.
func (t *Tree) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		groups := make(map[*inode]string)
		t.root.records("", groups, yield)
	}
}

// Len returns the number of records.
func (t *Tree) Len() int64 { return t.names + 1 }

func (n *node) records(path string, groups map[*inode]string, yield func(Record) bool) bool {
	ino := n.ino
	rec := Record{Path: path, Kind: ino.kind, Mode: ino.mode, UID: ino.uid, GID: ino.gid, MtimeSec: ino.sec, MtimeNs: ino.ns,
		Size: ino.size, Link: ino.link, DevMajor: ino.major, DevMinor: ino.minor, Xattrs: ino.xattrs, SHA256: ino.sum, Implied: n.implied}
	if ino.names > 1 {
		first, ok := groups[ino]
		if !ok {
			first = path
			groups[ino] = path
		}
		rec.Group = first
	}
	if !yield(rec) {
		return false
	}
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		sub := name
		if path != "" {
			sub = path + "/" + name
		}
		if !n.kids[name].records(sub, groups, yield) {
			return false
		}
	}
	return true
}

var kindNames = [...]string{abi.KindRegular: "file", abi.KindDir: "dir", abi.KindSymlink: "symlink", abi.KindHardlink: "hardlink",
	abi.KindChar: "char", abi.KindBlock: "block", abi.KindFifo: "fifo"}

func kindName(k abi.Kind) string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// MarshalJSON writes one object. Keys that say nothing about the kind are left out. A path, link, group or xattr name
// that is not UTF-8 stands as base64 under its key with "Base64" appended; values of xattrs are always base64.
//
//	{"path":"usr/bin/x","type":"file","mode":"0755","uid":0,"gid":0,"mtimeSec":1700000000,"mtimeNs":5,"size":12,"sha256":"…"}
func (r Record) MarshalJSON() ([]byte, error) {
	o := jsonObject{'{'}
	o.text("path", r.Path)
	o.value("type", kindName(r.Kind))
	o.value("mode", fmt.Sprintf("%04o", r.Mode))
	o.value("uid", r.UID)
	o.value("gid", r.GID)
	o.value("mtimeSec", r.MtimeSec)
	o.value("mtimeNs", r.MtimeNs)
	switch r.Kind {
	case abi.KindRegular:
		o.value("size", r.Size)
		o.value("sha256", hex.EncodeToString(r.SHA256[:]))
	case abi.KindSymlink:
		o.text("link", r.Link)
	case abi.KindChar, abi.KindBlock:
		o.value("devMajor", r.DevMajor)
		o.value("devMinor", r.DevMinor)
	}
	if r.Group != "" {
		o.text("group", r.Group)
	}
	if len(r.Xattrs) > 0 {
		list := make([]json.RawMessage, 0, len(r.Xattrs))
		for _, x := range r.Xattrs {
			xo := jsonObject{'{'}
			xo.text("key", x.Key)
			xo.value("value", base64.StdEncoding.EncodeToString(x.Value))
			list = append(list, json.RawMessage(append(xo, '}')))
		}
		o.value("xattrs", list)
	}
	if r.Implied {
		o.value("implied", true)
	}
	return append(o, '}'), nil
}

// jsonObject is an object under construction, its keys in the order they are written.
type jsonObject []byte

func (o *jsonObject) value(key string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers, strings and what this file builds cannot fail
	}
	if len(*o) > 1 {
		*o = append(*o, ',')
	}
	*o = append(append(append(append(*o, '"'), key...), '"', ':'), b...)
}

func (o *jsonObject) text(key, s string) {
	if utf8.ValidString(s) {
		o.value(key, s)
	} else {
		o.value(key+"Base64", base64.StdEncoding.EncodeToString([]byte(s)))
	}
}

func quote(s string) string { return strconv.QuoteToASCII(s) }
