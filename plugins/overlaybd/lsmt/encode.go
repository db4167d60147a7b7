package lsmt

import (
	"cmp"
	"encoding/binary"
	"io"
	"slices"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// Config says what a Writer puts into header and trailer.
type Config struct {
	VirtualSize int64  // bytes of the device, a multiple of 512; 0 leaves it to the layers below
	UUID        UUID   // of this layer
	Parent      UUID   // of the layer below
	Comment     string // at most 256 bytes

	// Warp writes the metadata layer of TurboOCI: Remote is allowed, and the index is not padded.
	Warp bool

	// AnyOrder takes ranges in any order, as a file system writes them: data stands in the file in the order of the calls, and
	// Close sorts the index. Readers do not mind; only the order on the device is theirs to check.
	AnyOrder bool

	// MaxEntries limits the index, padding included; 0 means the format's 1,000,000. More is ErrLimit.
	MaxEntries int
}

// Info says what a Writer wrote.
type Info struct {
	Size     int64 // bytes of the whole file
	DataSize int64 // bytes of data in it
	Entries  int   // segments in the index, without padding
}

// Writer writes a sealed layer, forward only. Ranges come in ascending order, unless Config.AnyOrder says otherwise, and do not
// overlap; offsets and lengths are multiples of 512. How a range is cut into calls does not change the output. The first error
// stays. It keeps the index in memory, 24 bytes for each segment, and no data.
type Writer struct {
	w        io.Writer
	c        Config
	pos      int64
	segments []Segment
	next     uint64 // sectors below are done
	remote   bool   // a segment took data from the target
	closed   bool
	err      error
	max      int
}

// NewWriter writes the header. A wrong Config is ErrInvalid; an error of w keeps its class or becomes ErrIO.
func NewWriter(w io.Writer, c Config) (*Writer, error) {
	if c.VirtualSize < 0 || c.VirtualSize%SectorSize != 0 || c.VirtualSize > maxVirtual {
		return nil, format.Invalid("virtual size is %d, want a multiple of 512 up to 2^59", c.VirtualSize)
	}
	if len(c.Comment) > tagSize {
		return nil, format.Invalid("comment of %d bytes, want at most %d", len(c.Comment), tagSize)
	}
	out := &Writer{w: w, c: c, max: MaxEntries}
	if c.MaxEntries > 0 {
		out.max = min(c.MaxEntries, MaxEntries)
	}
	if !c.Warp {
		out.max -= out.max % padEntries
	}
	h := Header{Flags: flagHeader | flagData | flagSealed}
	return out, out.emit(out.header(h))
}

func (w *Writer) header(h Header) []byte {
	h.VirtualSize, h.UUID, h.Parent, h.Comment = w.c.VirtualSize, w.c.UUID, w.c.Parent, w.c.Comment
	return encodeHeader(h)
}

func encodeHeader(h Header) []byte {
	b := make([]byte, HeaderSize)
	copy(b, magic0[:])
	copy(b[offMagic1:], magic1[:])
	binary.LittleEndian.PutUint32(b[offSize:], headerUsed)
	binary.LittleEndian.PutUint32(b[offFlags:], h.Flags)
	binary.LittleEndian.PutUint64(b[offIndex:], uint64(h.IndexOffset))
	binary.LittleEndian.PutUint64(b[offEntries:], uint64(h.IndexSize))
	binary.LittleEndian.PutUint64(b[offVirtual:], uint64(h.VirtualSize))
	copy(b[offUUID:], h.UUID.String())
	copy(b[offParent:], h.Parent.String())
	b[offVersion], b[offVersion+1] = 1, 1
	copy(b[offTag:headerUsed], h.Comment)
	return b
}

// Data stores p as the device's bytes at off.
func (w *Writer) Data(off int64, p []byte) error {
	n := int64(len(p))
	if err := w.place(off, n); err != nil {
		return err
	}
	source := uint64(w.pos / SectorSize)
	if err := w.add(Segment{Start: uint64(off / SectorSize), Source: source}, n/SectorSize, runLength); err != nil {
		return err
	}
	return w.emit(p)
}

// Zero says that n bytes at off are zeros, whatever the layers below have there.
func (w *Writer) Zero(off, n int64) error {
	if err := w.place(off, n); err != nil {
		return err
	}
	s := Segment{Start: uint64(off / SectorSize), Source: uint64(w.pos / SectorSize), Zero: true}
	return w.add(s, n/SectorSize, runLength)
}

// Remote says that n bytes at off are those at source of the target, the uncompressed tar of the original layer. A range that
// ends inside the target's last sector is rounded up by the caller. Only for Config.Warp.
func (w *Writer) Remote(off, n, source int64) error {
	if !w.c.Warp {
		return w.stop(format.Invalid("remote data in a layer that is no warp layer"))
	}
	if source < 0 || source%SectorSize != 0 || source/SectorSize > maxSource-(n/SectorSize) {
		return w.stop(format.Invalid("remote data at %d, want a multiple of 512", source))
	}
	if err := w.place(off, n); err != nil {
		return err
	}
	if n > 0 {
		w.remote = true
	}
	s := Segment{Start: uint64(off / SectorSize), Source: uint64(source / SectorSize), Tag: 1, Remote: true}
	return w.add(s, n/SectorSize, MaxLength)
}

// place checks a range of n bytes at off and moves on behind it.
func (w *Writer) place(off, n int64) error {
	if w.err != nil {
		return w.err
	}
	end := int64(maxVirtual - SectorSize)
	if w.c.VirtualSize > 0 {
		end = min(end, w.c.VirtualSize)
	}
	switch {
	case w.closed:
		return w.stop(format.Invalid("write to a closed layer"))
	case off < 0 || n < 0 || off%SectorSize != 0 || n%SectorSize != 0:
		return w.stop(format.Invalid("%d bytes at %d, want multiples of 512", n, off))
	case off > end || n > end-off:
		return w.stop(format.Invalid("%d bytes at %d leave the device of %d bytes", n, off, end))
	case uint64(off/SectorSize) < w.next && !w.c.AnyOrder:
		return w.stop(format.Invalid("%d bytes at %d after the device was written up to %d, want ascending order", n, off, w.next*SectorSize))
	}
	w.next = uint64((off + n) / SectorSize)
	return nil
}

// add appends n sectors that begin as s says. It extends the last segment when s continues it, up to most sectors.
func (w *Writer) add(s Segment, n int64, most uint16) error {
	for n > 0 {
		if k := len(w.segments) - 1; k >= 0 {
			if last := &w.segments[k]; last.continues(s) && last.Length < most {
				part := min(n, int64(most-last.Length))
				last.Length += uint16(part)
				s, n = s.skip(part), n-part
				continue
			}
		}
		if len(w.segments) >= w.max {
			return w.stop(format.Fail(abi.ErrLimit, w.pos, "index entries", codecerr.Dec(len(w.segments)+1), "at most "+codecerr.Dec(w.max)))
		}
		s.Length = uint16(min(n, int64(most)))
		w.segments = append(w.segments, s)
		s, n = s.skip(int64(s.Length)), n-int64(s.Length)
	}
	return nil
}

// continues tells whether next goes on where s ends, on the device and in the data.
func (s Segment) continues(next Segment) bool {
	return s.End() == next.Start && s.sourceEnd() == next.Source && s.Zero == next.Zero && s.Tag == next.Tag
}

func (s Segment) skip(n int64) Segment {
	s.Start += uint64(n)
	if !s.Zero {
		s.Source += uint64(n)
	}
	return s
}

// Close writes index and trailer. It does not close the underlying writer.
func (w *Writer) Close() (Info, error) {
	if w.err == nil && w.closed {
		return Info{}, w.stop(format.Invalid("a layer is closed twice"))
	}
	if w.err == nil && w.remote && w.onlyRemote() {
		// Upstream takes the smallest tag as that of the file's own data.
		w.stop(format.Invalid("a warp layer with remote data alone, want data of its own: readers would mistake one for the other"))
	}
	if w.err != nil {
		return Info{}, w.err
	}
	w.closed = true
	if w.c.AnyOrder {
		if err := w.sort(); err != nil {
			return Info{}, err
		}
	}
	start, count := w.pos, len(w.segments)
	if pad := count % padEntries; pad != 0 && !w.c.Warp {
		count += padEntries - pad
	}
	if err := w.index(count); err != nil {
		return Info{}, err
	}
	if want := start + int64(count)*entrySize; w.pos != want {
		return Info{}, w.stop(abi.Errorf(abi.ErrInternal, "lsmt: trailer at %d, planned at %d", w.pos, want))
	}
	h := Header{Flags: flagData | flagSealed, IndexOffset: start, IndexSize: int64(count)}
	err := w.emit(w.header(h))
	return Info{Size: w.pos, DataSize: start - HeaderSize, Entries: len(w.segments)}, err
}

// sort brings the segments into the order of the device, and joins those that became neighbours.
func (w *Writer) sort() error {
	slices.SortFunc(w.segments, func(a, b Segment) int { return cmp.Compare(a.Start, b.Start) })
	sorted := w.segments
	w.segments = sorted[:0]
	end := uint64(0)
	for _, s := range sorted {
		if s.Zero {
			s.Source = HeaderSize / SectorSize // any place will do; one place lets neighbours join
		}
		if s.Start < end {
			return w.stop(format.Invalid("sector %d of the device was given twice", s.Start))
		}
		end = s.End()
		most := uint16(runLength)
		if s.Remote {
			most = MaxLength
		}
		if err := w.add(s, int64(s.Length), most); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) onlyRemote() bool {
	for _, s := range w.segments {
		if !s.Remote {
			return false
		}
	}
	return true
}

// index writes count entries, those behind the segments being padding.
func (w *Writer) index(count int) error {
	buf := make([]byte, 0, 64<<10)
	for k := range count {
		if k < len(w.segments) {
			buf = appendEntry(buf, w.segments[k])
		} else {
			buf = appendPadding(buf)
		}
		if len(buf) == cap(buf) || k == count-1 {
			if err := w.emit(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	return nil
}

func (w *Writer) emit(p []byte) error {
	if w.err != nil || len(p) == 0 {
		return w.err
	}
	n, err := w.w.Write(p)
	w.pos += int64(n)
	if err == nil && n != len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return w.stop(codecerr.Outer(err, "lsmt: write"))
	}
	return nil
}

func (w *Writer) stop(err error) error {
	w.err = err
	return err
}
