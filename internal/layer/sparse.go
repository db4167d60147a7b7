package layer

import (
	"bytes"
	"fmt"

	"github.com/convhost/convhost/abi"
)

// segment is one region of data in a sparse file.
type segment struct{ off, n int64 }

// setupSparse finds out whether the member is sparse and reads its map. Afterwards r.size is the expanded size and
// r.phys what remains of data in the archive. old is the header block of type 'S', else nil.
func (r *Reader) setupSparse(old block) error {
	x := &r.x.pax
	r.segs = r.segs[:0]
	switch version := string(x.sparseMajor) + "." + string(x.sparseMi); {
	case old != nil:
		if err := r.oldSparse(old); err != nil {
			return err
		}
	case version == "1.0":
		if err := r.sparseMap10(); err != nil {
			return err
		}
	case version == "0.0", version == "0.1", version == "." && (len(x.sparseMap) > 0 || len(x.pairs) > 0):
		if err := r.sparseMap01(); err != nil {
			return err
		}
	case version == ".":
		r.sparse = false
		return nil
	default:
		return r.fail(abi.ErrUnsupported, "version of the sparse map", version, "0.0, 0.1 or 1.0")
	}
	r.sparse = true
	if old == nil {
		if size := max(x.sparseSize, -1); size >= 0 {
			r.size = size
		} else if x.realSize >= 0 {
			r.size = x.realSize
		}
	}
	return r.checkSparse()
}

// checkSparse makes sure that the regions are in order, within the file, and exactly the data that is there.
func (r *Reader) checkSparse() error {
	if r.size > r.lim.FileBytes {
		return r.limitError(r.hdrOff, "bytes of a file", r.lim.FileBytes)
	}
	var end, data int64
	for _, s := range r.segs {
		if s.off < end || s.n < 0 || s.off > r.size || s.n > r.size-s.off {
			return r.fail(abi.ErrCorrupt, "sparse map", fmt.Sprintf("region %d+%d after %d", s.off, s.n, end),
				fmt.Sprintf("regions in order within %d bytes", r.size))
		}
		end = s.off + s.n
		data += s.n
	}
	if data != r.phys {
		return r.fail(abi.ErrCorrupt, "sparse map", fmt.Sprintf("of %d bytes of data", data), fmt.Sprintf("the %d stored bytes", r.phys))
	}
	if r.size-data > r.lim.HoleBytes-r.holes {
		return r.limitError(r.hdrOff, "holes in sparse files", r.lim.HoleBytes)
	}
	r.holes += r.size - data
	return nil
}

func (r *Reader) addSegment(off, n int64) error {
	if len(r.segs) >= r.lim.SparseChunks {
		return r.limitError(r.hdrOff, "sparse regions", r.lim.SparseChunks)
	}
	r.segs = append(r.segs, segment{off, n})
	return nil
}

// oldSparse reads the map of the old GNU format: four regions in the header, 21 in each extension block.
func (r *Reader) oldSparse(b block) error {
	if b.format() != formatGNU {
		return r.fail(abi.ErrUnsupported, "sparse member", "not in GNU format", "the GNU format")
	}
	size, ok := parseNumber(b[483:495])
	if !ok || size < 0 {
		return r.fail(abi.ErrCorrupt, "real size", fmt.Sprintf("%q", b[483:495]), "a number")
	}
	r.size = size
	table, more := b[386:482], b[482] != 0
	for {
		for ; len(table) >= 24 && table[0] != 0; table = table[24:] {
			off, ok1 := parseNumber(table[:12])
			n, ok2 := parseNumber(table[12:24])
			if !ok1 || !ok2 {
				return r.fail(abi.ErrCorrupt, "sparse map", fmt.Sprintf("%q", table[:24]), "two numbers")
			}
			if err := r.addSegment(off, n); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		if r.extBytes += blockSize; r.extBytes > r.lim.HeaderBytes {
			return r.limitError(r.hdrOff, "bytes of extended headers", r.lim.HeaderBytes)
		}
		ext, err := r.src.block()
		if err != nil {
			return r.sourceError(err, "sparse map", "a block of 512 bytes")
		}
		table, more = ext[:504], ext[504] != 0
	}
}

// sparseMap01 takes the map from the pax records: pairs of version 0.0, or one list of version 0.1.
func (r *Reader) sparseMap01() error {
	x := &r.x.pax
	if len(x.pairs) > 0 {
		r.segs = append(r.segs, x.pairs...)
	} else {
		for rest := x.sparseMap; len(rest) > 0; {
			var a, b []byte
			var two bool
			a, rest, two = bytes.Cut(rest, []byte{','})
			b, rest, _ = bytes.Cut(rest, []byte{','})
			off, ok1 := parseDecimal(a)
			n, ok2 := parseDecimal(b)
			if !two || !ok1 || !ok2 {
				return r.fail(abi.ErrCorrupt, "GNU.sparse.map", fmt.Sprintf("%q", clip(x.sparseMap)), "pairs of numbers")
			}
			if err := r.addSegment(off, n); err != nil {
				return err
			}
		}
	}
	if x.sparseCount != int64(len(r.segs)) {
		return r.fail(abi.ErrCorrupt, "GNU.sparse.numblocks", fmt.Sprint(x.sparseCount), fmt.Sprintf("%d regions as in the map", len(r.segs)))
	}
	return nil
}

// sparseMap10 reads the map of version 1.0: decimal lines at the front of the data, padded to whole blocks.
func (r *Reader) sparseMap10() error {
	var b block
	pos := blockSize
	line := func() (int64, error) {
		var num [24]byte
		for n := 0; ; n++ {
			if pos == blockSize {
				if r.phys < blockSize {
					return 0, r.fail(abi.ErrCorrupt, "sparse map", "longer than the member", "a map within it")
				}
				if r.extBytes += blockSize; r.extBytes > r.lim.HeaderBytes {
					return 0, r.limitError(r.hdrOff, "bytes of extended headers", r.lim.HeaderBytes)
				}
				var err error
				if b, err = r.src.block(); err != nil {
					return 0, r.sourceError(err, "sparse map", "a block of 512 bytes")
				}
				r.phys -= blockSize
				pos = 0
			}
			c := b[pos]
			pos++
			if c == '\n' {
				v, ok := parseDecimal(num[:n])
				if !ok || v < 0 {
					return 0, r.fail(abi.ErrCorrupt, "sparse map", fmt.Sprintf("%q", num[:n]), "a number")
				}
				return v, nil
			}
			if n == len(num) {
				return 0, r.fail(abi.ErrCorrupt, "sparse map", "a long line", "numbers")
			}
			num[n] = c
		}
	}
	count, err := line()
	if err != nil {
		return err
	}
	for range count { // the limits of addSegment and line end this early
		off, err := line()
		if err != nil {
			return err
		}
		n, err := line()
		if err != nil {
			return err
		}
		if err := r.addSegment(off, n); err != nil {
			return err
		}
	}
	return nil
}
