package rafs6

import (
	"bytes"

	"github.com/convhost/convhost/abi"
)

// dirReader reads the entries of directory n.
type dirReader struct {
	l    *loader
	n    int32
	dir  *inode // of n
	prev []byte
	dots int
}

// block reads one block of entries at file offset off.
func (d *dirReader) block(p []byte, off int64, last bool) error {
	if len(p) < direntSize {
		return badBoot(off, "directory block", dec(len(p))+" bytes", "at least one entry")
	}
	first := int(le.Uint16(p[8:]))
	if first == 0 || first%direntSize != 0 || first > len(p) {
		return badBoot(off+8, "first nameoff", dec(first), "a multiple of 12 in the block")
	}
	for k := 0; k < first; k += direntSize {
		start, end := int(le.Uint16(p[k+8:])), len(p)
		if k+direntSize < first {
			end = int(le.Uint16(p[k+direntSize+8:]))
		}
		if start < first || end < start || end > len(p) {
			return badBoot(off+int64(k)+8, "nameoff", dec(start), "ascending, in the block")
		}
		name := p[start:end]
		if k+direntSize >= first && !last {
			if z := bytes.IndexByte(name, 0); z >= 0 {
				name = name[:z]
			}
		}
		if err := d.entry(p[k:k+direntSize], name, off+int64(k)); err != nil {
			return err
		}
	}
	return nil
}

func (d *dirReader) entry(p, name []byte, off int64) error {
	l, t := d.l, d.l.t
	if !nameOK(name) {
		return badBoot(off, "name", quote(string(name[:min(len(name), 300)])), "1 … 255 bytes without NUL and slash")
	}
	if d.prev != nil && bytes.Compare(d.prev, name) >= 0 {
		return badBoot(off, "name", quote(string(name)), "sorted, behind "+quote(string(d.prev)))
	}
	d.prev = name
	nid := le.Uint64(p)
	if nid > 1<<32-1 {
		return badBoot(off, "nid", udec(nid), "within the file")
	}
	if string(name) == "." || string(name) == ".." {
		d.dots++
		want := d.n
		if len(name) == 2 {
			want = t.nodes.at(d.n).parent
		}
		if w := t.inodeOf(want).nid; uint32(nid) != w || p[10] != 2 {
			return l.rule(badBoot(off, "nid of "+string(name), udec(nid), udec(w)))
		}
		return nil
	}
	ino, err := l.child(uint32(nid), off)
	if err != nil {
		return err
	}
	i := t.inodes.at(ino)
	if want := direntType(i.mode); p[10] != want || p[11] != 0 {
		if err := l.rule(badBoot(off+10, "file_type of "+quote(string(name)), hex(p[10]), hex(want))); err != nil {
			return err
		}
	}
	n, err := t.addNode(d.n, name, ino, 0)
	if err != nil {
		return badEntryIn(err, off)
	}
	i.nlink++
	d.dir.count++
	if i.isDir() {
		i.nlink = 2
		d.dir.nlink++
	}
	l.named(n)
	return nil
}

// nameOK reports whether a name can be one. Names are short: two calls of IndexByte take longer.
func nameOK(name []byte) bool {
	for _, c := range name {
		if c == 0 || c == '/' {
			return false
		}
	}
	return len(name) > 0 && len(name) <= MaxName
}

func badEntryIn(err error, off int64) error {
	return fail(abi.ClassOf(err), formatBoot, off, err.Error(), "", "")
}

// child returns the inode for a directory entry.
func (l *loader) child(nid uint32, off int64) (int32, error) {
	ino, err := l.readInode(nid)
	if err != nil {
		return 0, err
	}
	if l.t.inodes.at(ino).isDir() {
		if l.dirs[nid] {
			return 0, badBoot(off, "directory", "reached twice (nid "+udec(nid)+")", "one parent")
		}
		l.dirs[nid] = true
	}
	return ino, nil
}
