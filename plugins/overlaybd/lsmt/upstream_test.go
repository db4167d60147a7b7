package lsmt

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
	"github.com/convhost/convhost/plugins/overlaybd/tarshell"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
)

// peel opens what is inside a layer's tar and ZFile.
func peel(t testing.TB, name string) *zfile.File {
	t.Helper()
	b := vectors.Layer(t, name)
	s, ok, err := tarshell.Find(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if ok {
		b = b[s.Offset : s.Offset+s.Size]
	}
	f, err := zfile.Open(bytes.NewReader(b), int64(len(b)), zfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func openUpstream(t testing.TB, name string, o Options) *Layer {
	t.Helper()
	f := peel(t, name)
	l, err := Open(f, f.Size(), o)
	if err != nil {
		t.Fatal(name, err)
	}
	return l
}

// same compares what is written to it with r, and fails at the first difference.
type same struct {
	r   io.ReaderAt
	pos int64
	buf []byte
}

func (s *same) Write(p []byte) (int, error) {
	s.buf = append(s.buf[:0], p...)
	n, err := s.r.ReadAt(s.buf, s.pos)
	if n < len(p) {
		return 0, fmt.Errorf("the original ends at %d: %w", s.pos+int64(n), err)
	}
	for k := range p {
		if s.buf[k] != p[k] {
			return k, fmt.Errorf("differs at %#x: %#x, the original has %#x", s.pos+int64(k), p[k], s.buf[k])
		}
	}
	s.pos += int64(n)
	return n, nil
}

// Upstream's layers keep every rule, and what Commit makes of each is the same file again.
func TestUpstream(t *testing.T) {
	for _, name := range []string{"hello-world.overlaybd", "layer1.overlaybd", "layer2.overlaybd"} {
		f := peel(t, name)
		if errs, notes := Check(f, f.Size(), Options{}); len(errs)+len(notes) > 0 {
			t.Error(name, errs, notes)
		}
		start := make([]byte, 24)
		if _, err := f.ReadAt(start, 0); err != nil || !Match(start) || Match(start[:23]) || zfile.Match(start) {
			t.Errorf("%s: starts with %x, %v", name, start, err)
		}
		l := openUpstream(t, name, Options{})
		h := l.Header()
		if h.VirtualSize != 64<<30 || h.Flags != 7 || l.Trailer().Flags != 6 {
			t.Errorf("%s: %+v", name, h)
		}
		out := &same{r: f}
		info, err := Commit(out, stack(t, l), Config{UUID: h.UUID, Parent: h.Parent, Comment: h.Comment})
		if err != nil || info.Size != f.Size() {
			t.Error(name, err, info.Size, f.Size())
		}
	}
}

// A device of both layers is an ext4 file system whose blocks come from the layer that wrote them last.
func TestUpstreamStack(t *testing.T) {
	low, top := openUpstream(t, "layer1.overlaybd", Options{}), openUpstream(t, "layer2.overlaybd", Options{})
	both, one, two := stack(t, low, top), stack(t, low), stack(t, top)
	super := make([]byte, 1024)
	if _, err := both.ReadAt(super, 1024); err != nil || binary.LittleEndian.Uint16(super[56:]) != 0xef53 {
		t.Fatal("no ext4 superblock", err)
	}
	if blocks := binary.LittleEndian.Uint32(super[4:]); int64(blocks)*4096 != both.Size() {
		t.Error("blocks", blocks)
	}
	from := [2]*Device{two, one}
	p, q := make([]byte, MaxLength*SectorSize), make([]byte, MaxLength*SectorSize)
	end := uint64(0)
	for _, s := range both.Segments() {
		off, n := int64(s.Start)*SectorSize, int(s.Length)*SectorSize
		if s.Start < end {
			t.Fatal("segments overlap at", s.Start)
		}
		end = s.End()
		if _, err := both.ReadAt(p[:n], off); err != nil {
			t.Fatal(err)
		}
		if _, err := from[s.Tag].ReadAt(q[:n], off); err != nil || !bytes.Equal(p[:n], q[:n]) {
			t.Fatalf("sectors from %d are not those of layer %d: %v", s.Start, s.Tag, err)
		}
	}
	for _, s := range top.Segments() { // all of the top is visible
		if len(mentioned(both, s.Start, s.End(), 0)) != 0 {
			t.Fatal("something hides the top layer at", s.Start)
		}
	}
}

// mentioned returns the segments in sectors from to end that do not come from the layer with tag.
func mentioned(d *Device, from, end uint64, tag uint8) (out []Segment) {
	for _, s := range d.Segments() {
		if part, ok := s.within(from, end); ok && s.Tag != tag {
			out = append(out, part)
		}
	}
	return out
}

// A TurboOCI layer made by upstream is read without its target, and written again byte for byte.
func TestUpstreamWarp(t *testing.T) {
	target := Options{Target: bytes.NewReader(nil), TargetSize: 1 << 40}
	f := peel(t, "ext4.fs.meta")
	if errs, notes := Check(f, f.Size(), target); len(errs)+len(notes) > 0 {
		t.Error(errs, notes)
	}
	l := openUpstream(t, "ext4.fs.meta", target)
	remote := 0
	for _, s := range l.Segments() {
		if s.Remote {
			remote++
		}
	}
	if remote == 0 {
		t.Fatal("no remote data")
	}
	h := l.Header()
	info, err := Commit(&same{r: f}, stack(t, l), Config{Warp: true, UUID: h.UUID, Parent: h.Parent, Comment: h.Comment})
	if err != nil || info.Size != f.Size() {
		t.Error(err, info.Size, f.Size())
	}
}

// All remote data of a TurboOCI layer is in the layer's tar.
func TestUpstreamWarpData(t *testing.T) {
	gz, err := os.Open(vectors.Shared(t, "overlaybd/turboci/layer.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer gz.Close()
	z, err := gzip.NewReader(gz)
	if err != nil {
		t.Fatal(err)
	}
	tar, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	l := openUpstream(t, "ext4.fs.meta", Options{Target: bytes.NewReader(tar), TargetSize: int64(len(tar))})
	d := stack(t, l)
	for _, s := range d.Segments() {
		p := make([]byte, int(s.Length)*SectorSize)
		if _, err := d.ReadAt(p, int64(s.Start)*SectorSize); err != nil {
			t.Fatal(err)
		}
		if s.Remote && !bytes.Equal(p, tar[s.Source*SectorSize:][:len(p)]) {
			t.Fatal("differs at sector", s.Start)
		}
	}
}
