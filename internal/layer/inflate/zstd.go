package inflate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/klauspost/compress/zstd"
)

// zstdReader decompresses frames. The decoder reads through a walker that sees every frame and block border, so that
// truncation, garbage and offsets are exact.
type zstdReader struct {
	w   *frames
	dec *zstd.Decoder
}

func newZstd(in *input, window uint64) (*zstdReader, error) {
	w := &frames{in: in, window: window}
	dec, err := zstd.NewReader(w, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(max(window, zstd.MinWindowSize)), zstd.WithDecoderMaxMemory(1<<62))
	if err != nil {
		return nil, abi.Errorf(abi.ErrInternal, "zstd decoder: %w", err)
	}
	return &zstdReader{w, dec}, nil
}

func (z *zstdReader) Close() error {
	z.dec.Close()
	return nil
}

func (z *zstdReader) Read(p []byte) (int, error) {
	n, err := z.dec.Read(p)
	if err == nil {
		return n, nil
	}
	if z.w.err != nil && (z.w.err != io.EOF || err == io.EOF) {
		return n, z.w.err
	}
	at := z.w.in.pos()
	class := abi.ErrCorrupt
	switch {
	case err == io.EOF:
		// The decoder stopped before the walker saw the end: it has read all frames, not what follows.
		if _, err := io.Copy(io.Discard, z.w); err != nil {
			return n, err
		}
		return n, io.EOF
	case errors.Is(err, zstd.ErrUnknownDictionary):
		class = abi.ErrUnsupported
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		class = abi.ErrLimit
	}
	return n, abi.Errorf(class, "zstd at 0x%x (frame at 0x%x): %w", at, z.w.start, err)
}

// frames passes the bytes of zstd frames through and follows their structure (RFC 8878, section 3.1).
type frames struct {
	in     *input
	window uint64 // largest allowed
	state  int
	buf    [18]byte // the longest frame header
	pend   []byte   // header bytes to hand out
	body   int64    // bytes that follow them unseen
	sum    bool     // the frame ends with a checksum
	start  int64    // of the current frame
	err    error
}

const (
	atFrame = iota
	atBlock
	atSum
)

func (w *frames) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if len(w.pend) > 0 {
			n := copy(p, w.pend)
			w.pend = w.pend[n:]
			return n, nil
		}
		if w.err != nil {
			return 0, w.err
		}
		if w.body > 0 {
			n, err := w.in.Read(p[:min(int64(len(p)), w.body)])
			w.body -= int64(n)
			if err != nil {
				w.err = w.fail(err, "block", fmt.Sprintf("%d more bytes", w.body))
			}
			if n > 0 {
				return n, nil
			}
			continue
		}
		w.err = w.step()
	}
	return 0, nil
}

func (w *frames) fail(err error, field, want string) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return w.in.truncated("zstd", field, want)
	}
	return err
}

func (w *frames) corrupt(field, got, want string) error {
	return &abi.FormatError{Class: abi.ErrCorrupt, Format: "zstd", Off: w.in.pos(), Field: field, Got: got, Want: want}
}

// take reads n more header bytes.
func (w *frames) take(n int, field string) ([]byte, error) {
	have := len(w.pend)
	b := w.buf[have : have+n]
	if _, err := io.ReadFull(w.in, b); err != nil {
		w.pend = nil
		return nil, w.fail(err, field, fmt.Sprintf("%d bytes", n))
	}
	w.pend = w.buf[:have+n]
	return b, nil
}

func (w *frames) step() error {
	w.pend = w.buf[:0]
	switch w.state {
	case atFrame:
		return w.frame()
	case atSum:
		w.state = atFrame
		_, err := w.take(4, "checksum")
		return err
	}
	at := w.in.pos()
	b, err := w.take(3, "block header")
	if err != nil {
		return err
	}
	v := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	w.body = int64(v >> 3)
	switch v >> 1 & 3 {
	case 1:
		w.body = 1
	case 3:
		w.pend = nil
		return &abi.FormatError{Class: abi.ErrCorrupt, Format: "zstd", Off: at, Field: "block type", Got: "3", Want: "0, 1 or 2"}
	}
	if v>>3 > 128<<10 {
		w.pend = nil
		return &abi.FormatError{Class: abi.ErrCorrupt, Format: "zstd", Off: at, Field: "block size", Got: fmt.Sprint(v >> 3), Want: "at most 131072"}
	}
	if v&1 != 0 {
		w.state = atFrame
		if w.sum {
			w.state = atSum
		}
	}
	return nil
}

// frame reads what stands at the border of a frame.
func (w *frames) frame() error {
	head, err := w.in.Peek(4)
	if len(head) == 0 || err != nil && err != io.EOF {
		return err
	}
	if len(head) == 4 && isSkippable(head) {
		w.start = w.in.pos()
		b, err := w.take(8, "skippable frame")
		if err == nil {
			w.body = int64(binary.LittleEndian.Uint32(b[4:]))
		}
		return err
	}
	if len(head) < 4 && err == io.EOF && cutMagic(head, Zstd) {
		return w.in.truncated("zstd", "frame header", "4 bytes of magic")
	}
	if string(head) != frameMagic {
		return w.in.end("zstd")
	}
	w.start = w.in.pos()
	b, err := w.take(5, "frame header")
	if err != nil {
		return err
	}
	desc := b[4]
	single := desc&0x20 != 0
	w.sum = desc&4 != 0
	if desc&8 != 0 {
		w.pend = nil
		return w.corrupt("frame header", "a reserved bit", "0")
	}
	dict := [...]int{0, 1, 2, 4}[desc&3]
	fcs := [...]int{0, 2, 4, 8}[desc>>6]
	rest := dict + fcs
	switch {
	case !single:
		rest++
	case fcs == 0:
		rest, fcs = rest+1, 1
	}
	if b, err = w.take(rest, "frame header"); err != nil {
		return err
	}
	w.state = atBlock
	return w.checkWindow(b, single, fcs)
}

// checkWindow refuses a frame that needs more memory than allowed. b is what follows the descriptor.
func (w *frames) checkWindow(b []byte, single bool, fcs int) error {
	var size uint64
	if single {
		for i, c := range b[len(b)-fcs:] {
			size |= uint64(c) << (8 * i)
		}
		if fcs == 2 {
			size += 256
		}
	} else {
		size = 1 << (10 + b[0]>>3)
		size += size / 8 * uint64(b[0]&7)
	}
	if size > w.window {
		w.pend = nil
		return &abi.FormatError{Class: abi.ErrLimit, Format: "zstd", Off: w.start, Field: "window", Got: fmt.Sprintf("%d bytes", size),
			Want: fmt.Sprintf("at most %d", w.window)}
	}
	return nil
}
