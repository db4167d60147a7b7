package zfile

import (
	"encoding/binary"
	"io"
	"sync"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// readStep is how many stored bytes are read at once at most.
const readStep = 256 << 10

// stored are buffers of readStep bytes for what was read and not decompressed yet.
var stored = sync.Pool{New: func() any { b := make([]byte, 0, readStep); return &b }}

// ReadAt reads the content. It verifies checksum and length of every block that it touches, and returns io.EOF at the content's
// end. A wrong checksum is ErrDigest, a block that does not decompress ErrCorrupt; errors of the reader keep their
// class or become ErrIO. Then n bytes are right.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, format.Invalid("read at %d", off)
	}
	if off >= f.head.Length {
		return 0, io.EOF
	}
	short := int64(len(p)) > f.head.Length-off
	if short {
		p = p[:f.head.Length-off]
	}
	bs := int64(f.head.BlockSize)
	for n < len(p) {
		at := off + int64(n)
		k, skip := at/bs, at%bs
		if hit := f.cache.copy(p[n:], k, skip); hit > 0 {
			n += hit
			continue
		}
		last := (off + int64(len(p)) - 1) / bs
		m, err := f.readBlocks(p[n:], k, last, skip)
		n += m
		if err != nil {
			return n, err
		}
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

// blockLength returns how many bytes of content block k has.
func (f *File) blockLength(k int64) int {
	return int(min(int64(f.head.BlockSize), f.head.Length-k*int64(f.head.BlockSize)))
}

// readBlocks fills p from byte skip of block first on, with as many blocks up to last as one read gives.
func (f *File) readBlocks(p []byte, first, last, skip int64) (n int, err error) {
	start := f.table.position(first)
	next := first + 1
	for next <= last && f.table.position(next+1)-start <= readStep {
		next++
	}
	buf := stored.Get().(*[]byte)
	defer stored.Put(buf)
	raw := (*buf)[:f.table.position(next)-start]
	if err := format.ReadFull(f.r, raw, start, "block"); err != nil {
		return 0, err
	}
	for k := first; k < next; k++ {
		at := f.table.position(k)
		one := raw[at-start : f.table.position(k+1)-start]
		size := f.blockLength(k)
		if skip == 0 && size <= len(p)-n {
			if err := f.decode(p[n:n+size], one, at); err != nil {
				return n, err
			}
			n += size
			continue
		}
		whole := make([]byte, size)
		if err := f.decode(whole, one, at); err != nil {
			return n, err
		}
		n += copy(p[n:], whole[skip:])
		f.cache.put(k, whole)
		skip = 0
	}
	return n, nil
}

// decode verifies the stored block at byte at and decompresses it into all of dst.
func (f *File) decode(dst, one []byte, at int64) error {
	if f.head.Verify {
		body := len(one) - crcSize
		want := binary.LittleEndian.Uint32(one[body:])
		one = one[:body]
		if got := rawCRC(blockSeed, one); got != want {
			return format.Fail(abi.ErrDigest, at, "crc of the block", codecerr.Hex(got), codecerr.Hex(want))
		}
	}
	return expand(dst, one, f.head.Algorithm, at)
}

// cache keeps the blocks that were read in part last. Blocks in it are not changed any more.
type cache struct {
	mu     sync.Mutex
	max    int
	blocks []cached // most recent first
}

type cached struct {
	k    int64
	data []byte
}

// copy fills p from byte skip of block k on, 0 bytes if the block is not there.
func (c *cache) copy(p []byte, k, skip int64) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, b := range c.blocks {
		if b.k == k {
			copy(c.blocks[1:at+1], c.blocks[:at])
			c.blocks[0] = b
			return copy(p, b.data[skip:])
		}
	}
	return 0
}

func (c *cache) put(k int64, data []byte) {
	if c.max <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.blocks {
		if b.k == k {
			return
		}
	}
	if len(c.blocks) < c.max {
		c.blocks = append(c.blocks, cached{})
	}
	copy(c.blocks[1:], c.blocks)
	c.blocks[0] = cached{k, data}
}
