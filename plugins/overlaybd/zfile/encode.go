package zfile

import (
	"encoding/binary"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// Config says how a Writer compresses. The zero value is what upstream writes: lz4, 4 KiB, checksums.
type Config struct {
	Algorithm Algorithm // 0 means LZ4
	BlockSize int       // bytes, 4096 to 32768, a power of two; 0 means 4096
	NoVerify  bool      // leaves the blocks' checksums out
	MaxBlocks int64     // limits the table, 4 bytes of memory a block; 0 means the format's 1,000,000,000. More is ErrLimit
}

// Info says what a Writer wrote.
type Info struct {
	Size   int64 // bytes of the whole file
	Length int64 // bytes of the content
	Blocks int64

	// Header, 512 bytes, is the complete header. The one at the file's start lacks what was not known yet; readers then
	// take the trailer. Who can, puts this one in its place, as upstream does.
	Header []byte
}

// batchBytes is how much content is compressed and written at once.
const batchBytes = 256 << 10

// Writer compresses what is written to it, forward only. The first error stays. It is used from one goroutine.
type Writer struct {
	w       io.Writer
	c       Config
	pos     int64
	length  int64
	table   []byte // as stored
	fill    *job   // content that is not compressed yet, nil if none
	pending []*job // batches on their way, oldest first
	free    []*job // batches that can be used again
	workers int
	closed  bool
	err     error
}

// NewWriter writes the header; blocks are compressed on the caller's goroutine. A wrong Config is ErrInvalid; an error of w
// keeps its class or becomes ErrIO.
func NewWriter(w io.Writer, c Config) (*Writer, error) { return NewParallelWriter(w, c, 1) }

// NewParallelWriter is [NewWriter] with goroutines: up to workers batches of 256 KiB are compressed at a time, each on a goroutine
// that ends with its batch. Only the caller's goroutine writes to w, in the order of the input, so the output is the same
// for any number of workers. Memory is about 0.7 MB for each. Close waits for all of them; a Writer that is dropped without
// Close leaves none behind.
func NewParallelWriter(w io.Writer, c Config, workers int) (*Writer, error) {
	if c.Algorithm == 0 {
		c.Algorithm = LZ4
	}
	if c.BlockSize == 0 {
		c.BlockSize = DefaultBlockSize
	}
	if c.MaxBlocks <= 0 || c.MaxBlocks > MaxBlocks {
		c.MaxBlocks = MaxBlocks
	}
	if c.Algorithm != LZ4 && c.Algorithm != Zstd {
		return nil, format.Invalid("algorithm is %d, want 1 (lz4) or 2 (zstd)", byte(c.Algorithm))
	}
	if bs := c.BlockSize; bs < 4096 || bs > 32<<10 || bs&(bs-1) != 0 {
		return nil, format.Invalid("block size is %d, want 4096, 8192, 16384 or 32768", bs)
	}
	if workers < 1 {
		return nil, format.Invalid("%d workers, want 1 or more", workers)
	}
	out := &Writer{w: w, c: c, workers: workers}
	return out, out.emit(encodeHeader(Header{Flags: flagHeader | flagData | flagDigest}, c))
}

// encodeHeader returns a record with its digest.
func encodeHeader(h Header, c Config) []byte {
	b := make([]byte, HeaderSize)
	copy(b, magic0[:])
	copy(b[offMagic1:], magic1[:])
	binary.LittleEndian.PutUint32(b[offSize:], headerUsed)
	binary.LittleEndian.PutUint64(b[offFlags:], h.Flags)
	binary.LittleEndian.PutUint64(b[offIndex:], uint64(h.IndexOffset))
	binary.LittleEndian.PutUint64(b[offEntries:], uint64(h.Blocks))
	binary.LittleEndian.PutUint64(b[offLength:], uint64(h.Length))
	binary.LittleEndian.PutUint32(b[offCRC:], h.IndexCRC)
	binary.LittleEndian.PutUint32(b[offBlock:], uint32(c.BlockSize))
	b[offAlgo] = byte(c.Algorithm)
	if !c.NoVerify {
		b[offVerify] = 1
	}
	binary.LittleEndian.PutUint32(b[offDigest:], headerView(b).sum())
	return b
}

// Write compresses p. How the input is cut into calls does not matter.
func (w *Writer) Write(p []byte) (n int, err error) {
	if w.err == nil && w.closed {
		w.err = format.Invalid("write to a closed file")
	}
	for len(p) > 0 && w.err == nil {
		if w.fill == nil {
			w.fill = w.batch()
		}
		j := w.fill
		m := min(len(p), batchBytes-len(j.in))
		j.in = append(j.in, p[:m]...)
		p, n = p[m:], n+m
		if len(j.in) == batchBytes {
			w.submit()
		}
	}
	return n, w.err
}

// Close writes what is left, the jump table and the trailer. It does not close the underlying writer.
func (w *Writer) Close() (Info, error) {
	if w.err == nil && w.closed {
		w.err = format.Invalid("a file is closed twice")
	}
	w.closed = true
	if w.err == nil && w.fill != nil {
		w.submit()
	}
	w.drain(0)
	if w.err != nil {
		return Info{}, w.err
	}
	h := Header{
		Flags: flagData | flagSealed | flagDigest, IndexOffset: w.pos, Blocks: int64(len(w.table) / entrySize), Length: w.length,
		IndexCRC: rawCRC(0, w.table),
	}
	blocks := (w.length + int64(w.c.BlockSize) - 1) / int64(w.c.BlockSize)
	if h.Blocks != blocks {
		w.err = abi.Errorf(abi.ErrInternal, "zfile: %d blocks written, planned %d", h.Blocks, blocks)
		return Info{}, w.err
	}
	if err := w.emit(w.table); err != nil {
		return Info{}, err
	}
	if err := w.emit(encodeHeader(h, w.c)); err != nil {
		return Info{}, err
	}
	h.Flags = flagHeader | flagData | flagComplete | flagDigest
	return Info{Size: w.pos, Length: w.length, Blocks: h.Blocks, Header: encodeHeader(h, w.c)}, nil
}

func (w *Writer) emit(p []byte) error {
	if w.err != nil || len(p) == 0 {
		return w.err
	}
	n, err := w.w.Write(p)
	w.pos += int64(n)
	if err == nil && n != len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = codecerr.Outer(err, "zfile: write")
	}
	return w.err
}
