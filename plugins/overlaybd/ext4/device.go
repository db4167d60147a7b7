package ext4

import (
	"errors"
	"io"
	"slices"
	"sort"

	"github.com/convhost/convhost/abi"
)

// Device is a block device that an [Applier] works on: what the parents have, and a place for what changes.
//
// WriteAt gets whole blocks at offsets that are multiples of [BlockSize], and no block twice from one Applier: file data as it
// streams by, metadata in ascending order from Commit. ReadAt is never asked for a block that was written before, so
// an implementation may send what is written straight to its output. ReadAt must read zeros where nothing was ever written.
// Both are called from the Applier's goroutine and keep nothing of p.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Size() int64 // bytes
}

// ErrAbsent is for a [Device] that has no content of some blocks, because the data of lower files stays elsewhere: what its ReadAt
// returns for them wraps it. An Applier needs no data of files; where it writes metadata into such a block, the block has changed.
var ErrAbsent = errors.New("the block's content is not at hand")

// Run is a number of adjacent changed blocks.
type Run struct {
	Block uint64 // first block
	Count uint64 // blocks, at least 1
}

// Overlay is a [Device] that records the changed blocks over a base, in memory or in a spill file. It is used from one goroutine.
type Overlay struct {
	base  io.ReaderAt
	size  int64
	spill Scratch
	end   int64 // bytes used in the spill file
	runs  []overlayRun
}

type overlayRun struct {
	start, count uint64 // blocks
	pos          int64  // in the spill file
	mem          []byte // without a spill file
}

// NewOverlay returns a device of size bytes over base, which may be nil: then everything reads as zeros. Where base ends early,
// zeros follow. spill is a temporary file that belongs to the caller; nil keeps the changes in memory.
func NewOverlay(base io.ReaderAt, size int64, spill Scratch) *Overlay {
	return &Overlay{base: base, size: size, spill: spill}
}

// Size returns the size of the device in bytes.
func (o *Overlay) Size() int64 { return o.size }

// find returns the index of the first run that ends behind block n.
func (o *Overlay) find(n uint64) int {
	return sort.Search(len(o.runs), func(i int) bool { return o.runs[i].start+o.runs[i].count > n })
}

// ReadAt reads changed blocks, and the base elsewhere.
func (o *Overlay) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, abi.Errorf(abi.ErrInvalid, "read at negative offset %d", off)
	}
	for n < len(p) && off < o.size {
		blk := uint64(off) / BlockSize
		i := o.find(blk)
		want := min(int64(len(p)-n), o.size-off)
		if i < len(o.runs) && o.runs[i].start <= blk {
			r := &o.runs[i]
			in := off - int64(r.start)*BlockSize
			want = min(want, int64(r.count)*BlockSize-in)
			if r.mem != nil {
				copy(p[n:n+int(want)], r.mem[in:])
			} else if err := readFull(o.spill, p[n:n+int(want)], r.pos+in); err != nil {
				return n, classed(err, "spill file")
			}
		} else {
			if i < len(o.runs) {
				want = min(want, int64(o.runs[i].start)*BlockSize-off)
			}
			if err := o.readBase(p[n:n+int(want)], off); err != nil {
				return n, err
			}
		}
		n += int(want)
		off += want
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (o *Overlay) readBase(p []byte, off int64) error {
	n := 0
	if o.base != nil {
		var err error
		if n, err = o.base.ReadAt(p, off); err != nil && err != io.EOF {
			return classed(err, "read parents at 0x%x", off)
		}
	}
	clear(p[n:])
	return nil
}

// WriteAt records whole blocks. Blocks that were written before are replaced.
func (o *Overlay) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off%BlockSize != 0 || len(p)%BlockSize != 0 || off > o.size || int64(len(p)) > o.size-off {
		return 0, abi.Errorf(abi.ErrInvalid, "write of %d bytes at %d, want whole blocks within %d bytes", len(p), off, o.size)
	}
	for done := 0; done < len(p); {
		blk := uint64(off)/BlockSize + uint64(done/BlockSize)
		i := o.find(blk)
		if i < len(o.runs) && o.runs[i].start <= blk {
			r := &o.runs[i]
			in := int64(blk-r.start) * BlockSize
			n := min(len(p)-done, int(int64(r.count)*BlockSize-in))
			if r.mem != nil {
				copy(r.mem[in:], p[done:done+n])
			} else if _, err := o.spill.WriteAt(p[done:done+n], r.pos+in); err != nil {
				return done, classed(err, "write spill file")
			}
			done += n
			continue
		}
		n := len(p) - done
		if i < len(o.runs) {
			n = min(n, int(min(o.runs[i].start-blk, uint64(n)))*BlockSize)
		}
		if err := o.insert(i, blk, p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// insert adds blocks that no run has before run i.
func (o *Overlay) insert(i int, blk uint64, p []byte) error {
	count, pos := uint64(len(p)/BlockSize), o.end
	if o.spill != nil {
		if _, err := o.spill.WriteAt(p, pos); err != nil {
			return classed(err, "write spill file")
		}
		o.end += int64(len(p))
	}
	if i > 0 {
		r := &o.runs[i-1]
		joins := r.start+r.count == blk
		if joins && o.spill == nil && r.count < 256 {
			r.mem = append(r.mem, p...)
			r.count += count
			return nil
		}
		if joins && o.spill != nil && r.pos+int64(r.count)*BlockSize == pos {
			r.count += count
			return nil
		}
	}
	r := overlayRun{start: blk, count: count, pos: pos}
	if o.spill == nil {
		r.mem = slices.Clone(p)
	}
	o.runs = slices.Insert(o.runs, i, r)
	return nil
}

// Changes returns the changed blocks in ascending order, adjacent ones joined. ReadAt reads their content.
func (o *Overlay) Changes() []Run {
	var out []Run
	for _, r := range o.runs {
		if n := len(out); n > 0 && out[n-1].Block+out[n-1].Count == r.start {
			out[n-1].Count += r.count
		} else {
			out = append(out, Run{r.start, r.count})
		}
	}
	return out
}

// Changed returns the number of changed blocks.
func (o *Overlay) Changed() (n uint64) {
	for _, r := range o.runs {
		n += r.count
	}
	return n
}
