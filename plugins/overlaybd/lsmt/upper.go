package lsmt

import (
	"io"
	"sync"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// UpperFile is one of the two files of an Upper; *os.File is one.
type UpperFile interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Upper is a device that can be written: a base that stays as it is, and a writable layer of append mode that takes what
// changes. The layer's two files are what [OpenAppend] and upstream read. It counts in blocks of 4096 bytes: a write of
// less copies the rest of its block. Blocks that the layer has already are overwritten in place, so that the files grow
// with what is changed and not with how often.
//
// All methods may be called from several goroutines. A write that is interrupted by the death of the process is either there
// or not, block by block; after a power failure everything before the last Sync is there.
type Upper struct {
	base        io.ReaderAt
	size        int64
	data, index UpperFile
	head        Header

	mu       sync.RWMutex
	table    []*upperLeaf
	dataEnd  int64
	indexEnd int64
	last     Segment // the index's last entry; none if its Length is 0
}

const (
	upperBlock = 4096
	upperLeafs = 512 // blocks of a leaf: 2 MiB of the device in 2 KiB of memory
	blockSects = upperBlock / SectorSize

	unmapped   = 0 // the base has the block
	zeroBlock  = 1 // it reads as zeros
	maxUpper   = 1<<32 - 1
	zeroBuffer = 64 << 10
)

// upperLeaf says for each block at which sector of the data file it stands.
type upperLeaf [upperLeafs]uint32

// zeroLeaf is shared by all stretches that read as zeros.
var zeroLeaf = func() *upperLeaf {
	l := new(upperLeaf)
	for i := range l {
		l[i] = zeroBlock
	}
	return l
}()

// CreateUpper makes an Upper over a base of c.VirtualSize bytes. The files must be empty and belong to it from then on. The
// comment, UUIDs and size of c are kept in both. ErrInvalid for a wrong Config; errors of the files keep their class or become
// ErrIO.
func CreateUpper(base io.ReaderAt, data, index UpperFile, c Config) (*Upper, error) {
	if c.VirtualSize <= 0 || c.VirtualSize%SectorSize != 0 || c.VirtualSize > maxVirtual || len(c.Comment) > tagSize {
		return nil, format.Invalid("virtual size is %d and the comment has %d bytes, want a positive multiple of 512 and at most %d", c.VirtualSize, len(c.Comment), tagSize)
	}
	h := Header{Flags: flagHeader | flagData, VirtualSize: c.VirtualSize, UUID: c.UUID, Parent: c.Parent, Comment: c.Comment}
	if _, err := data.WriteAt(encodeHeader(h), 0); err != nil {
		return nil, codecerr.Outer(err, "lsmt: write data file")
	}
	h.Flags, h.IndexOffset = flagHeader, HeaderSize
	if _, err := index.WriteAt(encodeHeader(h), 0); err != nil {
		return nil, codecerr.Outer(err, "lsmt: write index file")
	}
	u := newUpper(base, data, index, h)
	u.dataEnd, u.indexEnd = HeaderSize, HeaderSize
	return u, u.Sync()
}

func newUpper(base io.ReaderAt, data, index UpperFile, h Header) *Upper {
	leafs := (h.VirtualSize + upperLeafs*upperBlock - 1) / (upperLeafs * upperBlock)
	return &Upper{base: base, size: h.VirtualSize, data: data, index: index, head: h, table: make([]*upperLeaf, leafs)}
}

// OpenUpper opens an Upper again over the same base, which has baseSize bytes. What a power failure cut off is dropped:
// the index counts up to its first entry whose data is not there. ErrUnsupported for files whose changes are not in whole
// blocks of 4096 bytes, which others can write; other errors are those of [OpenAppend].
func OpenUpper(base io.ReaderAt, baseSize int64, data UpperFile, dataSize int64, index UpperFile, indexSize int64) (*Upper, error) {
	l, err := OpenAppend(data, dataSize, index, HeaderSize, Options{}) // the headers
	if err != nil {
		return nil, err
	}
	if l.head.VirtualSize != baseSize {
		return nil, format.Corrupt(offVirtual, "index header.virtual_size", codecerr.Dec(l.head.VirtualSize), codecerr.Dec(baseSize)+", the size of the device below")
	}
	u := newUpper(base, data, index, l.head)
	u.dataEnd, u.indexEnd = dataSize, HeaderSize
	if pad := u.dataEnd % upperBlock; pad != 0 {
		u.dataEnd += upperBlock - pad
	}
	err = readEntries(index, HeaderSize, (indexSize-HeaderSize)/entrySize, func(off int64, e entryView) error {
		if e.padding() {
			u.indexEnd, u.last = off+entrySize, Segment{}
			return nil
		}
		if !e.zero() && e.source() >= firstSource && e.source()+uint64(e.length()) > uint64(dataSize/SectorSize) {
			return errCut
		}
		s, err := l.segment(off, e, uint64(dataSize/SectorSize))
		if err == nil {
			err = u.mapSegment(off, s)
		}
		u.indexEnd, u.last = off+entrySize, s
		return err
	})
	if err != nil && err != errCut {
		return nil, err
	}
	return u, nil
}

var errCut = abi.Errorf(abi.ErrTruncated, "lsmt: the rest was cut off")

// mapSegment enters an entry of the index that starts at byte off.
func (u *Upper) mapSegment(off int64, s Segment) error {
	sectors := uint64(u.size / SectorSize)
	if s.End() > sectors {
		return format.Corrupt(off, "index entry end", codecerr.Dec(s.End()), "at most "+codecerr.Dec(sectors)+", the end of the device")
	}
	if s.Start%blockSects != 0 || s.End()%blockSects != 0 && s.End() != sectors {
		return format.Fail(abi.ErrUnsupported, off, "index entry", codecerr.Dec(s.Length)+" sectors at "+codecerr.Dec(s.Start), "whole blocks of 8 sectors")
	}
	if !s.Zero && s.sourceEnd() > maxUpper {
		return format.Fail(abi.ErrLimit, off, "index entry source", codecerr.Dec(s.Source), "at most "+codecerr.Dec(uint64(maxUpper)))
	}
	for k := uint64(0); k < uint64(s.Length); k += blockSects {
		where := uint32(zeroBlock)
		if !s.Zero {
			where = uint32(s.Source + k)
		}
		u.set(int64(s.Start+k)/blockSects, where)
	}
	return nil
}

// at returns where a block stands.
func (u *Upper) at(block int64) uint32 {
	if l := u.table[block/upperLeafs]; l != nil {
		return l[block%upperLeafs]
	}
	return unmapped
}

func (u *Upper) set(block int64, where uint32) {
	l := u.table[block/upperLeafs]
	switch {
	case l == nil:
		l = new(upperLeaf)
	case l == zeroLeaf && where != zeroBlock:
		l = new(*zeroLeaf)
	case l == zeroLeaf:
		return
	}
	l[block%upperLeafs] = where
	u.table[block/upperLeafs] = l
}

// Size returns the device's size in bytes.
func (u *Upper) Size() int64 { return u.size }

// Header returns what the index file's header says.
func (u *Upper) Header() Header { return u.head }

// Sync makes what was written durable.
func (u *Upper) Sync() error {
	if err := u.data.Sync(); err != nil { // first: the index must not speak of data that is not there
		return codecerr.Outer(err, "lsmt: sync data file")
	}
	if err := u.index.Sync(); err != nil {
		return codecerr.Outer(err, "lsmt: sync index file")
	}
	return nil
}
