package tarshell

import (
	"fmt"
	"io"
	"strconv"

	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// Header returns what stands before a payload of size bytes in upstream's form: HeaderSize bytes. size must not be negative.
func Header(size int64) []byte {
	b := make([]byte, HeaderSize)
	record := paxRecord(sizeRecord, strconv.FormatInt(size, 10))

	pax := b[:block]
	copy(pax, paxName)
	copy(pax[124:136], fmt.Sprintf("%11o ", len(record)))
	pax[156] = 'x'
	copy(pax[257:], "ustar\x0000")
	copy(pax[148:156], blankOctal(sumOf(pax)))
	copy(b[block:], record)

	h := b[2*block:]
	copy(h, Name)
	copy(h[100:108], blankOctal(0o100644)) // as stat tells it, with the file type
	copy(h[108:116], blankOctal(0))
	copy(h[116:124], blankOctal(0))
	copy(h[124:136], fmt.Sprintf("%11o ", 0))
	copy(h[136:148], fmt.Sprintf("%11o ", 0))
	h[156] = '0'
	copy(h[257:], "ustar\x0000")
	copy(h[265:], "root")
	copy(h[297:], "root")
	copy(h[148:156], blankOctal(sumOf(h)))
	return b
}

// PlainHeader returns the header of the plain form: PlainSize bytes, with the mode that the convertor gives its base layer. A size
// that 11 octal digits cannot say is ErrInvalid.
func PlainHeader(size int64) ([]byte, error) {
	if size < 0 || size > maxPlain {
		return nil, format.Invalid("payload of %d bytes, want 0 to %d in the plain form", size, int64(maxPlain))
	}
	h := make([]byte, PlainSize)
	copy(h, Name)
	copy(h[100:], "0000444")
	copy(h[108:], "0000000")
	copy(h[116:], "0000000")
	copy(h[124:], fmt.Sprintf("%011o", size))
	copy(h[136:], "00000000000")
	h[156] = '0'
	copy(h[257:], "ustar\x0000")
	copy(h[329:], "0000000")
	copy(h[337:], "0000000")
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sumOf(h)))
	return h, nil
}

// Trailer returns what stands behind a payload of size bytes, in either form: zeros to a multiple of 512, and 1024 more.
func Trailer(size int64) []byte {
	return make([]byte, (block-size%block)%block+endSize)
}

// TotalSize returns the bytes of a layer in upstream's form around a payload of size bytes.
func TotalSize(size int64) int64 {
	return HeaderSize + size + int64(len(Trailer(size)))
}

func blankOctal(n int64) string { return fmt.Sprintf("%6o \x00", n) }

func sumOf(h headerView) int64 {
	unsigned, _ := h.sums()
	return unsigned
}

// paxRecord returns "<length> <key>=<value>\n", in which the length counts itself.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest)
	for n != len(rest)+len(strconv.Itoa(n)) {
		n = len(rest) + len(strconv.Itoa(n))
	}
	return strconv.Itoa(n) + rest
}

// Writer writes a payload into the shell, forward only. The first error stays.
type Writer struct {
	w    io.Writer
	size int64
	left int64
	err  error
	done bool
}

// NewWriter writes upstream's header for a payload of size bytes. A negative size is ErrInvalid; an error of w keeps its class or
// becomes ErrIO.
func NewWriter(w io.Writer, size int64) (*Writer, error) {
	if size < 0 {
		return nil, format.Invalid("payload of %d bytes", size)
	}
	return newWriter(w, size, Header(size))
}

// NewPlainWriter is [NewWriter] for the plain form.
func NewPlainWriter(w io.Writer, size int64) (*Writer, error) {
	h, err := PlainHeader(size)
	if err != nil {
		return nil, err
	}
	return newWriter(w, size, h)
}

func newWriter(w io.Writer, size int64, h []byte) (*Writer, error) {
	out := &Writer{w: w, size: size, left: size}
	if _, err := out.emit(h); err != nil {
		return nil, err
	}
	return out, nil
}

// Write writes payload. More than was announced is ErrInvalid, and nothing of p is written.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err == nil && (w.done || int64(len(p)) > w.left) {
		w.err = format.Invalid("%d bytes of payload more than the %d that were announced", int64(len(p))-w.left, w.size)
	}
	n, err := w.emit(p)
	w.left -= int64(n)
	return n, err
}

// Close writes the trailer. Less payload than was announced is ErrInvalid. It does not close the underlying writer.
func (w *Writer) Close() error {
	switch {
	case w.err != nil:
	case w.done:
		w.err = format.Invalid("a shell is closed twice")
	case w.left > 0:
		w.err = format.Invalid("%d bytes of payload are missing of the %d that were announced", w.left, w.size)
	}
	w.done = true
	_, err := w.emit(Trailer(w.size))
	return err
}

func (w *Writer) emit(p []byte) (int, error) {
	if w.err != nil || len(p) == 0 {
		return 0, w.err
	}
	n, err := w.w.Write(p)
	if err == nil && n != len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = codecerr.Outer(err, "overlaybd tar: write")
	}
	return n, w.err
}
