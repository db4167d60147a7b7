package lsmt

import (
	"io"
	"sort"

	"github.com/convhost/convhost/abi"
)

// Device is the merged view of a stack of layers. It is an [io.ReaderAt] for any offset and length, and may be used from several
// goroutines if the readers of its layers may.
type Device struct {
	layers   []*Layer // topmost first, as tags count
	segments []Segment
	size     int64
}

// maxMerged limits the segments of a stack: 96 MB.
const maxMerged = 4_000_000

// Stack merges layers, lowest first, at most MaxLayers. The device's size is that of the topmost layer that has one. More than
// 4,000,000 segments are ErrLimit; see [StackLimit].
func Stack(layers ...*Layer) (*Device, error) { return StackLimit(maxMerged, layers...) }

// StackLimit is [Stack] with another limit of merged segments, of which each takes 24 bytes of memory.
func StackLimit(maxSegments int, layers ...*Layer) (*Device, error) {
	if len(layers) == 0 {
		return nil, format.Invalid("a stack needs a layer")
	}
	if len(layers) > MaxLayers {
		return nil, abi.Errorf(abi.ErrLimit, "lsmt: a stack of %d layers, want at most %d", len(layers), MaxLayers)
	}
	d := &Device{}
	for k := len(layers) - 1; k >= 0; k-- {
		d.layers = append(d.layers, layers[k])
		if d.size == 0 {
			d.size = layers[k].VirtualSize()
		}
	}
	var err error
	d.segments, err = mergeStack(d.layers, 0, maxSegments)
	return d, err
}

// mergeStack merges layers, topmost first, the first of which gets tag.
func mergeStack(layers []*Layer, tag int, limit int) ([]Segment, error) {
	if len(layers) == 1 {
		if n := len(layers[0].segments); n > limit {
			return nil, tooMany(n, limit)
		}
		out := make([]Segment, len(layers[0].segments))
		for k, s := range layers[0].segments {
			s.Tag = uint8(tag)
			out[k] = s
		}
		return out, nil
	}
	half := len(layers) / 2
	upper, err := mergeStack(layers[:half], tag, limit)
	if err != nil {
		return nil, err
	}
	lower, err := mergeStack(layers[half:], tag+half, limit)
	if err != nil {
		return nil, err
	}
	return overlay(upper, lower, limit)
}

func tooMany(n, limit int) error {
	return abi.Errorf(abi.ErrLimit, "lsmt: %d merged segments, want at most %d", n, limit)
}

// overlay puts upper over lower, both sorted and disjoint: the gaps of upper show lower.
func overlay(upper, lower []Segment, limit int) ([]Segment, error) {
	if len(upper) == 0 {
		return lower, nil
	}
	out := make([]Segment, 0, len(upper)+min(len(lower), len(upper)))
	k, shown := 0, uint64(0) // lower[k:] from sector shown on is not placed yet
	gap := func(end uint64) {
		for ; k < len(lower) && lower[k].Start < end; k++ {
			if part, ok := lower[k].within(shown, end); ok {
				out = append(out, part)
			}
			if lower[k].End() > end {
				break
			}
		}
	}
	for _, u := range upper {
		gap(u.Start)
		out = append(out, u)
		shown = u.End()
		if len(out) > limit {
			return nil, tooMany(len(out), limit)
		}
	}
	gap(maxStart + 1)
	if len(out) > limit {
		return nil, tooMany(len(out), limit)
	}
	return out, nil
}

// within returns the part of s in sectors from to end, false if there is none.
func (s Segment) within(from, end uint64) (Segment, bool) {
	from, end = max(from, s.Start), min(end, s.End())
	if from >= end {
		return Segment{}, false
	}
	if !s.Zero {
		s.Source += from - s.Start
	}
	s.Start, s.Length = from, uint16(end-from)
	return s, true
}

// Size returns the device's size in bytes.
func (d *Device) Size() int64 { return d.size }

// Segments returns what the layers mention, sorted and disjoint. Tag is the number of the segment's layer, counted from the
// topmost. The slice belongs to the device.
func (d *Device) Segments() []Segment { return d.segments }

// ReadAt reads from the device; sectors that no layer mentions are zeros. It returns io.EOF at the device's end. Data that is
// missing in a layer is ErrTruncated; an error of a layer's reader keeps its class or becomes ErrIO. Then n bytes are right.
func (d *Device) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, format.Invalid("read at %d", off)
	}
	if off >= d.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > d.size-off
	if short {
		p = p[:d.size-off]
	}
	k := sort.Search(len(d.segments), func(k int) bool { return d.segments[k].End() > uint64(off/SectorSize) })
	for n < len(p) {
		at := off + int64(n)
		if k == len(d.segments) {
			clear(p[n:])
			n = len(p)
			break
		}
		s := d.segments[k]
		if start := int64(s.Start) * SectorSize; at < start {
			hole := p[n:min(int64(len(p)), start-off)]
			clear(hole)
			n += len(hole)
			continue
		}
		part := p[n:min(int64(len(p)), int64(s.End())*SectorSize-off)]
		if err := d.readSegment(s, part, at-int64(s.Start)*SectorSize); err != nil {
			return n, err
		}
		n += len(part)
		k++
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

// readSegment reads p from byte skip of s on.
func (d *Device) readSegment(s Segment, p []byte, skip int64) error {
	if s.Zero {
		clear(p)
		return nil
	}
	l := d.layers[s.Tag]
	at := int64(s.Source)*SectorSize + skip
	if !s.Remote {
		return format.ReadFull(l.data, p, at, "data")
	}
	if over := at + int64(len(p)) - l.targetSz; over > 0 {
		// The index counts whole sectors, the target may end inside its last one.
		keep := max(int64(len(p))-over, 0)
		clear(p[keep:])
		p = p[:keep]
	}
	return format.ReadFull(l.target, p, at, "data of the target")
}

// Covered tells whether segments, sorted as those of a [Device], say anything of the n bytes at off.
func Covered(segments []Segment, off, n int64) bool {
	first, end := uint64(off/SectorSize), uint64((off+n+SectorSize-1)/SectorSize)
	k := sort.Search(len(segments), func(k int) bool { return segments[k].End() > first })
	return k < len(segments) && segments[k].Start < end
}
