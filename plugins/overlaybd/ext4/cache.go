package ext4

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
)

// blockKind says which checksum a metadata block carries.
type blockKind uint8

const (
	kindPlain   blockKind = iota // inode tables, bitmaps, symlinks: no checksum of their own
	kindDirLeaf                  // directory entries
	kindIndex                    // root or inner node of an htree
	kindExtents
	kindXattr
)

// block is a metadata block in memory.
type block struct {
	n     uint64
	data  []byte // nil while it stands in the scratch file
	slot  int64  // 1 + its place in the scratch file, 0: none
	seed  uint32 // checksum seed of the owner
	kind  blockKind
	dirty bool
}

// Scratch is where dirty metadata goes that does not fit into the allowance; a temporary file.
type Scratch interface {
	io.ReaderAt
	io.WriterAt
}

// get returns block n, from memory or the device. Its data is valid until the next trim.
func (v *volume) get(n uint64) (*block, error) {
	b := v.blocks[n]
	if b != nil && b.data != nil {
		return b, nil
	}
	if n >= v.blockCount {
		return nil, bad(-1, "block number", n, "a block of the device")
	}
	data := make([]byte, BlockSize)
	if b != nil {
		if err := readFull(v.scratch, data, (b.slot-1)*BlockSize); err != nil {
			return nil, classed(err, "scratch file")
		}
		b.data = data
		v.loaded++
		return b, nil
	}
	if err := readFull(v.r, data, int64(n)*BlockSize); err != nil {
		return nil, err
	}
	b = &block{n: n, data: data}
	v.blocks[n] = b
	v.loaded++
	return b, nil
}

// fresh returns block n filled with zeros, whatever the device has there, to be written.
func (v *volume) fresh(n uint64, kind blockKind, seed uint32) *block {
	b := v.blocks[n]
	if b == nil {
		b = &block{n: n}
		v.blocks[n] = b
	}
	if b.data == nil {
		b.data = make([]byte, BlockSize)
		v.loaded++
	} else {
		clear(b.data)
	}
	b.kind, b.seed, b.dirty = kind, seed, true
	return b
}

// drop forgets a block that was freed.
func (v *volume) drop(n uint64) {
	if b := v.blocks[n]; b != nil {
		if b.data != nil {
			v.loaded--
		}
		if b.slot != 0 {
			v.freeSlots = append(v.freeSlots, b.slot)
		}
		delete(v.blocks, n)
	}
}

// trim keeps memory bounded: clean blocks go, then dirty ones move to the scratch file. No block may be in use.
func (v *volume) trim() error {
	if v.loaded <= max(v.budget, v.kept) {
		return nil
	}
	defer func() { v.kept = v.loaded + v.loaded/2 }() // what cannot go is not looked at again soon
	for n, b := range v.blocks {
		if !b.dirty {
			v.drop(n)
		}
	}
	if v.scratch == nil || v.loaded <= v.budget*3/4 {
		return nil
	}
	for _, n := range slices.Sorted(maps.Keys(v.blocks)) {
		b := v.blocks[n]
		if b.data == nil {
			continue
		}
		if b.slot == 0 {
			b.slot = v.newSlot()
		}
		if _, err := v.scratch.WriteAt(b.data, (b.slot-1)*BlockSize); err != nil {
			return classed(err, "write scratch file")
		}
		b.data = nil
		v.loaded--
	}
	return nil
}

func (v *volume) newSlot() int64 {
	if n := len(v.freeSlots); n > 0 {
		s := v.freeSlots[n-1]
		v.freeSlots = v.freeSlots[:n-1]
		return s
	}
	v.slots++
	return v.slots
}

// flush writes all dirty blocks in ascending order, except those that are as the device has them already.
func (v *volume) flush(dev Device) (written int64, err error) {
	old := make([]byte, BlockSize)
	for _, n := range slices.Sorted(maps.Keys(v.blocks)) {
		b := v.blocks[n]
		if !b.dirty {
			continue
		}
		if b, err = v.get(n); err != nil {
			return written, err
		}
		if v.metaCsum {
			if sum, at := v.blockSum(b); at >= 0 {
				put32(b.data, at, sum)
			}
		}
		err := readFull(dev, old, int64(n)*BlockSize)
		if err != nil && !errors.Is(err, ErrAbsent) {
			return written, err
		}
		if err != nil || !bytes.Equal(old, b.data) {
			if _, err := dev.WriteAt(b.data, int64(n)*BlockSize); err != nil {
				return written, classed(err, "write block %d", n)
			}
			written++
		}
		v.drop(n)
	}
	return written, nil
}
