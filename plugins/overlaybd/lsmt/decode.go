package lsmt

import (
	"bytes"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// Segment is a range of the device that a layer mentions. All positions are in sectors of 512 bytes.
type Segment struct {
	Start  uint64 // first sector on the device
	Source uint64 // where the data is in the layer's file, or in the target if Remote; says nothing if Zero
	Length uint16 // sectors, 1 to MaxLength
	Tag    uint8  // in a layer: as stored; in a Device: number of its layer, counted from the topmost, which is 0
	Zero   bool   // reads as zeros and has no data
	Remote bool   // data is in the target of a warp layer
}

// End returns the first sector behind s.
func (s Segment) End() uint64 { return s.Start + uint64(s.Length) }

// sourceEnd returns the first sector behind the data of s; zeros have none.
func (s Segment) sourceEnd() uint64 {
	if s.Zero {
		return s.Source
	}
	return s.Source + uint64(s.Length)
}

// Header holds what header and trailer of a file say.
type Header struct {
	Flags       uint32 // as stored
	IndexOffset int64  // bytes from the start of the file
	IndexSize   int64  // entries, padding included
	VirtualSize int64  // bytes of the device; 0: that of the layers below
	UUID        UUID   // zero if absent or not readable
	Parent      UUID
	Comment     string // user tag, without the NULs that pad it
}

// Options limit and complete the reading of a layer. The zero value is right for ordinary layers.
type Options struct {
	// MaxEntries limits the segments in memory, 24 bytes each, of a layer or a stack. 0 means MaxEntries for a sealed
	// layer, 4,000,000 (96 MB) for a writable one. More is ErrLimit.
	MaxEntries int

	// Target makes the layer a warp layer: the uncompressed tar of the original layer, TargetSize bytes. Without it
	// tags mean nothing, as for upstream.
	Target     io.ReaderAt
	TargetSize int64
}

const maxWritable = 4_000_000

func (o Options) limit(def int) int {
	if o.MaxEntries > 0 {
		return o.MaxEntries
	}
	return def
}

// Layer is an opened file: its segments, sorted by Start and disjoint, and where their data is. It is not changed after it was
// opened and may be used from several goroutines if its readers may. It keeps the readers that it was given.
type Layer struct {
	head     Header
	trailer  Header
	segments []Segment
	data     io.ReaderAt
	target   io.ReaderAt
	targetSz int64
}

// Header returns what the header says, for append mode that of the index file.
func (l *Layer) Header() Header { return l.head }

// Trailer returns what the trailer says; it is zero for writable files.
func (l *Layer) Trailer() Header { return l.trailer }

// VirtualSize returns the device's size in bytes, 0 if the layer leaves it to those below.
func (l *Layer) VirtualSize() int64 {
	if l.trailer.Flags != 0 {
		return l.trailer.VirtualSize
	}
	return l.head.VirtualSize
}

// Segments returns what the layer mentions. The slice belongs to the layer.
func (l *Layer) Segments() []Segment { return l.segments }

// Open reads header, trailer and index of a sealed layer of exactly size bytes, and checks all that readers rely on; data is
// read later. Errors are ErrCorrupt, ErrTruncated, ErrLimit, or those of r.
func Open(r io.ReaderAt, size int64, o Options) (*Layer, error) {
	head, err := readHeader(r, size, 0, "header")
	if err != nil {
		return nil, err
	}
	if head.Flags&flagData == 0 {
		return nil, format.Corrupt(offFlags, "header.flags", codecerr.Hex(head.Flags), "a data file; this is the index of a writable layer")
	}
	if size < 2*HeaderSize {
		return nil, format.Truncated(size, "trailer", "4096 bytes behind the data")
	}
	at := size - HeaderSize
	trailer, err := readHeader(r, size, at, "trailer")
	if err != nil {
		return nil, err
	}
	if err := checkTrailer(trailer, at, o); err != nil {
		return nil, err
	}
	l := &Layer{head: head, trailer: trailer, data: r, target: o.Target, targetSz: o.TargetSize}
	err = readEntries(r, trailer.IndexOffset, trailer.IndexSize, func(off int64, e entryView) error {
		return l.add(off, e)
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// readHeader reads the record at off of a file of size bytes.
func readHeader(r io.ReaderAt, size, off int64, name string) (Header, error) {
	if size-off < HeaderSize {
		return Header{}, format.Truncated(size, name, "4096 bytes")
	}
	b := make([]byte, HeaderSize)
	if err := format.ReadFull(r, b, off, name); err != nil {
		return Header{}, err
	}
	v := headerView(b)
	trailer := name == "trailer"
	if !v.magic() {
		if trailer {
			// A file that was cut or has something appended looks like this.
			return Header{}, format.Truncated(off, name+".magic", "a sealed layer, which ends with a trailer")
		}
		return Header{}, format.Corrupt(off, name+".magic", "", "\"LSMT\" and its signature")
	}
	if isHeader := v.flags()&flagHeader != 0; isHeader == trailer {
		return Header{}, format.Corrupt(off+offFlags, name+".flags", codecerr.Hex(v.flags()), "the bit that tells header from trailer")
	}
	return decodeHeader(v, off, name)
}

func decodeHeader(v headerView, off int64, name string) (Header, error) {
	if n := v.virtual(); n > maxVirtual {
		return Header{}, format.Corrupt(off+offVirtual, name+".virtual_size", codecerr.Dec(n), "at most "+codecerr.Dec(uint64(maxVirtual)))
	}
	if n := v.indexOffset(); n > 1<<62 {
		return Header{}, format.Corrupt(off+offIndex, name+".index_offset", codecerr.Dec(n), "a position in the file")
	}
	if n := v.indexSize(); n > 1<<58 {
		return Header{}, format.Fail(abi.ErrLimit, off+offEntries, name+".index_size", codecerr.Dec(n), "at most 1000000")
	}
	h := Header{
		Flags: v.flags(), IndexOffset: int64(v.indexOffset()), IndexSize: int64(v.indexSize()), VirtualSize: int64(v.virtual()),
		Comment: string(bytes.TrimRight(v.tag(), "\x00")),
	}
	h.UUID, _ = parseUUID(string(v.uuid()[:uuidText]))
	h.Parent, _ = parseUUID(string(v.parent()[:uuidText]))
	return h, nil
}

// checkTrailer checks the trailer at byte at before anything is allocated for the index.
func checkTrailer(t Header, at int64, o Options) error {
	if t.Flags&flagData == 0 || t.Flags&flagSealed == 0 {
		return format.Corrupt(at+offFlags, "trailer.flags", codecerr.Hex(t.Flags), "a sealed data file")
	}
	if t.IndexOffset%SectorSize != 0 || t.IndexOffset < HeaderSize || t.IndexOffset > at {
		return format.Corrupt(at+offIndex, "trailer.index_offset", codecerr.Dec(t.IndexOffset), "a multiple of 512 between header and trailer")
	}
	if limit := o.limit(MaxEntries); t.IndexSize > int64(limit) {
		return format.Fail(abi.ErrLimit, at+offEntries, "trailer.index_size", codecerr.Dec(t.IndexSize), "at most "+codecerr.Dec(limit))
	}
	if fit := (at - t.IndexOffset) / entrySize; t.IndexSize > fit {
		return format.Corrupt(at+offEntries, "trailer.index_size", codecerr.Dec(t.IndexSize), "at most the "+codecerr.Dec(fit)+" entries that fit before the trailer")
	}
	return nil
}

// readEntries calls f with n entries that start at byte off, and with the place of each.
func readEntries(r io.ReaderAt, off, n int64, f func(off int64, e entryView) error) error {
	buf := make([]byte, min(n, 4096)*entrySize)
	for n > 0 {
		part := buf[:min(n*entrySize, int64(len(buf)))]
		if err := format.ReadFull(r, part, off, "index"); err != nil {
			return err
		}
		for k := 0; k < len(part); k += entrySize {
			if err := f(off+int64(k), entryView(part[k:k+entrySize])); err != nil {
				return err
			}
		}
		off += int64(len(part))
		n -= int64(len(part) / entrySize)
	}
	return nil
}

// add checks the entry at byte off of a sealed layer and appends it.
func (l *Layer) add(off int64, e entryView) error {
	if e.padding() {
		return nil
	}
	s, err := l.segment(off, e, uint64(l.trailer.IndexOffset/SectorSize))
	if err != nil {
		return err
	}
	if n := len(l.segments); n > 0 && s.Start < l.segments[n-1].End() {
		return format.Corrupt(off, "index entry start", codecerr.Dec(s.Start), "at least "+codecerr.Dec(l.segments[n-1].End())+", where the entry before it ends")
	}
	l.segments = append(l.segments, s)
	return nil
}

// segment decodes the entry at byte off, which is not padding. Data must lie between the header and sector end.
func (l *Layer) segment(off int64, e entryView, end uint64) (Segment, error) {
	s := Segment{Start: e.start(), Source: e.source(), Length: e.length(), Tag: e.tag(), Zero: e.zero()}
	if s.Length == 0 {
		return s, format.Corrupt(off, "index entry length", "0", "1 or more sectors")
	}
	if s.End() > maxStart+1 {
		return s, format.Corrupt(off, "index entry end", codecerr.Dec(s.End()), "at most "+codecerr.Dec(uint64(maxStart+1)))
	}
	if l.target != nil && s.Tag != 0 {
		return l.remote(off, s)
	}
	if s.Source < firstSource || s.sourceEnd() > end {
		return s, format.Corrupt(off, "index entry source", codecerr.Dec(s.Source)+" with "+codecerr.Dec(s.Length)+" sectors",
			"sectors "+codecerr.Dec(uint64(firstSource))+" to "+codecerr.Dec(end)+", where the file's data is")
	}
	return s, nil
}

func (l *Layer) remote(off int64, s Segment) (Segment, error) {
	if s.Tag != 1 {
		return s, format.Corrupt(off, "index entry tag", codecerr.Dec(s.Tag), "0 for data in this file or 1 for data in the target")
	}
	s.Remote = !s.Zero
	// The tail of the target may be cut inside its last sector.
	if end := uint64(l.targetSz+SectorSize-1) / SectorSize; s.Remote && s.sourceEnd() > end {
		return s, format.Corrupt(off, "index entry source", codecerr.Dec(s.Source)+" with "+codecerr.Dec(s.Length)+" sectors",
			"sectors of the target, which has "+codecerr.Dec(end))
	}
	return s, nil
}
