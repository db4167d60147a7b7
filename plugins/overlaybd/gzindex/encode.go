package gzindex

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zlib"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/zran"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// Config says how a Writer selects. The zero value is what upstream does.
type Config struct {
	Span int64 // bytes of output between entries, at most 2 GiB; 0 means DefaultSpan
}

// Info says what a Writer wrote.
type Info struct {
	Size    int64  // bytes of the whole file
	Entries int    // entries of the index
	Header  []byte // what stands before everything that the body got: HeaderSize bytes
}

// Writer makes the index of one gzip file from the blocks that a [zran.Reader] tells of. The first error stays. It is used from
// one goroutine.
type Writer struct {
	body    io.Writer
	span    int64
	at      int64 // where the next byte of the body stands in the file
	entries []byte
	last    entry // the block before; not in entries unless kept
	kept    int64 // output offset of the newest entry
	any     bool
	member  zran.Member
	members int
	ring    [windowSize]byte // output before last, the oldest byte at head
	head    int
	packed  bytes.Buffer
	z       *zlib.Writer
	err     error
	done    bool
}

// NewWriter returns a Writer whose windows and entries go to body; the header comes from [Writer.Close].
func NewWriter(body io.Writer, c Config) *Writer {
	if c.Span == 0 {
		c.Span = DefaultSpan
	}
	w := &Writer{body: body, span: c.Span, at: HeaderSize}
	if c.Span < 0 || c.Span > 1<<31 {
		w.err = format.Invalid("span of %d bytes, want 1 to 2 GiB", c.Span)
		return w
	}
	w.z, w.err = zlib.NewWriterLevel(&w.packed, zlibLevel)
	return w
}

// Member is for [zran.Options.OnMember]. A second member is ErrUnsupported.
func (w *Writer) Member(m zran.Member) error {
	w.members++
	w.member = m
	if w.members > 1 && w.err == nil {
		w.err = &abi.FormatError{Class: abi.ErrUnsupported, Format: "gzip", Off: m.In, Field: "another member", Want: "a single one, because readers " +
			"of a TurboOCI index end with the first: compress the layer again as one member, or convert to overlaybd"}
	}
	return w.err
}

// Block is for [zran.Options.OnBlock].
func (w *Writer) Block(b *zran.Block) error {
	if w.err != nil {
		return w.err
	}
	now := entry{out: b.Out, in: b.In, bits: b.Bits}
	switch {
	case !w.any:
		w.last = now
		w.keep()
		w.any = true
	case b.Out > w.last.out:
		// the last one before a multiple of the span, or one that stands on it
		if w.last.out > w.kept && b.Out/w.span > (w.last.out-1)/w.span {
			w.keep()
		}
		w.remember(b.Window(), b.Out-w.last.out)
		fallthrough
	default: // an empty block: the window is the same
		w.last = now
	}
	return w.err
}

// remember takes the last n bytes of output into the ring, so that each byte is copied once, however short blocks are.
func (w *Writer) remember(window []byte, n int64) {
	if n < int64(len(window)) {
		window = window[int64(len(window))-n:]
	}
	k := copy(w.ring[w.head:], window)
	copy(w.ring[:], window[k:])
	w.head = (w.head + len(window)) % windowSize
}

// keep writes the window of the last block and adds its entry.
func (w *Writer) keep() {
	e := w.last
	e.winPos = w.at
	n := w.pack(w.ring[w.head:], w.ring[:w.head])
	e.winLen = uint32(n)
	w.entries = appendEntry(w.entries, e)
	w.kept = e.out
}

// pack compresses parts into the body.
func (w *Writer) pack(parts ...[]byte) (n int64) {
	if w.err != nil {
		return 0
	}
	w.packed.Reset()
	w.z.Reset(&w.packed)
	for _, p := range parts {
		if _, err := w.z.Write(p); err != nil {
			w.err = abi.Errorf(abi.ErrInternal, "gzip index: compress: %w", err)
			return 0
		}
	}
	if err := w.z.Close(); err != nil {
		w.err = abi.Errorf(abi.ErrInternal, "gzip index: compress: %w", err)
		return 0
	}
	n = int64(w.packed.Len())
	got, err := w.body.Write(w.packed.Bytes())
	if err == nil && int64(got) != n {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = codecerr.Outer(err, "gzip index: write")
		return 0
	}
	w.at += n
	return n
}

// Close writes the entries. gzSize is the size of the compressed file, whatever stands behind its member included, rawSize
// that of its output. It is called when all was decompressed without an error; without a member it is ErrInvalid. It
// does not close the underlying writer.
func (w *Writer) Close(gzSize, rawSize int64) (Info, error) {
	switch {
	case w.err != nil:
	case w.done:
		w.err = format.Invalid("an index is closed twice")
	case w.members != 1 || !w.any:
		w.err = format.Invalid("no gzip member was read")
	case gzSize < w.last.in || rawSize < w.last.out:
		w.err = format.Invalid("file of %d bytes, %d decompressed, want at least %d and %d", gzSize, rawSize, w.last.in, w.last.out)
	}
	w.done = true
	start := w.at
	area := w.pack(w.entries)
	if w.err != nil {
		return Info{}, w.err
	}
	h := make([]byte, HeaderSize)
	le := binary.LittleEndian
	copy(h, magic[:])
	h[offMajor], h[offAlgo], h[offLevel] = major, algoZlib, zlibLevel
	le.PutUint32(h[offSpan:], uint32(w.span))
	le.PutUint32(h[offWindow:], windowSize)
	le.PutUint32(h[offEntry:], entrySize)
	le.PutUint64(h[offEntries:], uint64(len(w.entries)/entrySize))
	le.PutUint64(h[offGzip:], uint64(gzSize))
	le.PutUint64(h[offFile:], uint64(w.at))
	le.PutUint64(h[offRaw:], uint64(rawSize))
	le.PutUint64(h[offStart:], uint64(start))
	le.PutUint64(h[offArea:], uint64(area))
	le.PutUint32(h[offCRC:], headerView(h).sum())
	return Info{Size: w.at, Entries: len(w.entries) / entrySize, Header: h}, nil
}
