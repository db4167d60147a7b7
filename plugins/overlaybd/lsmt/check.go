package lsmt

import (
	"errors"
	"io"
	"strings"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// maxFindings bounds what Check collects of either kind.
const maxFindings = 1000

// Check reads all of a sealed layer's structure and reports every violation, up to 1000. errs are rules that readers enforce: a
// file that has one cannot be used. notes are deviations from the format that readers ignore. Data is not read: LSMT has
// no checksum for it.
func Check(r io.ReaderAt, size int64, o Options) (errs, notes []error) {
	c := &checker{r: r, size: size, o: o}
	c.run()
	return c.errs, c.notes
}

type checker struct {
	r           io.ReaderAt
	size        int64
	o           Options
	errs, notes []error
	last        uint64 // end of the last segment
	padded      bool
}

func (c *checker) bad(err error) {
	if err != nil && len(c.errs) < maxFindings {
		c.errs = append(c.errs, err)
	}
}

func (c *checker) note(off int64, field, got, want string) {
	if len(c.notes) < maxFindings {
		c.notes = append(c.notes, format.Corrupt(off, field, got, want))
	}
}

func (c *checker) run() {
	head, err := readHeader(c.r, c.size, 0, "header")
	c.bad(err)
	if err == nil && head.Flags&flagData == 0 {
		c.bad(format.Corrupt(offFlags, "header.flags", codecerr.Hex(head.Flags), "a data file"))
	}
	if err == nil {
		c.record(0, "header")
	}
	if c.size < 2*HeaderSize {
		c.bad(format.Truncated(c.size, "trailer", "4096 bytes behind the data"))
		return
	}
	at := c.size - HeaderSize
	t, err := readHeader(c.r, c.size, at, "trailer")
	if err != nil {
		c.bad(err)
		return
	}
	c.record(at, "trailer")
	if err := checkTrailer(t, at, c.o); err != nil {
		c.bad(err)
		return
	}
	if head.VirtualSize != t.VirtualSize {
		c.note(at+offVirtual, "trailer.virtual_size", codecerr.Dec(t.VirtualSize), "that of the header, "+codecerr.Dec(head.VirtualSize))
	}
	l := &Layer{trailer: t, target: c.o.Target, targetSz: c.o.TargetSize}
	c.bad(readEntries(c.r, t.IndexOffset, t.IndexSize, func(off int64, e entryView) error {
		c.entry(l, off, e)
		return nil
	}))
	if gap := at - t.IndexOffset - t.IndexSize*entrySize; gap >= SectorSize {
		c.note(at-gap, "bytes between index and trailer", codecerr.Dec(gap), "fewer than 512")
	}
}

// record notes what the header or trailer at off has that readers do not look at.
func (c *checker) record(off int64, name string) {
	b := make([]byte, HeaderSize)
	if err := format.ReadFull(c.r, b, off, name); err != nil {
		return
	}
	v := headerView(b)
	if v.size() != headerUsed {
		c.note(off+offSize, name+".size", codecerr.Dec(uint64(v.size())), "390")
	}
	if v.flags()&^flagsKnown != 0 {
		c.note(off+offFlags, name+".flags", codecerr.Hex(v.flags()), "known bits only")
	}
	if major, minor := v.version(); major != 1 || minor != 1 {
		c.note(off+offVersion, name+".version", codecerr.Dec(major)+"."+codecerr.Dec(minor), "1.1")
	}
	if v.reserved() != 0 {
		c.note(off+offRes, name+".reserved", codecerr.Dec(v.reserved()), "0")
	}
	if v.virtual()%SectorSize != 0 {
		c.note(off+offVirtual, name+".virtual_size", codecerr.Dec(v.virtual()), "a multiple of 512")
	}
	for _, u := range []struct {
		text  []byte
		field string
		off   int64
	}{{v.uuid(), ".uuid", offUUID}, {v.parent(), ".parent_uuid", offParent}} {
		text := string(u.text[:uuidText])
		if _, ok := parseUUID(text); !ok || u.text[uuidText] != 0 || text != strings.ToUpper(text) {
			c.note(off+u.off, name+u.field, "", "36 characters in upper case and NUL")
		}
	}
	if strings.Trim(string(v.rest()), "\x00") != "" {
		c.note(off+headerUsed, name+" padding", "", "zeros")
	}
}

func (c *checker) entry(l *Layer, off int64, e entryView) {
	if e.padding() {
		if e.length() != 0 || e.source() != 0 || e.zero() || e.tag() != 0 {
			c.note(off, "padding entry", "", "FF FF FF FF FF FF 03 00 and zeros")
		}
		c.padded = true
		return
	}
	if c.padded {
		c.note(off, "index entry", "behind padding", "padding at the end")
		c.padded = false
	}
	s, err := l.segment(off, e, uint64(l.trailer.IndexOffset/SectorSize))
	var fe *abi.FormatError
	if errors.As(err, &fe) && fe.Field == "index entry length" {
		c.bad(err)
		return
	}
	c.bad(err)
	if s.Start < c.last {
		c.bad(format.Corrupt(off, "index entry start", codecerr.Dec(s.Start), "at least "+codecerr.Dec(c.last)+", where the entry before it ends"))
	}
	if v := l.trailer.VirtualSize; v > 0 && s.End() > uint64(v)/SectorSize {
		c.note(off, "index entry end", codecerr.Dec(s.End()), "at most "+codecerr.Dec(uint64(v)/SectorSize)+", the device's sectors")
	}
	if l.target == nil && s.Tag != 0 {
		c.note(off, "index entry tag", codecerr.Dec(s.Tag), "0")
	}
	c.last = max(c.last, s.End())
}
