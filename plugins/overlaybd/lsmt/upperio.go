package lsmt

import (
	"errors"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// run is a range of the device whose blocks stand in one piece: in the base, in the data file, or as zeros.
type run struct {
	n     int64  // bytes
	where uint32 // of the first block
	pos   int64  // in the data file, of the first byte
}

// find returns the run that starts at off, at most n bytes of it.
func (u *Upper) find(off, n int64) run {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.findLocked(off, n)
}

func (u *Upper) findLocked(off, n int64) run {
	block := off / upperBlock
	r := run{n: min(n, upperBlock-off%upperBlock), where: u.at(block)}
	r.pos = int64(r.where)*SectorSize + off%upperBlock
	step := uint32(blockSects)
	if r.where == unmapped || r.where == zeroBlock {
		step = 0
	}
	for next := r.where + step; r.n < n; next += step {
		if block++; u.at(block) != next {
			break
		}
		r.n = min(n, r.n+upperBlock)
	}
	return r
}

// ReadAt implements io.ReaderAt.
func (u *Upper) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, format.Invalid("read at %d", off)
	}
	if off >= u.size {
		return 0, io.EOF
	}
	whole := len(p)
	p = p[:min(int64(whole), u.size-off)]
	for n < len(p) {
		r := u.find(off+int64(n), int64(len(p)-n))
		if err := u.readRun(p[n:n+int(r.n)], off+int64(n), r); err != nil {
			return n, err
		}
		n += int(r.n)
	}
	if n < whole {
		err = io.EOF
	}
	return n, err
}

func (u *Upper) readRun(p []byte, off int64, r run) error {
	switch r.where {
	case zeroBlock:
		clear(p)
		return nil
	case unmapped:
		n, err := u.base.ReadAt(p, off)
		if n < len(p) && (err == nil || errors.Is(err, io.EOF)) {
			return format.Truncated(off+int64(n), "device below the upper layer", codecerr.Dec(len(p)-n)+" more bytes")
		}
		if n < len(p) {
			return err
		}
		return nil
	}
	return format.ReadFull(u.data, p, r.pos, "data file")
}

// WriteAt implements io.WriterAt.
func (u *Upper) WriteAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off > u.size || int64(len(p)) > u.size-off {
		return 0, format.Invalid("write of %d bytes at %d of a device of %d", len(p), off, u.size)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for n < len(p) {
		m, err := u.write(p[n:], off+int64(n))
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

// write writes the first run of p.
func (u *Upper) write(p []byte, off int64) (int, error) {
	r := u.findLocked(off, int64(len(p)))
	if r.where != unmapped && r.where != zeroBlock {
		n, err := u.data.WriteAt(p[:r.n], r.pos)
		if err != nil {
			err = codecerr.Outer(err, "lsmt: write data file")
		}
		return n, err
	}
	whole := r.n
	if off+r.n != u.size {
		whole -= (off + r.n) % upperBlock // the last block is only begun
	}
	if off%upperBlock == 0 && whole > 0 {
		return int(whole), u.append(p[:whole], off)
	}
	// A part of a block: the rest comes along.
	start := off - off%upperBlock
	b := make([]byte, min(upperBlock, u.size-start))
	if err := u.readRun(b, start, run{where: r.where}); err != nil {
		return 0, err
	}
	n := copy(b[off-start:], p)
	return n, u.append(b, start)
}

// append stores whole blocks at off that the layer did not have: the data first, then the entries that speak of it.
func (u *Upper) append(p []byte, off int64) error {
	if (u.dataEnd+int64(len(p)))/SectorSize > maxUpper-blockSects {
		return abi.Errorf(abi.ErrLimit, "lsmt: the data file of the upper layer has %d bytes, more than 2 TiB are not written", u.dataEnd)
	}
	if _, err := u.data.WriteAt(p, u.dataEnd); err != nil {
		return codecerr.Outer(err, "lsmt: write data file")
	}
	if err := u.enter(off, int64(len(p)), u.dataEnd/SectorSize); err != nil {
		return err
	}
	u.dataEnd += (int64(len(p)) + upperBlock - 1) &^ (upperBlock - 1)
	return nil
}

// upperRun is the longest segment of whole blocks, in bytes.
const upperRun = MaxLength / blockSects * upperBlock

// enter writes index entries for n bytes at off, of which the data begins at sector source; 0: they are zeros.
func (u *Upper) enter(off, n, source int64) error {
	for n > 0 {
		part := min(n, upperRun)
		s := Segment{Start: uint64(off / SectorSize), Length: uint16(part / SectorSize), Source: uint64(source), Zero: source == 0}
		if s.Zero {
			s.Source = firstSource // readers check it all the same
		}
		pos, joined := u.indexEnd, s
		if l := u.last; l.Length > 0 && l.Zero == s.Zero && l.End() == s.Start && (s.Zero || l.sourceEnd() == s.Source) &&
			int64(l.Length)+int64(s.Length) <= upperRun/SectorSize {
			joined = l
			joined.Length += s.Length
			pos -= entrySize
		}
		if _, err := u.index.WriteAt(appendEntry(nil, joined), pos); err != nil {
			return codecerr.Outer(err, "lsmt: write index file")
		}
		u.indexEnd, u.last = pos+entrySize, joined
		if err := u.mapSegment(pos, s); err != nil {
			return err
		}
		off, n = off+part, n-part
		if source != 0 {
			source += part / SectorSize
		}
	}
	return nil
}

// Zero makes n bytes at off read as zeros. Data that was there keeps its place in the data file.
func (u *Upper) Zero(off, n int64) error {
	if off < 0 || n < 0 || off > u.size || n > u.size-off {
		return format.Invalid("zeros of %d bytes at %d of a device of %d", n, off, u.size)
	}
	end := off + n
	first, last := (off+upperBlock-1)/upperBlock*upperBlock, end/upperBlock*upperBlock
	if end == u.size {
		last = end
	}
	if first >= last {
		_, err := u.WriteAt(make([]byte, n), off)
		return err
	}
	if _, err := u.WriteAt(make([]byte, first-off), off); err != nil {
		return err
	}
	if err := u.zeroBlocks(first, last); err != nil {
		return err
	}
	_, err := u.WriteAt(make([]byte, end-last), last)
	return err
}

// zeroBlocks enters zeros for the blocks of a range that are not zeros already.
func (u *Upper) zeroBlocks(off, end int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for off < end {
		if r := u.findLocked(off, min(end-off, upperRun)); r.where == zeroBlock {
			off += r.n
			continue
		}
		n := int64(0)
		for off+n < end && n < upperRun && u.at((off+n)/upperBlock) != zeroBlock {
			n = min(n+upperBlock, end-off)
		}
		if err := u.enter(off, n, 0); err != nil {
			return err
		}
		off += n
	}
	return nil
}
