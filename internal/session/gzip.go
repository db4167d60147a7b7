package session

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"

	"github.com/convhost/convhost/abi"
)

// gzipPiece is how many bytes are compressed at a time, each piece for itself. Larger ones leave cores idle with the
// bootstraps of small images, smaller ones cost size.
const gzipPiece = 256 << 10

// gzipWriter writes one gzip member, without a name or a time, and compresses up to workers pieces side by side. The bytes do
// not depend on workers. It is used from one goroutine.
type gzipWriter struct {
	out     io.Writer
	workers int
	level   int
	started bool
	free    sync.Pool   // of *flate.Writer
	cur     []byte      // the piece that is filled
	pending []*deflated // in order
	spare   []*deflated // to be used again
	crc     uint32      // of everything before compression
	size    uint32      // its length modulo 2^32, as the format wants it
}

// deflated is one piece on its way.
type deflated struct {
	in   []byte
	out  sliceWriter
	err  error
	done chan struct{}
}

type sliceWriter []byte

func (s *sliceWriter) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// newGzip returns a writer for a level that the library has.
func newGzip(out io.Writer, level, workers int) (*gzipWriter, error) {
	z := &gzipWriter{out: out, workers: max(workers, 1), level: level}
	w, err := flate.NewWriter(nil, level)
	if err != nil {
		return nil, err
	}
	z.free.Put(w)
	return z, nil
}

func (z *gzipWriter) Write(p []byte) (int, error) {
	n := len(p)
	z.crc = crc32.Update(z.crc, crc32.IEEETable, p)
	z.size += uint32(n)
	for len(p) > 0 {
		k := min(len(p), gzipPiece-len(z.cur))
		z.cur = append(z.cur, p[:k]...)
		p = p[k:]
		if len(z.cur) == gzipPiece {
			if err := z.dispatch(); err != nil {
				return n - len(p), err
			}
		}
	}
	return n, nil
}

// dispatch sends the piece that was filled to be compressed, and writes out those that must be done by now.
func (z *gzipWriter) dispatch() error {
	d := &deflated{done: make(chan struct{})}
	if k := len(z.spare); k > 0 {
		d, z.spare = z.spare[k-1], z.spare[:k-1]
		d.out, d.done = d.out[:0], make(chan struct{})
	}
	d.in, z.cur = z.cur, d.in[:0]
	z.pending = append(z.pending, d)
	if z.workers == 1 {
		z.deflate(d)
	} else {
		go z.deflate(d)
	}
	return z.settle(z.workers)
}

// deflate compresses one piece. It ends at a byte boundary with an empty stored block, so that the next can follow.
func (z *gzipWriter) deflate(d *deflated) {
	defer close(d.done)
	defer func() {
		if p := recover(); p != nil {
			d.err = abi.Errorf(abi.ErrInternal, "gzip: %v", p)
		}
	}()
	w, _ := z.free.Get().(*flate.Writer)
	if w == nil {
		w, _ = flate.NewWriter(nil, z.level) // newGzip has tried the level
	}
	w.Reset(&d.out)
	if _, d.err = w.Write(d.in); d.err == nil {
		d.err = w.Flush()
	}
	z.free.Put(w)
}

// settle writes finished pieces until at most left are under way.
func (z *gzipWriter) settle(left int) error {
	for len(z.pending) > left {
		d := z.pending[0]
		<-d.done
		z.pending = z.pending[1:]
		if d.err != nil {
			return d.err
		}
		if err := z.head(); err != nil {
			return err
		}
		if _, err := z.out.Write(d.out); err != nil {
			return err
		}
		z.spare = append(z.spare, d)
	}
	return nil
}

// head writes the header of the member before anything else: deflate, no flags, no time, no hints, unknown system.
func (z *gzipWriter) head() error {
	if z.started {
		return nil
	}
	z.started = true
	_, err := z.out.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff})
	return err
}

// Close ends the member. It does not close what is behind it.
func (z *gzipWriter) Close() error {
	if len(z.cur) > 0 {
		if err := z.dispatch(); err != nil {
			return err
		}
	}
	if err := z.settle(0); err != nil {
		return err
	}
	if err := z.head(); err != nil {
		return err
	}
	end := []byte{3, 0} // a last block without content
	end = binary.LittleEndian.AppendUint32(end, z.crc)
	end = binary.LittleEndian.AppendUint32(end, z.size)
	_, err := z.out.Write(end)
	return err
}

// abandon waits for the pieces under way, which nobody wants any more.
func (z *gzipWriter) abandon() {
	for _, d := range z.pending {
		<-d.done
	}
	z.pending = nil
}
