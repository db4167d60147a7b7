package abi

import (
	"encoding/binary"
	"slices"
)

// Kind is the type of a layer entry.
type Kind uint8

// Kinds.
const (
	KindRegular  Kind = 1
	KindDir      Kind = 2
	KindSymlink  Kind = 3
	KindHardlink Kind = 4 // Link names an entry of the same layer
	KindChar     Kind = 5
	KindBlock    Kind = 6
	KindFifo     Kind = 7
)

// Flags of an entry.
const (
	EntryWhiteout uint16 = 1 // the last element of Path starts with ".wh.": the rest of it is hidden in lower layers
	EntryOpaque   uint16 = 2 // the last element of Path is ".wh..wh..opq": the directory hides all lower content
	EntrySparse   uint16 = 4 // the body has holes: its bytes do not stand in one piece at BodyOff
)

// Xattr is one extended attribute.
type Xattr struct {
	Key   string // full name with its namespace
	Value []byte
}

// Entry is one member of a layer, parsed by the host: pax and GNU headers applied, names cleaned, limits checked.
//
// Path is relative, without leading or trailing slash, without "." and ".." elements; "" is the root directory. It
// may contain any byte but NUL. Whiteouts keep their names as in the layer and are flagged. Entries come in the order
// of the layer; a later one with the same path replaces an earlier one. Parents may be missing.
//
// A record is little endian; offsets of the fixed part:
//
//	 0 u32 record size, multiple of 8     4 u16 size of the fixed part (96)   6 u16 flags
//	 8 u8 kind, 3 reserved               12 u32 mode (07777)                 16 u32 uid      20 u32 gid
//	24 u32 dev major   28 u32 dev minor  32 i64 mtime seconds                40 u32 mtime ns 44 u32 chunks
//	48 u64 size        56 u64 header offset   64 u64 body offset             72 u64 seq
//	80 u32 path bytes  84 u32 link bytes      88 u32 xattr bytes             92 u32 xattr count
//
// followed by path, link, xattrs (each: u32 key bytes, u32 value bytes, key, value) and zeros up to the size. A reader
// skips what it does not know by the two sizes.
type Entry struct {
	Kind     Kind
	Flags    uint16
	Mode     uint32 // permission, setuid, setgid and sticky bits
	UID, GID uint32
	DevMajor uint32
	DevMinor uint32
	MtimeSec int64  // seconds since 1970, may be negative
	MtimeNs  uint32 // 0 … 999999999
	Size     int64  // bytes of a regular file after sparse expansion, else 0
	Chunks   uint32 // jobs the body became in automatic mode
	HdrOff   int64  // where the first header block of this entry starts in the tar
	BodyOff  int64  // where its body starts in the tar
	Seq      uint64 // number of the entry in the layer, from 0; the tag of its jobs in automatic mode
	Path     string
	Link     string  // target of a symlink as it stands; path of a hard link's target, cleaned like Path
	Xattrs   []Xattr // sorted by key
}

const entryFixed = 96

// RecordSize returns the size of e's record.
func (e *Entry) RecordSize() int {
	n := entryFixed + len(e.Path) + len(e.Link)
	for _, x := range e.Xattrs {
		n += 8 + len(x.Key) + len(x.Value)
	}
	return (n + 7) &^ 7
}

// Append encodes e.
func (e *Entry) Append(b []byte) []byte {
	le := binary.LittleEndian
	size := e.RecordSize()
	start := len(b)
	b = slices.Grow(b, size)
	xn := 0
	for _, x := range e.Xattrs {
		xn += 8 + len(x.Key) + len(x.Value)
	}
	b = le.AppendUint32(b, uint32(size))
	b = le.AppendUint16(b, entryFixed)
	b = le.AppendUint16(b, e.Flags)
	b = append(b, byte(e.Kind), 0, 0, 0)
	for _, v := range [...]uint32{e.Mode, e.UID, e.GID, e.DevMajor, e.DevMinor} {
		b = le.AppendUint32(b, v)
	}
	b = le.AppendUint64(b, uint64(e.MtimeSec))
	b = le.AppendUint32(b, e.MtimeNs)
	b = le.AppendUint32(b, e.Chunks)
	for _, v := range [...]uint64{uint64(e.Size), uint64(e.HdrOff), uint64(e.BodyOff), e.Seq} {
		b = le.AppendUint64(b, v)
	}
	for _, v := range [...]int{len(e.Path), len(e.Link), xn, len(e.Xattrs)} {
		b = le.AppendUint32(b, uint32(v))
	}
	b = append(b, e.Path...)
	b = append(b, e.Link...)
	for _, x := range e.Xattrs {
		b = le.AppendUint32(b, uint32(len(x.Key)))
		b = le.AppendUint32(b, uint32(len(x.Value)))
		b = append(b, x.Key...)
		b = append(b, x.Value...)
	}
	for len(b) < start+size {
		b = append(b, 0)
	}
	return b
}

// Decode reads the record at the start of b into e and returns the rest. Strings and values are copies.
func (e *Entry) Decode(b []byte) (rest []byte, err error) {
	size := min(len(b), entryFixed)
	if len(b) >= 4 {
		size = int(min(uint64(len(b)), uint64(binary.LittleEndian.Uint32(b))))
	}
	return e.DecodeText(b, string(b[:size]))
}

// DecodeText is Decode for a reader of many records: text is b as a string, at least the record that comes first, and e's
// strings become parts of it. So all entries of a batch share one copy.
func (e *Entry) DecodeText(b []byte, text string) (rest []byte, err error) {
	le := binary.LittleEndian
	if len(b) < entryFixed {
		return nil, entryError(len(b), "record", "shorter than its fixed part")
	}
	size, fixed := int(le.Uint32(b)), int(le.Uint16(b[4:]))
	if size > len(b) || fixed < entryFixed || size < fixed || size > len(text) {
		return nil, entryError(size, "record size", "within the buffer")
	}
	rest, rec := b[size:], b[:size]
	e.fixed(rec)
	pn, ln, xn, count := int(le.Uint32(rec[80:])), int(le.Uint32(rec[84:])), int(le.Uint32(rec[88:])), int(le.Uint32(rec[92:]))
	v, text := rec[fixed:], text[fixed:size]
	if pn > len(v) || ln > len(v)-pn || xn > len(v)-pn-ln {
		return nil, entryError(pn+ln+xn, "variable part", "within the record")
	}
	e.Path, e.Link, e.Xattrs = text[:pn], text[pn:pn+ln], e.Xattrs[:0]
	v, text = v[pn+ln:pn+ln+xn], text[pn+ln:]
	for range count {
		if len(v) < 8 {
			return nil, entryError(len(v), "xattr", "8 bytes of lengths")
		}
		kn, vn := int(le.Uint32(v)), int(le.Uint32(v[4:]))
		v, text = v[8:], text[8:]
		if kn > len(v) || vn > len(v)-kn {
			return nil, entryError(kn+vn, "xattr", "within the record")
		}
		e.Xattrs = append(e.Xattrs, Xattr{Key: text[:kn], Value: slices.Clone(v[kn : kn+vn])})
		v, text = v[kn+vn:], text[kn+vn:]
	}
	return rest, nil
}

// fixed reads the fixed part of a record.
func (e *Entry) fixed(rec []byte) {
	le := binary.LittleEndian
	_ = rec[entryFixed-1]
	e.Flags, e.Kind = le.Uint16(rec[6:]), Kind(rec[8])
	e.Mode, e.UID, e.GID = le.Uint32(rec[12:]), le.Uint32(rec[16:]), le.Uint32(rec[20:])
	e.DevMajor, e.DevMinor = le.Uint32(rec[24:]), le.Uint32(rec[28:])
	e.MtimeSec, e.MtimeNs = int64(le.Uint64(rec[32:])), le.Uint32(rec[40:])
	e.Chunks, e.Size = le.Uint32(rec[44:]), int64(le.Uint64(rec[48:]))
	e.HdrOff, e.BodyOff, e.Seq = int64(le.Uint64(rec[56:])), int64(le.Uint64(rec[64:])), le.Uint64(rec[72:])
}

func entryError(got int, field, want string) error {
	return Errorf(ErrPlugin, "entry record: %s (%d bytes), want %s", field, got, want)
}
