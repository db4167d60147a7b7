package overlaybd

import (
	"context"
	"fmt"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
	"github.com/convhost/convhost/plugins/overlaybd/tarshell"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
	"github.com/convhost/convhost/sdk"
)

// ConvertLayer implements sdk.Plugin: the layer becomes a blob, the last output. With mkfs=false the first layer of an image
// has the base layer before it.
func (plugin) ConvertLayer(ctx context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	set, err := parseOptions(l.Options)
	if err != nil {
		return nil, err
	}
	c := &converter{Layer: l, set: set, size: set.size, mediaType: layerType(l.Layer.MediaType)}
	defer c.close()
	if err := c.open(); err != nil {
		return nil, err
	}
	w, err := newLayerWriter(c.base, c.size, set, uuidOf(l.Layer.ChainID), c.parent)
	if err != nil {
		return nil, err
	}
	defer w.close()
	if err := c.apply(ctx, w); err != nil {
		return nil, err
	}
	part, err := w.emit(l, len(c.parts), layerName, c.mediaType)
	if err != nil {
		return nil, err
	}
	return &abi.ConvertResponse{Parts: append(c.parts, part)}, nil
}

// converter is the conversion of one layer.
type converter struct {
	*sdk.Layer
	set       settings
	mediaType string
	base      io.ReaderAt // device of the lower layers, nil if there are none
	size      int64       // of the device
	parent    lsmt.UUID
	parts     []abi.Part   // made before the layer
	baseLayer *layerWriter // made by us, to be closed
	stack     *stack       // that base is, if it is one
}

func (c *converter) close() {
	if c.stack != nil {
		c.stack.close()
	}
	if c.baseLayer != nil {
		c.baseLayer.close()
	}
}

// open finds out what the layer lies on.
func (c *converter) open() error {
	switch {
	case len(c.Parents) >= lsmt.MaxLayers:
		return abi.Errorf(abi.ErrLimit, "overlaybd stacks at most %d layers, and this one has %d below it: squash the image first", lsmt.MaxLayers, len(c.Parents))
	case len(c.Parents) > 0:
		s, err := openStack(c, abi.RoleParent, c.Parents, len(c.Parents))
		if err != nil {
			return err
		}
		c.stack, c.base, c.size, c.parent = s, s, s.Size(), s.uuid()
		return s.inOrder()
	case c.set.mkfs && len(c.Dicts) > 0:
		return abi.Errorf(abi.ErrInvalid, "a dictionary is the base layer, and there is none with mkfs=true: set mkfs=false")
	case c.set.mkfs:
		return nil
	case len(c.Dicts) > 1:
		return abi.Errorf(abi.ErrInvalid, "%d dictionaries: want one, the base layer", len(c.Dicts))
	case len(c.Dicts) == 1:
		return c.givenBase()
	}
	return c.makeBase()
}

// givenBase takes the dictionary for base layer, such as upstream's ext4_64. It is stored as it is; one that is in no tar
// gets the plain one, as upstream's convertor makes it.
func (c *converter) givenBase() error {
	s, err := openStack(c, abi.RoleDict, c.Dicts, len(c.Dicts))
	if err != nil {
		return err
	}
	l := s.layers[0]
	sink, err := sdk.OpenSink(c, 0)
	if err != nil {
		return err
	}
	size := l.blob.Size()
	var head, tail []byte
	if l.shell == nil {
		if head, err = tarshell.PlainHeader(size); err != nil {
			return err
		}
		tail = tarshell.Trailer(size)
	}
	if _, err := sink.Write(head); err != nil {
		return err
	}
	if _, err := c.Copy(sink.Handle, l.blob.Handle, 0, size); err != nil {
		return err
	}
	if _, err := sink.Write(tail); err != nil {
		return err
	}
	part, err := closePart(sink, 0, baseName, c.mediaType)
	c.parts, c.base, c.size, c.parent = append(c.parts, part), s, s.Size(), s.uuid()
	return err
}

// makeBase makes the base layer: the file system as mkfs leaves it.
func (c *converter) makeBase() error {
	w, err := newLayerWriter(nil, c.size, c.set, lsmt.UUID{}, lsmt.UUID{})
	if err != nil {
		return err
	}
	c.baseLayer = w
	a, err := ext4.Format(w, c.set.format, ext4.Options{})
	if err != nil {
		return err
	}
	if _, err := a.Commit(); err != nil {
		return err
	}
	part, err := w.emit(c, 0, baseName, c.mediaType)
	if err != nil {
		return err
	}
	c.parts = append(c.parts, part)
	file, err := zfile.Open(&w.spool, w.spool.size, zfile.Options{})
	if err != nil {
		return err
	}
	layer, err := lsmt.Open(file, file.Size(), lsmt.Options{})
	if err != nil {
		return err
	}
	c.base, err = lsmt.Stack(layer)
	return err
}

// apply puts the layer's entries on the device.
func (c *converter) apply(ctx context.Context, w *layerWriter) error {
	var meta scratch
	defer meta.close()
	a, err := c.applier(w, ext4.Options{Scratch: &meta})
	if err != nil {
		return err
	}
	stream, err := c.Open(abi.RoleLayerEntries, 0)
	if err != nil {
		return err
	}
	body := &body{host: c, stream: stream}
	for e, err := range sdk.Entries(c, stream, 0) {
		if err != nil {
			return err
		}
		if err := a.Apply(ctx, e, body); err != nil {
			return atEntry(e, err)
		}
	}
	_, err = a.Commit()
	return err
}

// atEntry says at which entry the device was full: not the entry's fault, but there it happened.
func atEntry(e *abi.Entry, err error) error {
	if abi.ClassOf(err) == abi.ErrLimit {
		return fmt.Errorf("entry %q at 0x%x of the tar: %w", e.Path, e.HdrOff, err)
	}
	return err
}

func (c *converter) applier(w *layerWriter, o ext4.Options) (*ext4.Applier, error) {
	if c.base == nil {
		return ext4.Format(w, c.set.format, o)
	}
	a, err := ext4.NewApplier(w, o)
	if err != nil {
		return nil, fmt.Errorf("file system of the lower layers: %w", err)
	}
	return a, nil
}

// body reads the body of the entry that was iterated last.
type body struct {
	host   abi.Host
	stream abi.Handle
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.host.Read(b.stream, p)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}
