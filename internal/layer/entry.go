package layer

import (
	"fmt"
	"math"

	"github.com/convhost/convhost/abi"
)

// entry turns header block b and what extended headers said into e and prepares the body. skip is true for members
// that mean nothing in a layer.
func (r *Reader) entry(e *abi.Entry, b block) (skip bool, err error) {
	e.HdrOff = r.hdrOff
	typ := b[156]
	raw := r.rawName(b)
	r.raw = raw
	if typ == 0 {
		typ = '0'
		if len(raw) > 0 && raw[len(raw)-1] == '/' {
			typ = '5'
		}
	}
	if e.Kind = kindOf(typ); e.Kind == 0 {
		return false, r.fail(abi.ErrUnsupported, "member type", fmt.Sprintf("%q", typ), "a file, directory, link, device or fifo")
	}
	path, f := cleanName(raw, &r.lim)
	if f.class != 0 {
		return false, r.fail(f.class, "name", f.got, f.want)
	}
	flags, skip, f := classify(path)
	if f.class != 0 {
		return false, r.fail(f.class, "name", f.got, f.want)
	}
	e.Flags = flags
	if !skip {
		e.Path = string(path)
		r.name = e.Path
	}
	if err := r.attributes(e, b); err != nil {
		return false, err
	}
	if err := r.link(e, b); err != nil {
		return false, err
	}
	if err := r.body(e, b, typ); err != nil || skip {
		return skip, err
	}
	return false, r.number(e)
}

// number gives e its sequence number and applies what limits and layers demand of a whole entry.
func (r *Reader) number(e *abi.Entry) error {
	if e.Flags&(abi.EntryWhiteout|abi.EntryOpaque) != 0 {
		e.Kind, e.Size, e.Link, e.Xattrs, e.DevMajor, e.DevMinor = abi.KindRegular, 0, "", r.xattrs[:0], 0, 0
		e.Flags &^= abi.EntrySparse
		r.sparse, r.size, r.segs = true, 0, r.segs[:0] // nothing to read, but what is there gets skipped
		return r.count(e)
	}
	if e.Path == "" && e.Kind != abi.KindDir {
		return r.fail(abi.ErrCorrupt, "name", "the root directory", "a name, for this is no directory")
	}
	e.Xattrs = r.xattrs
	if n := e.RecordSize(); n > maxRecord {
		return r.limitError(e.HdrOff, "bytes of names and xattrs", maxRecord)
	}
	return r.count(e)
}

func (r *Reader) count(e *abi.Entry) error {
	if r.seq >= uint64(r.lim.Entries) {
		return r.limitError(e.HdrOff, "entries", r.lim.Entries)
	}
	e.Seq = r.seq
	r.seq++
	return nil
}

func kindOf(typ byte) abi.Kind {
	switch typ {
	case '0', '7', 'S':
		return abi.KindRegular
	case '1':
		return abi.KindHardlink
	case '2':
		return abi.KindSymlink
	case '3':
		return abi.KindChar
	case '4':
		return abi.KindBlock
	case '5':
		return abi.KindDir
	case '6':
		return abi.KindFifo
	}
	return 0
}

// rawName returns the member's name as it stands, in a slice that may be overwritten.
func (r *Reader) rawName(b block) []byte {
	switch {
	case len(r.x.sparseName) > 0 && (len(r.x.sparseMajor)+len(r.x.sparseMap)+len(r.x.pairs) > 0):
		return r.x.sparseName
	case len(r.x.longName) > 0:
		return r.x.longName
	case len(r.x.path) > 0:
		return r.x.path
	}
	r.nameBuf = r.nameBuf[:0]
	if p := b.prefix(); len(p) > 0 {
		r.nameBuf = append(append(r.nameBuf, p...), '/')
	}
	r.nameBuf = append(r.nameBuf, cstring(b[:100])...)
	return r.nameBuf
}

func (r *Reader) attributes(e *abi.Entry, b block) error {
	mode, ok := parseNumber(b[100:108])
	if !ok {
		return r.fail(abi.ErrCorrupt, "mode", fmt.Sprintf("%q", b[100:108]), "a number")
	}
	e.Mode = uint32(mode) & 0o7777
	var err error
	if e.UID, err = r.id(b[108:116], "uid", r.x.uid); err != nil {
		return err
	}
	if e.GID, err = r.id(b[116:124], "gid", r.x.gid); err != nil {
		return err
	}
	if e.Kind == abi.KindChar || e.Kind == abi.KindBlock {
		if e.DevMajor, err = r.id(b[329:337], "device major", -1); err != nil {
			return err
		}
		if e.DevMinor, err = r.id(b[337:345], "device minor", -1); err != nil {
			return err
		}
		if b.format() == formatV7 {
			e.DevMajor, e.DevMinor = 0, 0
		}
	}
	if r.x.hasMtime {
		e.MtimeSec, e.MtimeNs = r.x.sec, r.x.ns
		return nil
	}
	if e.MtimeSec, ok = parseNumber(b[136:148]); !ok {
		return r.fail(abi.ErrCorrupt, "mtime", fmt.Sprintf("%q", b[136:148]), "a number")
	}
	return nil
}

// id reads a number of 32 bits; pax is what an extended header says, or -1.
func (r *Reader) id(field []byte, name string, pax int64) (uint32, error) {
	n, ok := pax, true
	if pax < 0 {
		n, ok = parseNumber(field)
	}
	if !ok || n < 0 || n > math.MaxUint32 {
		return 0, r.fail(abi.ErrCorrupt, name, fmt.Sprintf("%d (field %q)", n, field), "0 to 4294967295")
	}
	return uint32(n), nil
}

func (r *Reader) link(e *abi.Entry, b block) error {
	if e.Kind != abi.KindSymlink && e.Kind != abi.KindHardlink {
		return nil
	}
	link := r.x.longLink
	if len(link) == 0 {
		link = r.x.pax.link
	}
	if len(link) == 0 {
		link = cstring(b[157:257])
	}
	var f fault
	if e.Kind == abi.KindHardlink {
		// b may be the buffer of the source: clean a copy.
		r.nameBuf = append(r.nameBuf[:0], link...)
		if link, f = cleanName(r.nameBuf, &r.lim); f.class == 0 && len(link) == 0 {
			f = fault{abi.ErrCorrupt, "the root directory", "a file"}
		}
	} else {
		f = r.checkSymlink(link)
	}
	if f.class != 0 {
		return r.fail(f.class, "link target", f.got, f.want)
	}
	e.Link = string(link)
	return nil
}

func (r *Reader) checkSymlink(link []byte) fault {
	if len(link) == 0 {
		return fault{abi.ErrCorrupt, "empty", "a target"}
	}
	if len(link) > r.lim.PathBytes {
		return fault{abi.ErrLimit, fmt.Sprintf("%d bytes", len(link)), fmt.Sprintf("at most %d", r.lim.PathBytes)}
	}
	for _, c := range link {
		if c == 0 {
			return fault{abi.ErrCorrupt, fmt.Sprintf("%q", clip(link)), "no NUL byte"}
		}
	}
	return fault{}
}

// body prepares r for reading the member's data. Links, directories, devices and fifos have none, whatever they claim.
func (r *Reader) body(e *abi.Entry, b block, typ byte) error {
	r.phys, r.pad, r.size, r.pos, r.seg, r.sparse = 0, 0, 0, 0, 0, false
	e.BodyOff = r.src.off
	if e.Kind != abi.KindRegular {
		return nil
	}
	size, ok := r.x.size, true
	if size < 0 {
		size, ok = parseNumber(b[124:136])
	}
	if !ok || size < 0 {
		return r.fail(abi.ErrCorrupt, "size", fmt.Sprintf("%d (field %q)", size, b[124:136]), "0 or more")
	}
	if size > r.lim.FileBytes {
		return r.limitError(r.hdrOff, "bytes of a file", r.lim.FileBytes)
	}
	r.phys, r.size, r.pad = size, size, padding(size)
	var old block
	if typ == 'S' {
		old = b
	}
	if err := r.setupSparse(old); err != nil {
		return err
	}
	if r.sparse {
		e.Flags |= abi.EntrySparse
	}
	e.BodyOff = r.src.off
	e.Size = r.size
	return nil
}
