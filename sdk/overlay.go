package sdk

import (
	"encoding/binary"
	"iter"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
)

// Overlay lays the layers of an image over each other as extracting them would: for the Unpack of formats that keep
// layers apart. It holds names and attributes, about 300 bytes a file, and no content.
//
//	o := sdk.NewOverlay()
//	o.BeginLayer()                        // the base first
//	err := o.Add(&entry, whereItsBodyIs)  // each entry of the layer, in order
//	…
//	for e, body := range o.Entries() { … } // the file system
type Overlay struct{ tree *flatten.Tree }

// NewOverlay returns an empty one.
func NewOverlay() *Overlay { return &Overlay{flatten.New(flatten.Options{})} }

// BeginLayer starts the next layer, above those before.
func (o *Overlay) BeginLayer() { o.tree.BeginLayer() }

// Add applies an entry of the current layer; whiteouts and opaque directories are known by Entry.Flags. body is the
// caller's own note on a regular file's content, such as an index; Entries gives it back. e is not kept.
func (o *Overlay) Add(e *abi.Entry, body uint64) error {
	var note [32]byte
	binary.LittleEndian.PutUint64(note[:], body)
	return o.tree.Apply(e, note)
}

// Entries iterates over what is left in the order of a tar: a directory before what it holds, siblings by name. The first
// name of a file with several is the file, the others are hard links to it. An entry is valid until the next.
func (o *Overlay) Entries() iter.Seq2[*abi.Entry, uint64] {
	return func(yield func(*abi.Entry, uint64) bool) {
		for r := range o.tree.Records() {
			if r.Path == "" && r.Implied {
				continue
			}
			e := abi.Entry{
				Kind: r.Kind, Mode: r.Mode, UID: r.UID, GID: r.GID, DevMajor: r.DevMajor, DevMinor: r.DevMinor,
				MtimeSec: r.MtimeSec, MtimeNs: r.MtimeNs, Size: r.Size, Path: r.Path, Link: r.Link, Xattrs: r.Xattrs,
			}
			if r.Group != "" && r.Group != r.Path {
				e.Kind, e.Link, e.Size, e.DevMajor, e.DevMinor = abi.KindHardlink, r.Group, 0, 0, 0
			}
			if !yield(&e, binary.LittleEndian.Uint64(r.SHA256[:])) {
				return
			}
		}
	}
}
