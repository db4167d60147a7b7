package gzindex

import (
	"errors"
	"io"
	"sort"

	"github.com/klauspost/compress/zlib"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// Header holds what the header of an index says.
type Header struct {
	Major, Minor uint8
	Algorithm    uint8 // how windows and entries are compressed: 1 zlib, 0 not
	Level        uint8 // of the compression
	Span         int64 // bytes of output between entries, about
	Entries      int64
	GzipSize     int64 // bytes of the compressed file
	Size         int64 // bytes of the index
	RawSize      int64 // bytes of the decompressed file
	IndexStart   int64 // where in the index the entries stand
	IndexLength  int64 // bytes of them, compressed
}

// Options limit the reading of an index. The zero value is right for all layers.
type Options struct {
	// MaxEntries limits the entries, 40 bytes of memory each; 0 means 1,048,576, which is a tar of 1 TiB. More is ErrLimit.
	MaxEntries int64

	// Pool holds what was decompressed; nil means one of the default size for this file alone.
	Pool *Pool
}

const defaultEntries = 1 << 20

// File is an opened index with the file that it belongs to: an [io.ReaderAt] of the decompressed content. It may be used from
// several goroutines if its readers may.
type File struct {
	meta, gz io.ReaderAt
	head     Header
	entries  []entry // by out
	pool     *Pool
}

// Open reads header and entries of an index of exactly size bytes for the gzip file gz of gzSize bytes, and checks all that
// readers rely on; windows and gz are read later. Errors are ErrCorrupt, ErrTruncated, ErrDigest, ErrLimit, ErrUnsupported, or
// those of meta.
func Open(meta io.ReaderAt, size int64, gz io.ReaderAt, gzSize int64, o Options) (*File, error) {
	b := make(headerView, HeaderSize)
	if size < HeaderSize {
		return nil, format.Truncated(max(size, 0), "header", "333 bytes")
	}
	if err := format.ReadFull(meta, b, 0, "header"); err != nil {
		return nil, err
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = defaultEntries
	}
	h, err := decodeHeader(b, size, o.MaxEntries)
	if err != nil {
		return nil, err
	}
	if h.GzipSize != gzSize {
		return nil, format.Fail(abi.ErrDigest, offGzip, "gzip_file_size", codecerr.Dec(h.GzipSize), codecerr.Dec(gzSize)+", the size of the layer: the index belongs to another")
	}
	f := &File{meta: meta, gz: gz, head: h, pool: o.Pool}
	if f.pool == nil {
		f.pool = NewPool(0, 0)
	}
	return f, f.load()
}

// Header returns what the header says.
func (f *File) Header() Header { return f.head }

// Size returns the length of the decompressed content in bytes.
func (f *File) Size() int64 { return f.head.RawSize }

func decodeHeader(b headerView, size, limit int64) (Header, error) {
	h := Header{Major: b[offMajor], Minor: b[offMinor], Algorithm: b[offAlgo], Level: b[offLevel], Span: int64(b.u32(offSpan)), Size: size}
	switch {
	case !Match(b):
		return h, format.Corrupt(0, "magic", "", "\"ddgzidx\"")
	case b.u32(offCRC) != b.sum():
		return h, format.Fail(abi.ErrDigest, offCRC, "crc of the header", codecerr.Hex(b.u32(offCRC)), codecerr.Hex(b.sum()))
	case h.Major != major:
		return h, format.Fail(abi.ErrUnsupported, offMajor, "major_version", codecerr.Dec(h.Major), "1")
	case h.Algorithm != algoZlib && h.Algorithm != algoNone:
		return h, format.Fail(abi.ErrUnsupported, offAlgo, "dict_compress_algo", codecerr.Dec(h.Algorithm), "1 (zlib) or 0 (none)")
	case b.u32(offWindow) != windowSize:
		return h, format.Fail(abi.ErrUnsupported, offWindow, "window", codecerr.Dec(b.u32(offWindow)), "32768")
	case b.u32(offEntry) != entrySize:
		return h, format.Corrupt(offEntry, "index_size", codecerr.Dec(b.u32(offEntry)), "29")
	case b.u64(offFile) > uint64(size):
		return h, format.Truncated(size, "index_file_size", codecerr.Dec(b.u64(offFile))+" bytes")
	case b.u64(offFile) < uint64(size):
		return h, format.Corrupt(offFile, "index_file_size", codecerr.Dec(b.u64(offFile)), codecerr.Dec(size)+", the size of the file")
	}
	start, area := b.u64(offStart), b.u64(offArea)
	if start < HeaderSize || start > uint64(size) {
		return h, format.Corrupt(offStart, "index_start", codecerr.Dec(start), "333 to "+codecerr.Dec(size))
	}
	if area != uint64(size)-start {
		return h, format.Corrupt(offArea, "index_area_len", codecerr.Dec(area), codecerr.Dec(uint64(size)-start)+", up to the end of the file")
	}
	h.IndexStart, h.IndexLength = int64(start), int64(area)
	h.GzipSize, h.RawSize = int64(b.u64(offGzip)), int64(b.u64(offRaw))
	if h.GzipSize < 0 {
		return h, format.Corrupt(offGzip, "gzip_file_size", codecerr.Dec(b.u64(offGzip)), "less than 8 EiB")
	}
	if h.RawSize < 0 {
		return h, format.Corrupt(offRaw, "uncompress_file_size", codecerr.Dec(b.u64(offRaw)), "less than 8 EiB")
	}
	return h, h.entries(b, limit)
}

// entries sets how many entries there are.
func (h *Header) entries(b headerView, limit int64) error {
	n := b.u64(offEntries)
	if n > uint64(limit) {
		return format.Fail(abi.ErrLimit, offEntries, "index_num", codecerr.Dec(n), "at most "+codecerr.Dec(limit)+" entries")
	}
	if n == 0 && h.RawSize > 0 {
		return format.Corrupt(offEntries, "index_num", "0", "an entry for the beginning")
	}
	ratio := uint64(1)
	if h.Algorithm == algoZlib {
		ratio = maxRatio
	}
	if n*entrySize > ratio*uint64(h.IndexLength) {
		return format.Corrupt(offEntries, "index_num", codecerr.Dec(n), "entries that fit into "+codecerr.Dec(h.IndexLength)+" bytes")
	}
	h.Entries = int64(n)
	return nil
}

// load reads the entries.
func (f *File) load() error {
	h := f.head
	src := &source{r: io.NewSectionReader(f.meta, h.IndexStart, h.IndexLength)}
	var r io.Reader = src
	if h.Algorithm == algoZlib && h.Entries > 0 {
		z, err := zlib.NewReader(src)
		if err != nil {
			return src.broken(err, "entries", h.IndexStart)
		}
		r = z
	}
	buf := make([]byte, 1024*entrySize)
	for left := h.Entries; left > 0; {
		part := buf[:min(left, 1024)*entrySize]
		if _, err := io.ReadFull(r, part); err != nil {
			return src.broken(err, "entries", h.IndexStart)
		}
		for ; len(part) > 0; part = part[entrySize:] {
			if err := f.add(entryView(part)); err != nil {
				return err
			}
			left--
		}
	}
	if n, err := io.ReadFull(r, buf[:1]); n > 0 {
		return format.Corrupt(h.IndexStart, "entries", "longer", codecerr.Dec(h.Entries)+" of 29 bytes")
	} else if err != io.EOF {
		return src.broken(err, "entries", h.IndexStart)
	}
	return nil
}

// add checks an entry.
func (f *File) add(v entryView) error {
	k := int64(len(f.entries))
	bad := func(field, got, want string) error {
		return format.Corrupt(f.head.IndexStart, "entry "+codecerr.Dec(k)+"'s "+field, got, want)
	}
	var prev entry
	if k > 0 {
		prev = f.entries[k-1]
	}
	switch {
	case k == 0 && v.out() != 0:
		return bad("de_pos", codecerr.Dec(v.out()), "0")
	case v.out() > uint64(f.head.RawSize) || v.out() < uint64(prev.out):
		return bad("de_pos", codecerr.Dec(v.out()), codecerr.Dec(prev.out)+" to "+codecerr.Dec(f.head.RawSize))
	case v.in() > uint64(f.head.GzipSize) || v.in() < uint64(prev.in):
		return bad("en_pos", codecerr.Dec(v.in()), codecerr.Dec(prev.in)+" to "+codecerr.Dec(f.head.GzipSize))
	case v.bits() > 7 || v.bits() > 0 && v.in() == 0:
		return bad("bits", codecerr.Dec(v.bits()), "at most 7 of the byte before en_pos")
	case v.winPos() < HeaderSize || v.winPos() > uint64(f.head.IndexStart) || uint64(v.winLen()) > uint64(f.head.IndexStart)-v.winPos():
		return bad("window", codecerr.Dec(v.winLen())+" bytes at "+codecerr.Dec(v.winPos()), "bytes between header and entries")
	case v.winLen() > maxStored || f.head.Algorithm == algoNone && v.winLen() != windowSize:
		return bad("win_len", codecerr.Dec(v.winLen()), "the bytes of a stored window of 32768")
	}
	f.entries = append(f.entries, entry{out: int64(v.out()), in: int64(v.in()), winPos: int64(v.winPos()), winLen: v.winLen(), bits: v.bits()})
	return nil
}

// window reads the window of entry k into dst, which has 32 KiB.
func (f *File) window(k int, dst []byte) error {
	e := f.entries[k]
	what := "window of entry " + codecerr.Dec(k)
	if f.head.Algorithm == algoNone {
		return format.ReadFull(f.meta, dst, e.winPos, what)
	}
	src := &source{r: io.NewSectionReader(f.meta, e.winPos, int64(e.winLen))}
	z, err := zlib.NewReader(src)
	if err == nil {
		_, err = io.ReadFull(z, dst)
	}
	if err != nil {
		return src.broken(err, what, e.winPos)
	}
	var more [1]byte
	if n, err := io.ReadFull(z, more[:]); n > 0 {
		return format.Corrupt(e.winPos, what, "longer", "32768 bytes")
	} else if err != io.EOF {
		return src.broken(err, what, e.winPos)
	}
	return nil
}

// source is what zlib reads; it tells errors of the reader from those of the data.
type source struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// broken gives an error of zlib its class.
func (s *source) broken(err error, what string, off int64) error {
	switch {
	case s.err != nil:
		return codecerr.Outer(s.err, "gzip index: read "+what)
	case errors.Is(err, zlib.ErrChecksum):
		return format.Fail(abi.ErrDigest, off, "Adler-32 of the "+what, "", "another")
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return format.Corrupt(off, what, "cut", "a whole stream of zlib")
	}
	return format.Corrupt(off, what, err.Error(), "a stream of zlib")
}

// find returns the number of the last entry that does not begin behind off.
func (f *File) find(off int64) int {
	return sort.Search(len(f.entries), func(k int) bool { return f.entries[k].out > off }) - 1
}
