package zfile

import (
	"encoding/binary"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// Header holds what header and trailer of a file say.
type Header struct {
	Flags       uint64 // as stored
	IndexOffset int64  // bytes from the file's start
	Blocks      int64
	Length      int64 // bytes of the content
	IndexCRC    uint32
	BlockSize   int
	Algorithm   Algorithm
	DictSize    int64 // bytes between header and first block
	Verify      bool  // blocks have checksums
}

// Complete tells whether the header says all, so that the trailer is not needed.
func (h Header) Complete() bool { return h.Flags&flagComplete != 0 }

// Options limit the reading of a file. The zero value is right for all layers.
type Options struct {
	// MaxBlocks limits the jump table, 2.5 bytes of memory for each block of 4 KiB. 0 means 67,108,864 blocks, which is
	// 256 GiB of content in 160 MB. More is ErrLimit.
	MaxBlocks int64

	// CacheBlocks is how many blocks that were read in part are kept; 0 means 16, a negative number none.
	CacheBlocks int
}

const (
	defaultBlocks = 64 << 20
	defaultCache  = 16
)

// File is an opened ZFile, an [io.ReaderAt] of its content. It may be used from several goroutines if its reader may.
type File struct {
	r     io.ReaderAt
	size  int64 // of the stored file
	head  Header
	table table
	cache cache
}

// Open reads header, trailer and jump table of a file of exactly size bytes and checks all that readers rely on; blocks are read
// and verified later. Errors are ErrCorrupt, ErrTruncated, ErrDigest, ErrLimit, ErrUnsupported, or those of r.
func Open(r io.ReaderAt, size int64, o Options) (*File, error) {
	b := make([]byte, HeaderSize)
	if size < HeaderSize {
		return nil, format.Truncated(max(size, 0), "header", "512 bytes")
	}
	if err := format.ReadFull(r, b, 0, "header"); err != nil {
		return nil, err
	}
	v := headerView(b)
	if err := checkHeader(v); err != nil {
		return nil, err
	}
	at, name := int64(0), "header"
	if v.flags()&flagComplete == 0 {
		at, name = size-HeaderSize, "trailer"
		if at < HeaderSize {
			return nil, format.Truncated(size, name, "512 bytes behind the blocks")
		}
		if err := format.ReadFull(r, b, at, name); err != nil {
			return nil, err
		}
		if err := checkTrailer(v, at); err != nil {
			return nil, err
		}
	}
	if o.MaxBlocks <= 0 {
		o.MaxBlocks = defaultBlocks
	}
	if o.CacheBlocks == 0 {
		o.CacheBlocks = defaultCache
	}
	f := &File{r: r, size: size}
	f.cache.max = o.CacheBlocks
	var err error
	if f.head, err = decodeHeader(v, at, size, name, o.MaxBlocks); err != nil {
		return nil, err
	}
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

func checkHeader(v headerView) error {
	switch {
	case !v.magic():
		return format.Corrupt(0, "header.magic", "", "\"ZFile\" and its signature")
	case v.flags()&flagHeader == 0:
		return format.Corrupt(offFlags, "header.flags", codecerr.Hex(v.flags()), "the header bit")
	case v.flags()&flagDigest != 0 && v.digest() != v.sum():
		return format.Fail(abi.ErrDigest, offDigest, "header.digest", codecerr.Hex(v.digest()), codecerr.Hex(v.sum()))
	case v.flags()&flagData == 0 && v.flags()&flagComplete == 0:
		return format.Corrupt(offFlags, "header.flags", codecerr.Hex(v.flags()), "a data file")
	}
	return nil
}

// checkTrailer leaves the digest alone, as upstream does: old files have one that is wrong.
func checkTrailer(v headerView, at int64) error {
	switch {
	case !v.magic():
		// A file that was cut or has something appended looks like this.
		return format.Truncated(at, "trailer.magic", "a trailer at the file's end")
	case v.flags()&flagHeader != 0 || v.flags()&flagData == 0 || v.flags()&flagSealed == 0:
		return format.Corrupt(at+offFlags, "trailer.flags", codecerr.Hex(v.flags()), "the trailer of a sealed data file")
	}
	return nil
}

// decodeHeader checks the record at byte at before anything is allocated for the table.
func decodeHeader(v headerView, at, size int64, name string, limit int64) (Header, error) {
	h := Header{
		Flags: v.flags(), IndexCRC: v.indexCRC(), BlockSize: int(v.blockSize()), Algorithm: Algorithm(v.algo()),
		DictSize: int64(v.dictSize()), Verify: v.verify(),
	}
	bs := v.blockSize()
	if bs < minBlock || bs > maxBlock || bs&(bs-1) != 0 {
		return h, format.Fail(abi.ErrUnsupported, at+offBlock, name+".block_size", codecerr.Dec(bs), "a power of two from 512 to 65536")
	}
	if h.Algorithm != LZ4 && h.Algorithm != Zstd {
		return h, format.Fail(abi.ErrUnsupported, at+offAlgo, name+".algo", codecerr.Dec(v.algo()), "1 (lz4) or 2 (zstd)")
	}
	end := size - HeaderSize // where the table ends at the latest
	if v.indexOffset() > uint64(end) {
		return h, format.Truncated(size, name+".index_offset", "a table at "+codecerr.Dec(v.indexOffset())+" and a trailer")
	}
	h.IndexOffset = int64(v.indexOffset())
	if h.IndexOffset < HeaderSize+h.DictSize {
		return h, format.Corrupt(at+offIndex, name+".index_offset", codecerr.Dec(h.IndexOffset), "at least "+codecerr.Dec(HeaderSize+h.DictSize))
	}
	if n := v.indexSize(); n > uint64(limit) || n > MaxBlocks {
		return h, format.Fail(abi.ErrLimit, at+offEntries, name+".index_size", codecerr.Dec(n), "at most "+codecerr.Dec(min(limit, MaxBlocks))+" blocks")
	}
	h.Blocks = int64(v.indexSize())
	if fit := (end - h.IndexOffset) / entrySize; h.Blocks > fit {
		return h, format.Truncated(size, name+".index_size", codecerr.Dec(h.Blocks)+" entries and a trailer; "+codecerr.Dec(fit)+" fit")
	}
	if n := v.length(); n > uint64(h.Blocks)*uint64(bs) || h.Blocks > 0 && n <= uint64(h.Blocks-1)*uint64(bs) {
		return h, format.Corrupt(at+offLength, name+".original_file_size", codecerr.Dec(n), "what "+codecerr.Dec(h.Blocks)+" blocks of "+codecerr.Dec(bs)+" bytes hold")
	}
	h.Length = int64(v.length())
	return h, nil
}

// load reads the jump table.
func (f *File) load() error {
	h := f.head
	f.table = newTable(h.BlockSize, HeaderSize+h.DictSize)
	buf := make([]byte, min(h.Blocks*entrySize, 64<<10))
	crc := uint32(0)
	for at, left := h.IndexOffset, h.Blocks*entrySize; left > 0; {
		part := buf[:min(left, int64(len(buf)))]
		if err := format.ReadFull(f.r, part, at, "jump table"); err != nil {
			return err
		}
		crc = rawCRC(crc, part)
		for k := 0; k < len(part); k += entrySize {
			if err := f.table.add(binary.LittleEndian.Uint32(part[k:]), at+int64(k), h); err != nil {
				return err
			}
		}
		at, left = at+int64(len(part)), left-int64(len(part))
	}
	if h.Flags&flagDigest != 0 && crc != h.IndexCRC {
		return format.Fail(abi.ErrDigest, h.IndexOffset, "index_crc of the jump table", codecerr.Hex(crc), codecerr.Hex(h.IndexCRC))
	}
	if end := f.table.end; end > h.IndexOffset {
		return format.Corrupt(h.IndexOffset, "end of the blocks in the jump table", codecerr.Dec(end), "at most "+codecerr.Dec(h.IndexOffset)+", the table's own place")
	}
	return nil
}

// Header returns what the header says, or the trailer if the header is not complete.
func (f *File) Header() Header { return f.head }

// Size returns the length of the content in bytes.
func (f *File) Size() int64 { return f.head.Length }
