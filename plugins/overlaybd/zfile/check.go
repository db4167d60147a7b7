package zfile

import (
	"bytes"
	"io"

	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// maxFindings bounds what Check collects of either kind.
const maxFindings = 1000

// Check reads all of a file, verifies the checksum of every block and decompresses it, and reports every violation, up to 1000.
// errs are rules that readers enforce: what they name cannot be read. notes are deviations that readers ignore.
func Check(r io.ReaderAt, size int64, o Options) (errs, notes []error) {
	f, err := Open(r, size, o)
	if err != nil {
		return []error{err}, nil
	}
	c := checker{f: f}
	c.record(0, "header", true)
	if size >= 2*HeaderSize {
		c.record(size-HeaderSize, "trailer", false)
	}
	if end := f.table.end; end != f.head.IndexOffset {
		c.note(end, "bytes between blocks and jump table", codecerr.Dec(f.head.IndexOffset-end), "0")
	}
	if end := f.head.IndexOffset + f.head.Blocks*entrySize; end != size-HeaderSize {
		c.note(end, "bytes between jump table and trailer", codecerr.Dec(size-HeaderSize-end), "0")
	}
	c.blocks()
	return c.errs, c.notes
}

type checker struct {
	f           *File
	errs, notes []error
}

func (c *checker) bad(err error) {
	if len(c.errs) < maxFindings {
		c.errs = append(c.errs, err)
	}
}

func (c *checker) note(off int64, field, got, want string) {
	if len(c.notes) < maxFindings {
		c.notes = append(c.notes, format.Corrupt(off, field, got, want))
	}
}

// record notes what the header or trailer at off has that readers do not look at.
func (c *checker) record(off int64, name string, header bool) {
	b := make([]byte, HeaderSize)
	if err := format.ReadFull(c.f.r, b, off, name); err != nil {
		c.bad(err)
		return
	}
	v := headerView(b)
	if !v.magic() || (v.flags()&flagHeader != 0) != header {
		c.note(off, name+".magic", "", "header and trailer at both ends")
		return
	}
	if v.size() != headerUsed {
		c.note(off+offSize, name+".size", codecerr.Dec(v.size()), "96")
	}
	if v.flags()&^flagsKnown != 0 {
		c.note(off+offFlags, name+".flags", codecerr.Hex(v.flags()), "known bits only")
	}
	switch {
	case v.flags()&flagDigest == 0:
		c.note(off+offFlags, name+".flags", codecerr.Hex(v.flags()), "a digest")
	case v.digest() != v.sum():
		c.note(off+offDigest, name+".digest", codecerr.Hex(v.digest()), codecerr.Hex(v.sum()))
	}
	if !allZero(b[offRes1:offBlock]) || !allZero(b[offLevel:offDict]) || !allZero(b[offPad:headerUsed]) || !allZero(b[headerUsed:]) {
		c.note(off+offRes1, name+" reserved bytes", "", "zeros")
	}
	if v.dictSize() != 0 {
		c.note(off+offDict, name+".dict_size", codecerr.Dec(v.dictSize()), "0")
	}
	if !header || v.flags()&flagComplete != 0 {
		c.same(v, off, name)
	}
}

// same notes whether the record that was not used agrees with the one that was.
func (c *checker) same(v headerView, off int64, name string) {
	h := c.f.head
	if int64(v.indexOffset()) != h.IndexOffset || int64(v.indexSize()) != h.Blocks || int64(v.length()) != h.Length ||
		v.indexCRC() != h.IndexCRC || int(v.blockSize()) != h.BlockSize || Algorithm(v.algo()) != h.Algorithm || v.verify() != h.Verify {
		c.note(off, name, "not the same as at the file's other end", "equal fields")
	}
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func (c *checker) blocks() {
	f := c.f
	content := make([]byte, f.head.BlockSize)
	one := make([]byte, 0, maxStored)
	for k := range f.head.Blocks {
		at := f.table.position(k)
		one = one[:f.table.position(k+1)-at]
		err := format.ReadFull(f.r, one, at, "block")
		if err == nil {
			err = f.decode(content[:f.blockLength(k)], one, at)
		}
		if err != nil {
			c.bad(err)
		}
	}
}
