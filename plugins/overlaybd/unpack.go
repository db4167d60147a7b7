package overlaybd

import (
	"context"
	"errors"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
	"github.com/convhost/convhost/sdk"
)

// Unpack implements sdk.Unpacker. A layer is what changed between two file systems.
func (plugin) Unpack(ctx context.Context, u *sdk.Unpack) (*abi.UnpackResponse, error) {
	top := layersOf(u.Parts)
	if u.Layer >= 0 {
		if u.Parts[u.Layer].Annotations[annotationAcceleration] == "yes" {
			return nil, abi.Errorf(abi.ErrInvalid, "layer %d is a list of what to prefetch: it has no files", u.Layer)
		}
		top = u.Layer + 1
	}
	upper, err := openStack(u, abi.RolePart, u.Parts, top)
	if err != nil {
		return nil, err
	}
	defer upper.close()
	if err := upper.verifyTargets(ctx); err != nil {
		return nil, err
	}
	image, err := ext4.Open(upper, upper.Size())
	if err != nil {
		return nil, err
	}
	sink, err := sdk.OpenSink(u, 0)
	if err != nil {
		return nil, err
	}
	w := &tarWriter{sink: sink, buf: make([]byte, 0, 1<<20)}
	if u.Layer <= 0 {
		err = image.Walk(ctx, w.entry)
	} else {
		err = diff(ctx, u, u.Parts, u.Layer, image, w)
	}
	if err != nil {
		return nil, err
	}
	w.buf = sdk.AppendTarEnd(w.buf)
	if err := w.flush(); err != nil {
		return nil, err
	}
	_, err = sink.Close()
	return &abi.UnpackResponse{Entries: w.entries}, err
}

// diff writes what image has beyond the file system of the lower layers.
func diff(ctx context.Context, h abi.Host, parts []abi.PartInfo, layers int, image *ext4.Image, w *tarWriter) error {
	lower, err := openStack(h, abi.RolePart, parts, layers)
	if err != nil {
		return err
	}
	defer lower.close()
	below, err := ext4.Open(lower, lower.Size())
	if err != nil {
		return err
	}
	return ext4.Diff(ctx, below, image, w.entry)
}

// tarWriter writes entries as a tar, in pieces of 1 MiB.
type tarWriter struct {
	sink    io.Writer
	buf     []byte
	entries int64
}

func (w *tarWriter) entry(e *abi.Entry, file *ext4.File) (err error) {
	w.entries++
	if w.buf, err = sdk.AppendTarHeader(w.buf, e); err != nil {
		return err
	}
	if file == nil || e.Kind != abi.KindRegular {
		return w.flushIfFull()
	}
	for left := e.Size; left > 0; {
		if err := w.flushIfFull(); err != nil {
			return err
		}
		n := int(min(left, int64(cap(w.buf)-len(w.buf))))
		at := len(w.buf)
		w.buf = w.buf[:at+n]
		if _, err := io.ReadFull(file, w.buf[at:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = &abi.FormatError{Class: abi.ErrTruncated, Format: "ext4", Entry: e.Path, Off: e.Size - left, Field: "content", Want: "more bytes"}
			}
			return err
		}
		left -= int64(n)
	}
	w.buf = sdk.AppendTarPadding(w.buf, e.Size)
	return w.flushIfFull()
}

// flushIfFull keeps room for a header in the buffer.
func (w *tarWriter) flushIfFull() error {
	if cap(w.buf)-len(w.buf) < 64<<10 {
		return w.flush()
	}
	return nil
}

func (w *tarWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.sink.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}
