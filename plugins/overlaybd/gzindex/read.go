package gzindex

import (
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/zran"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// pageSize is how much is decompressed and kept at once; pages are counted from each entry.
const pageSize = 128 << 10

// ReadAt reads the decompressed content. It returns io.EOF at its end. A stream that breaks the rules of deflate, or ends before
// the index says, is ErrCorrupt or ErrTruncated; errors of the readers keep their class or become ErrIO. Then n bytes
// are what the compressed file holds.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, format.Invalid("read at %d", off)
	}
	if off >= f.head.RawSize {
		return 0, io.EOF
	}
	short := int64(len(p)) > f.head.RawSize-off
	if short {
		p = p[:f.head.RawSize-off]
	}
	for n < len(p) {
		at := off + int64(n)
		pg := f.page(at)
		k := f.pool.copy(p[n:], pg, at-pg.off)
		if k == 0 {
			if k, err = f.decode(p[n:], pg, at-pg.off); err != nil {
				return n, err
			}
		}
		n += k
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

// page is a piece of the content: of the stretch between two entries, so that none lies in two.
type page struct {
	f    *File
	off  int64 // output offset
	size int
}

// page returns the page that the byte at off is in.
func (f *File) page(off int64) page {
	k := f.find(off)
	from, to := f.entries[k].out, f.head.RawSize
	if k+1 < len(f.entries) {
		to = f.entries[k+1].out
	}
	pg := page{f: f, off: off - (off-from)%pageSize}
	pg.size = int(min(pageSize, to-pg.off))
	return pg
}

// decode decompresses up to the end of pg and copies what p takes of it from byte skip on. All pages on the way are kept.
func (f *File) decode(p []byte, pg page, skip int64) (n int, err error) {
	start := f.find(pg.off)
	c := f.pool.acquire(f, f.entries[start].out, pg.off)
	defer func() { f.pool.release(c, err == nil) }()
	if n := f.pool.copy(p, pg, skip); n > 0 {
		return n, nil // another reader was faster
	}
	if c.f == nil {
		if err := f.restart(c, start); err != nil {
			return 0, err
		}
	}
	for {
		at := f.page(c.pos)
		buf := f.pool.buffer()
		if _, err := io.ReadFull(c.z, buf[:at.size]); err != nil {
			return 0, f.ended(c, err)
		}
		c.pos += int64(at.size)
		if at.off == pg.off {
			n = copy(p, buf[skip:at.size])
		}
		f.pool.put(at, buf)
		if at.off == pg.off {
			return n, nil
		}
	}
}

// restart makes c a reader from entry k on.
func (f *File) restart(c *cursor, k int) error {
	e := f.entries[k]
	if err := f.window(k, c.window[:]); err != nil {
		return err
	}
	point := zran.Checkpoint{In: e.in, Out: e.out, Bits: e.bits, Window: c.window[:]}
	if e.bits > 0 {
		var b [1]byte
		if err := format.ReadFull(f.gz, b[:], e.in-1, "layer"); err != nil {
			return err
		}
		point.Byte = b[0]
	}
	src := io.NewSectionReader(f.gz, e.in, f.head.GzipSize-e.in)
	if c.z == nil {
		c.z = zran.NewReaderAt(src, point, zran.Options{Format: zran.Deflate})
	} else {
		c.z.ResetAt(src, point)
	}
	c.f, c.pos = f, e.out
	return nil
}

// ended says why there is no whole page at c.
func (f *File) ended(c *cursor, err error) error {
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		if abi.ClassOf(err) == abi.ErrInternal {
			return codecerr.Outer(err, "gzip index: read layer")
		}
		return err
	}
	return &abi.FormatError{Class: abi.ErrCorrupt, Format: "gzip", Off: c.z.InputOffset(), Field: "end of the deflate stream",
		Got: "after " + codecerr.Dec(c.z.OutputOffset()) + " bytes", Want: codecerr.Dec(f.head.RawSize) + " as the index says"}
}
