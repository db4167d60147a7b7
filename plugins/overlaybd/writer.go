package overlaybd

import (
	"bytes"
	"encoding/hex"
	"io"
	"runtime"
	"strconv"
	"strings"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
	"github.com/convhost/convhost/plugins/overlaybd/tarshell"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
	"github.com/convhost/convhost/sdk"
)

// layerWriter is the device that a layer is applied to: reads see the lower layers, and what is written goes compressed
// into a spool at once, in the order in which the file system writes it.
type layerWriter struct {
	base      io.ReaderAt // nil below the first layer
	size      int64
	keepZeros bool
	spool     spool
	zip       *zfile.Writer
	diff      *lsmt.Writer
}

func newLayerWriter(base io.ReaderAt, size int64, set settings, id, parent lsmt.UUID) (*layerWriter, error) {
	w := &layerWriter{base: base, size: size, keepZeros: set.keepZeros}
	var err error
	if w.zip, err = zfile.NewParallelWriter(&w.spool, set.compressor, max(runtime.GOMAXPROCS(0), 1)); err != nil {
		return nil, err
	}
	w.diff, err = lsmt.NewWriter(w.zip, lsmt.Config{VirtualSize: size, UUID: id, Parent: parent, AnyOrder: true, Warp: set.warp})
	return w, err
}

var _ ext4.Device = (*layerWriter)(nil)

// Size implements ext4.Device.
func (w *layerWriter) Size() int64 { return w.size }

// ReadAt implements ext4.Device.
func (w *layerWriter) ReadAt(p []byte, off int64) (int, error) {
	if w.base == nil {
		clear(p)
		return len(p), nil
	}
	return w.base.ReadAt(p, off)
}

var zeroBlock [ext4.BlockSize]byte

// WriteAt implements ext4.Device.
func (w *layerWriter) WriteAt(p []byte, off int64) (int, error) {
	for done := 0; done < len(p); {
		n, zero := w.run(p[done:])
		var err error
		switch {
		case !zero:
			err = w.diff.Data(off+int64(done), p[done:done+n])
		case w.base != nil: // over nothing, nothing has to be said
			err = w.diff.Zero(off+int64(done), int64(n))
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// run returns how many bytes at the front of p are blocks of one sort, and whether they are zeros.
func (w *layerWriter) run(p []byte) (n int, zero bool) {
	if w.keepZeros {
		return len(p), false
	}
	is := func(i int) bool {
		b := p[i:min(i+ext4.BlockSize, len(p))]
		return bytes.Equal(b, zeroBlock[:len(b)])
	}
	zero = is(0)
	for n = ext4.BlockSize; n < len(p) && is(n) == zero; n += ext4.BlockSize {
	}
	return min(n, len(p)), zero
}

// finish completes the compressed layer in the spool.
func (w *layerWriter) finish() (zfile.Info, error) {
	if _, err := w.diff.Close(); err != nil {
		return zfile.Info{}, err
	}
	return w.zip.Close()
}

// WriteTo writes the complete layer, shell and all, when finish has returned info.
func (w *layerWriter) copyTo(out io.Writer, info zfile.Info) error {
	shell, err := tarshell.NewWriter(out, info.Size)
	if err != nil {
		return err
	}
	// The first header could not know what the second does; readers are content with one.
	if _, err := shell.Write(info.Header); err != nil {
		return err
	}
	rest := io.NewSectionReader(&w.spool, int64(len(info.Header)), info.Size-int64(len(info.Header)))
	if _, err := io.CopyBuffer(onlyWriter{shell}, rest, make([]byte, 1<<20)); err != nil {
		return err
	}
	return shell.Close()
}

// onlyWriter hides what else a writer can do, so that a copy uses its buffer.
type onlyWriter struct{ io.Writer }

func (w *layerWriter) close() { w.spool.close() }

// emit writes the layer into output index and says what it is.
func (w *layerWriter) emit(h abi.Host, index int, name, mediaType string) (abi.Part, error) {
	info, err := w.finish()
	if err != nil {
		return abi.Part{}, err
	}
	sink, err := sdk.OpenSink(h, index)
	if err != nil {
		return abi.Part{}, err
	}
	if err := w.copyTo(sink, info); err != nil {
		return abi.Part{}, err
	}
	return closePart(sink, index, name, mediaType)
}

// closePart ends an output and describes it as a layer.
func closePart(sink *sdk.Sink, index int, name, mediaType string) (abi.Part, error) {
	total, err := sink.Close()
	if err != nil {
		return abi.Part{}, err
	}
	digest := "sha256:" + hex.EncodeToString(total.SHA256[:])
	return abi.Part{
		Sink: index, Name: name, MediaType: mediaType, Digest: digest, Size: total.Size,
		Annotations: map[string]string{
			annotationVersion: layerVersion, annotationDigest: digest, annotationSize: strconv.FormatInt(total.Size, 10),
		},
	}, nil
}

// layerType is the type of a converted layer: of the family that the source's is of.
func layerType(source string) string {
	if strings.HasPrefix(source, "application/vnd.docker.") {
		return dockerLayer
	}
	return ociLayer
}

// uuidOf is the UUID of the layers up to one with this chain ID: its first 128 bits.
func uuidOf(chainID string) (id lsmt.UUID) {
	if _, hexa, ok := strings.Cut(chainID, ":"); ok && len(hexa) >= 32 {
		if b, err := hex.DecodeString(hexa[:32]); err == nil {
			copy(id[:], b)
		}
	}
	return id
}
