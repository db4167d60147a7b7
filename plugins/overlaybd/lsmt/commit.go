package lsmt

import (
	"io"

	"github.com/convhost/convhost/abi"
)

// copyStep is how much data Commit holds at once.
const copyStep = 128 << 10

// Commit writes the merged view of d as one sealed layer: all data that is still visible, nothing that is hidden. Segments with
// the zero flag stay, because the result may lie on other layers. A VirtualSize of 0 becomes that of d. With c.Warp, data of a
// target stays remote, which all segments of d must then share; otherwise it is copied into the layer.
func Commit(w io.Writer, d *Device, c Config) (Info, error) {
	if c.VirtualSize == 0 {
		c.VirtualSize = d.size
	}
	if c.Warp {
		if err := d.oneTarget(); err != nil {
			return Info{}, err
		}
	}
	out, err := NewWriter(w, c)
	if err != nil {
		return Info{}, err
	}
	buf := make([]byte, copyStep)
	for _, s := range d.segments {
		off, n := int64(s.Start)*SectorSize, int64(s.Length)*SectorSize
		switch {
		case s.Zero:
			err = out.Zero(off, n)
		case s.Remote && c.Warp:
			err = out.Remote(off, n, int64(s.Source)*SectorSize)
		default:
			err = d.copySegment(out, s, buf)
		}
		if err != nil {
			return Info{}, err
		}
	}
	return out.Close()
}

func (d *Device) copySegment(out *Writer, s Segment, buf []byte) error {
	off, n := int64(s.Start)*SectorSize, int64(s.Length)*SectorSize
	for at := int64(0); at < n; at += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), n-at)]
		if err := d.readSegment(s, part, at); err != nil {
			return err
		}
		if err := out.Data(off+at, part); err != nil {
			return err
		}
	}
	return nil
}

func (d *Device) oneTarget() error {
	seen := -1
	for _, s := range d.segments {
		if !s.Remote {
			continue
		}
		if seen >= 0 && seen != int(s.Tag) {
			return abi.Errorf(abi.ErrUnsupported, "lsmt: a warp layer with the targets of two layers")
		}
		seen = int(s.Tag)
	}
	return nil
}
