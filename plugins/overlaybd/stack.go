package overlaybd

import (
	"fmt"
	"io"
	"slices"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/gzindex"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
	"github.com/convhost/convhost/plugins/overlaybd/tarshell"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
	"github.com/convhost/convhost/sdk"
)

// layerFile is one layer of an image with its shells opened. Shells that are not there are nil.
type layerFile struct {
	info   abi.PartInfo
	blob   *sdk.Blob
	shell  *tarshell.Shell
	file   *zfile.File
	layer  *lsmt.Layer
	target *target // of a TurboOCI layer
}

// openLayer opens part number index of a role, as a layer of s, and peels it.
func openLayer(h abi.Host, role abi.Role, parts []abi.PartInfo, index int, s *stack) (*layerFile, error) {
	blob, err := sdk.OpenBlob(h, role, index)
	if err != nil {
		return nil, err
	}
	l := &layerFile{info: parts[index], blob: blob}
	if targetOf(l.info) != "" {
		err = l.unpackTurbo(h, role, parts, index, s)
	} else {
		err = l.peel()
	}
	if err != nil {
		return nil, fmt.Errorf("%s of layer %d (%s): %w", role, l.info.Layer, l.info.Digest, err)
	}
	return l, nil
}

// peel opens what is inside: a tar, perhaps; a ZFile, perhaps; an LSMT file.
func (l *layerFile) peel() error {
	var r io.ReaderAt = l.blob
	size := l.blob.Size()
	shell, ok, err := tarshell.Find(r, size)
	if err != nil {
		return err
	}
	if ok {
		l.shell = &shell
		r, size = io.NewSectionReader(l.blob, shell.Offset, shell.Size), shell.Size
	}
	var head [24]byte
	if n, err := r.ReadAt(head[:], 0); err != nil && n < len(head) {
		return &abi.FormatError{Class: abi.ErrTruncated, Format: "overlaybd layer", Off: size, Field: "magic", Want: "a ZFile or an LSMT file"}
	}
	if zfile.Match(head[:]) {
		if l.file, err = zfile.Open(r, size, zfile.Options{}); err != nil {
			return err
		}
		r, size = l.file, l.file.Size()
	} else if !lsmt.Match(head[:]) {
		return &abi.FormatError{Class: abi.ErrCorrupt, Format: "overlaybd layer", Field: "magic", Got: fmt.Sprintf("% x", head[:8]), Want: "a ZFile or an LSMT file"}
	}
	l.layer, err = lsmt.Open(r, size, lsmt.Options{})
	return err
}

// stack is the device of some layers.
type stack struct {
	*lsmt.Device
	layers  []*layerFile  // lowest first
	members spool         // of TurboOCI layers, one behind the other
	pool    *gzindex.Pool // what was decompressed of their original layers
}

// A stack keeps this much of what it decompressed, and so many decompressors, which go on where they stopped.
const (
	poolBytes   = 16 << 20
	poolReaders = 8
)

// layersOf returns how many of the parts of an image are its layers; behind them is what they refer to.
func layersOf(parts []abi.PartInfo) int {
	n := slices.IndexFunc(parts, func(p abi.PartInfo) bool { return p.Ref != "" })
	if n < 0 {
		return len(parts)
	}
	return n
}

// openStack opens the device of the first layers of an image, lowest first. Layers that hold no blocks
// (accelerated-container-image's list of what to prefetch) are left out.
func openStack(h abi.Host, role abi.Role, parts []abi.PartInfo, layers int) (*stack, error) {
	s := &stack{pool: gzindex.NewPool(poolBytes, poolReaders)}
	files, err := s.open(h, role, parts, layers)
	if err == nil {
		s.Device, err = lsmt.Stack(files...)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stack) open(h abi.Host, role abi.Role, parts []abi.PartInfo, layers int) (files []*lsmt.Layer, err error) {
	for i, p := range parts[:layers] {
		if p.Annotations[annotationAcceleration] == "yes" {
			continue
		}
		l, err := openLayer(h, role, parts, i, s)
		if err != nil {
			return nil, err
		}
		s.layers, files = append(s.layers, l), append(files, l.layer)
	}
	if len(files) == 0 {
		return nil, abi.Errorf(abi.ErrInvalid, "image has no overlaybd layer")
	}
	return files, nil
}

// close gives scratch space back. The blobs end with the operation.
func (s *stack) close() { s.members.close() }

// uuid is that of the topmost layer.
func (s *stack) uuid() lsmt.UUID { return s.layers[len(s.layers)-1].layer.Header().UUID }

// inOrder compares the UUIDs that layers give each other: a layer says which one lies below it. Readers in the field do not
// look at them, and a zero one says nothing.
func (s *stack) inOrder() error {
	for i := 1; i < len(s.layers); i++ {
		lower, l := s.layers[i-1], s.layers[i]
		want, is := l.layer.Header().Parent, lower.layer.Header().UUID
		if want != (lsmt.UUID{}) && is != (lsmt.UUID{}) && want != is {
			return &abi.FormatError{
				Class: abi.ErrCorrupt, Format: "overlaybd layer", Entry: l.info.Digest, Off: -1, Field: "parent UUID", Got: want.String(),
				Want: is.String() + ", that of the layer below (" + lower.info.Digest + "): the layers are in the wrong order, or not of one image",
			}
		}
	}
	return nil
}
