package ext4

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/convhost/convhost/abi"
)

const (
	fastLink  = 59        // bytes of a symbolic link that stand in the inode
	bodyChunk = 64        // blocks that are read and written at a time
	minHole   = 8         // adjacent zero blocks that are not stored
	maxFile   = 1<<32 - 1 // blocks
	maxLink   = BlockSize - 1
)

// content gives a new inode its type and what it holds.
func (a *Applier) content(ctx context.Context, e *abi.Entry, n *inode, parent uint32, body io.Reader) error {
	put16(n.raw, inMode, modeOfKind[e.Kind])
	n.setLinks(1)
	switch e.Kind {
	case abi.KindRegular:
		return a.file(ctx, e, n, body)
	case abi.KindDir:
		n.setLinks(2)
		return a.newDir(n, parent)
	case abi.KindSymlink:
		return a.symlink(e, n)
	case abi.KindChar, abi.KindBlock:
		if e.DevMajor > maxMajor || e.DevMinor > maxMinor {
			return entryError(e, abi.ErrUnsupported, "device number", fmt.Sprintf("%d:%d", e.DevMajor, e.DevMinor), fmt.Sprintf("at most %d:%d", maxMajor, maxMinor))
		}
		n.setDevice(e.DevMajor, e.DevMinor)
	}
	return nil
}

func (a *Applier) symlink(e *abi.Entry, n *inode) error {
	switch {
	case e.Link == "" || len(e.Link) > maxLink:
		return entryError(e, abi.ErrUnsupported, "target of a symbolic link", fmt.Sprintf("%d bytes", len(e.Link)), fmt.Sprintf("1 to %d", maxLink))
	case len(e.Link) <= fastLink:
		copy(n.raw[inBlock:], e.Link)
	default:
		phys, err := a.allocMeta()
		if err != nil {
			return err
		}
		copy(a.fresh(phys, kindPlain, 0).data, e.Link)
		m := &extentMap{}
		m.add(0, phys, 1)
		if err := a.putMapping(n, m, 0); err != nil {
			return err
		}
	}
	n.setSize(uint64(len(e.Link)))
	return nil
}

// file writes the body of e to the device as it comes.
func (a *Applier) file(ctx context.Context, e *abi.Entry, n *inode, body io.Reader) error {
	if e.Size < 0 || (e.Size+BlockSize-1)/BlockSize > maxFile {
		return entryError(e, abi.ErrUnsupported, "size", fmt.Sprint(e.Size), "0 up to 16 TiB")
	}
	m := &extentMap{}
	var err error
	if a.opt.Remote != nil && e.Flags&abi.EntrySparse == 0 {
		err = a.remote(e, m)
	} else {
		err = a.copyBody(ctx, e, m, body)
	}
	if err != nil {
		return err
	}
	n.setSize(uint64(e.Size))
	if e.Size >= 1<<31 {
		put32(a.sb, sbRoCompat, u32(a.sb, sbRoCompat)|roLargeFile)
	}
	return a.putMapping(n, m, 0)
}

// remote gives a file blocks that somebody else fills.
func (a *Applier) remote(e *abi.Entry, m *extentMap) error {
	blocks := uint32((e.Size + BlockSize - 1) / BlockSize)
	for log := uint32(0); log < blocks; {
		phys, k, err := a.allocData(min(blocks-log, maxExtent))
		if err != nil {
			return err
		}
		m.add(log, phys, k)
		if err := a.opt.Remote(e, phys, k, int64(log)*BlockSize); err != nil {
			return err
		}
		log += k
	}
	return nil
}

func (a *Applier) copyBody(ctx context.Context, e *abi.Entry, m *extentMap, body io.Reader) error {
	if a.buf == nil {
		a.buf = make([]byte, bodyChunk*BlockSize)
	}
	hole := false // the file so far ends with one
	for off := int64(0); off < e.Size; off += int64(len(a.buf)) {
		want := int(min(e.Size-off, int64(len(a.buf))))
		if got, err := io.ReadFull(body, a.buf[:want]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return entryError(e, abi.ErrTruncated, "body", fmt.Sprintf("%d bytes", off+int64(got)), fmt.Sprintf("%d bytes", e.Size))
			}
			return classed(err, "body of %q", e.Path)
		}
		blocks := (want + BlockSize - 1) / BlockSize
		clear(a.buf[want : blocks*BlockSize])
		for i := 0; i < blocks; {
			k := zeroBlocks(a.buf[i*BlockSize : blocks*BlockSize])
			if hole = k >= minHole || k > 0 && hole && i == 0; hole {
				i += k
				continue
			}
			start := i
			for i += k; i < blocks; i++ {
				if z := zeroBlocks(a.buf[i*BlockSize : min(blocks, i+minHole)*BlockSize]); z >= minHole {
					break
				}
			}
			if err := a.writeData(m, uint32(off/BlockSize)+uint32(start), a.buf[start*BlockSize:i*BlockSize]); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return abi.Errorf(abi.ClassOf(err), "apply layer: %w", err)
		}
	}
	return nil
}

// zeroBlocks counts the blocks of zeros at the start of p.
func zeroBlocks(p []byte) (n int) {
	for ; len(p) > 0 && allZero(p[:BlockSize]); n++ {
		p = p[BlockSize:]
	}
	return n
}

func (a *Applier) writeData(m *extentMap, log uint32, p []byte) error {
	for len(p) > 0 {
		phys, k, err := a.allocData(uint32(len(p) / BlockSize))
		if err != nil {
			return err
		}
		n := int(k) * BlockSize
		if _, err := a.dev.WriteAt(p[:n], int64(phys)*BlockSize); err != nil {
			return classed(err, "write file data at block %d", phys)
		}
		m.add(log, phys, k)
		a.stats.DataBlocks += int64(k)
		log += k
		p = p[n:]
	}
	return nil
}

// hasBlocks tells whether an inode's i_block maps blocks: fast links and special files have something else there.
func hasBlocks(n *inode) bool {
	switch n.mode() & ifMask {
	case ifReg, ifDir:
		return true
	case ifLnk:
		return n.flags()&flagExtents != 0 || n.size() > fastLink
	}
	return false
}

// freeContent frees everything that n has, except n.
func (a *Applier) freeContent(n *inode) error {
	if err := a.dropXattrBlock(n); err != nil {
		return err
	}
	delete(a.extents, n.num)
	if !hasBlocks(n) {
		return nil
	}
	m, err := a.mapping(n)
	if err != nil {
		return err
	}
	for _, x := range m.list {
		if err := a.freeRun(x.phys, uint64(x.n)); err != nil {
			return err
		}
	}
	for _, b := range m.tree {
		if err := a.freeRun(b, 1); err != nil {
			return err
		}
	}
	return nil
}
