package gzindex

import (
	"bytes"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/zran"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// maxProblems bounds a report.
const maxProblems = 1000

// Check reads all of an index, windows included, and all of the gzip file that it belongs to, and reports every violation, up to
// 1000. errs are what makes reads fail or give wrong bytes; notes are deviations that readers ignore. gz may be nil: then it
// is not read, and gzSize must be what the index says.
func Check(meta io.ReaderAt, size int64, gz io.ReaderAt, gzSize int64, o Options) (errs, notes []error) {
	f, err := Open(meta, size, gz, gzSize, o)
	if err != nil {
		return []error{err}, nil
	}
	add := func(err error) {
		if err != nil && len(errs) < maxProblems {
			errs = append(errs, err)
		}
	}
	window := make([]byte, windowSize)
	for k := range f.entries {
		add(f.window(k, window))
	}
	if gz != nil && len(errs) == 0 {
		f.compare(add)
	}
	return errs, f.notes()
}

// notes lists what readers do not look at.
func (f *File) notes() (notes []error) {
	b := make(headerView, HeaderSize)
	if err := format.ReadFull(f.meta, b, 0, "header"); err != nil {
		return []error{err}
	}
	if f.head.Minor != 0 {
		notes = append(notes, format.Corrupt(offMinor, "minor_version", codecerr.Dec(f.head.Minor), "0"))
	}
	if b[offFlag] != 0 {
		notes = append(notes, format.Corrupt(offFlag, "flag", codecerr.Dec(b[offFlag]), "0"))
	}
	if k := bytes.IndexFunc(b[offReserve:offStart], func(c rune) bool { return c != 0 }); k >= 0 {
		notes = append(notes, format.Corrupt(int64(offReserve+k), "reserve", "", "zeros"))
	}
	return notes
}

// compare decompresses the layer and looks for every entry among its blocks.
func (f *File) compare(add func(error)) {
	k, members, window := 0, 0, make([]byte, windowSize)
	missing := func() {
		e := f.entries[k]
		add(format.Corrupt(f.head.IndexStart, "entry "+codecerr.Dec(k), "at input "+codecerr.Dec(e.in)+", output "+codecerr.Dec(e.out), "the start of a block"))
		k++
	}
	z := zran.NewReader(io.NewSectionReader(f.gz, 0, f.head.GzipSize), zran.Options{
		Trailing: zran.Zeros,
		OnMember: func(m zran.Member) error {
			if members++; members > 1 {
				return &abi.FormatError{Class: abi.ErrUnsupported, Format: "gzip", Off: m.In, Field: "another member", Want: "a single one"}
			}
			return nil
		},
		OnBlock: func(b *zran.Block) error {
			for k < len(f.entries) && (f.entries[k].in < b.In || f.entries[k].out < b.Out) {
				missing()
			}
			for ; k < len(f.entries); k++ {
				if e := f.entries[k]; e.in != b.In || e.out != b.Out || e.bits != b.Bits {
					break
				}
				if err := f.window(k, window); err != nil {
					return err
				}
				n := windowSize - len(b.Window())
				if !bytes.Equal(window[n:], b.Window()) {
					add(format.Corrupt(f.entries[k].winPos, "window of entry "+codecerr.Dec(k), "", "the output before the block"))
				}
			}
			return nil
		},
	})
	n, err := z.WriteTo(io.Discard)
	add(err)
	for err == nil && k < len(f.entries) {
		missing()
	}
	if err == nil && n != f.head.RawSize {
		add(format.Corrupt(offRaw, "uncompress_file_size", codecerr.Dec(f.head.RawSize), codecerr.Dec(n)+", what the layer has"))
	}
}
