package lsmt

import (
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// OpenAppend reads a writable layer of append mode: the data file and the index file, with their sizes in bytes. The index may
// end behind any entry. Errors are those of [Open].
func OpenAppend(data io.ReaderAt, dataSize int64, index io.ReaderAt, indexSize int64, o Options) (*Layer, error) {
	dh, err := readHeader(data, dataSize, 0, "header")
	if err != nil {
		return nil, err
	}
	if dh.Flags&flagData == 0 || dh.Flags&flagSparse != 0 {
		return nil, format.Corrupt(offFlags, "header.flags", codecerr.Hex(dh.Flags), "the data file of an append-mode layer")
	}
	ih, err := readHeader(index, indexSize, 0, "index header")
	if err != nil {
		return nil, err
	}
	if ih.Flags&(flagData|flagSealed) != 0 {
		return nil, format.Corrupt(offFlags, "index header.flags", codecerr.Hex(ih.Flags), "an index file that is not sealed")
	}
	if ih.IndexOffset != HeaderSize {
		return nil, format.Corrupt(offIndex, "index header.index_offset", codecerr.Dec(ih.IndexOffset), "4096")
	}
	if part := (indexSize - HeaderSize) % entrySize; part != 0 {
		return nil, format.Truncated(indexSize, "index entry", codecerr.Dec(entrySize-part)+" more bytes")
	}
	n, limit := (indexSize-HeaderSize)/entrySize, o.limit(maxWritable)
	if n > int64(limit) {
		return nil, format.Fail(abi.ErrLimit, HeaderSize, "index entries", codecerr.Dec(n), "at most "+codecerr.Dec(limit))
	}
	l := &Layer{head: ih, data: data, target: o.Target, targetSz: o.TargetSize}
	var log []Segment
	err = readEntries(index, HeaderSize, n, func(off int64, e entryView) error {
		if e.padding() {
			return nil
		}
		s, err := l.segment(off, e, uint64(dataSize/SectorSize))
		log = append(log, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	if l.segments, err = replay(log, limit); err != nil {
		return nil, err
	}
	return l, nil
}

// replay puts segments in the order of writing into the order of the device: later ones win.
func replay(log []Segment, limit int) ([]Segment, error) {
	if len(log) < 2 {
		return log, nil
	}
	half := len(log) / 2
	lower, err := replay(log[:half], limit)
	if err != nil {
		return nil, err
	}
	upper, err := replay(log[half:], limit)
	if err != nil {
		return nil, err
	}
	return overlay(upper, lower, limit)
}

// Range is a range of bytes.
type Range struct {
	Off, Len int64
}

// OpenSparse reads a writable layer of sparse mode, a file of size bytes. present says which ranges of the file hold data, in
// ascending order, as the file system reports them (SEEK_DATA); what is not in them is not mentioned by the layer. They are
// widened to whole sectors; the header is ignored. A nil present means all of the file: then the layer hides all that is
// below it.
func OpenSparse(r io.ReaderAt, size int64, present []Range, o Options) (*Layer, error) {
	h, err := readHeader(r, size, 0, "header")
	if err != nil {
		return nil, err
	}
	if h.Flags&flagData == 0 || h.Flags&flagSparse == 0 {
		return nil, format.Corrupt(offFlags, "header.flags", codecerr.Hex(h.Flags), "the data file of a sparse layer")
	}
	if want := h.VirtualSize + HeaderSize; size < want {
		return nil, format.Truncated(size, "data", codecerr.Dec(want)+" bytes, virtual_size and the header")
	}
	if present == nil {
		present = []Range{{HeaderSize, h.VirtualSize}}
	}
	l := &Layer{head: h, data: r}
	limit := o.limit(maxWritable)
	next := int64(firstSource)
	last := (HeaderSize + h.VirtualSize) / SectorSize
	for _, p := range present {
		if p.Off < 0 || p.Len < 0 || p.Off > size || p.Len > size-p.Off {
			return nil, format.Invalid("range of %d bytes at %d leaves the sparse file of %d bytes", p.Len, p.Off, size)
		}
		from := max(p.Off/SectorSize, next)
		to := min((p.Off+p.Len+SectorSize-1)/SectorSize, last)
		for from < to {
			n := min(to-from, runLength)
			if len(l.segments) >= limit {
				return nil, format.Fail(abi.ErrLimit, p.Off, "segments of a sparse file", codecerr.Dec(len(l.segments)+1), "at most "+codecerr.Dec(limit))
			}
			l.segments = append(l.segments, Segment{Start: uint64(from - firstSource), Source: uint64(from), Length: uint16(n)})
			from += n
		}
		next = max(next, to)
	}
	return l, nil
}
