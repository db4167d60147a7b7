package rawobd

import (
	"bytes"
	"io"
	"maps"
	"os"
	"slices"
)

const (
	sector = 512
	block  = 4096
)

// Device is a block device in a sparse file.
type Device struct {
	File    *os.File
	Size    int64          // bytes
	written map[int64]bool // blocks that are not zeros, or once were not
}

// New makes a device in an empty file, which belongs to the caller.
func New(f *os.File) *Device { return &Device{File: f, written: map[int64]bool{}} }

// Apply puts a layer upon the device. target is what segments of tag 1 have their data in: the tar of the layer, for TurboOCI.
func (d *Device) Apply(lsmt []byte, target io.ReaderAt) {
	size, segments := Index(lsmt)
	if size != 0 && size != d.Size {
		d.Size = size
		must(d.File.Truncate(size))
	}
	var p []byte
	for _, s := range segments {
		off, n := int64(s.Start)*sector, int64(s.Length)*sector
		want(off+n <= d.Size, "segment %+v is behind the device's end at %d", s, d.Size)
		switch p = slices.Grow(p[:0], int(n))[:n]; {
		case s.Zero:
			d.zero(off, n)
			continue
		case target != nil && s.Tag == 1:
			clear(p)
			_, err := target.ReadAt(p, int64(s.Source)*sector)
			want(err == nil || err == io.EOF, "target: %v", err)
		default:
			copy(p, lsmt[s.Source*sector:][:n])
		}
		_, err := d.File.WriteAt(p, off)
		must(err)
		for b := off / block; b*block < off+n; b++ {
			d.written[b] = true
		}
	}
}

// zero clears what was written in a range, however large it is.
func (d *Device) zero(off, n int64) {
	for b := range d.written {
		from, to := max(off, b*block), min(off+n, (b+1)*block)
		if from < to {
			_, err := d.File.WriteAt(make([]byte, to-from), from)
			must(err)
		}
	}
}

// ReadAt reads from the device.
func (d *Device) ReadAt(p []byte, off int64) (int, error) { return d.File.ReadAt(p, off) }

// Blocks returns the number of blocks of 4 KiB that have data.
func (d *Device) Blocks() int { return len(d.written) }

// Differ returns the offsets at which two devices differ, in blocks of 4 KiB.
func Differ(a, b *Device) (out []int64) {
	all := maps.Clone(a.written)
	maps.Copy(all, b.written)
	p, q := make([]byte, block), make([]byte, block)
	for _, n := range slices.Sorted(maps.Keys(all)) {
		for _, x := range []struct {
			d *Device
			p []byte
		}{{a, p}, {b, q}} {
			clear(x.p)
			if _, err := x.d.ReadAt(x.p, n*block); err != io.EOF {
				must(err)
			}
		}
		if !bytes.Equal(p, q) {
			out = append(out, n*block)
		}
	}
	return out
}
