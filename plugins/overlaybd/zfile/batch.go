package zfile

import (
	"encoding/binary"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// job is a batch of blocks. Its buffers belong to the Writer until compress starts, then to compress until done is closed, then
// to the Writer again.
type job struct {
	in    []byte
	out   []byte // stored blocks
	table []byte // their lengths
	done  chan struct{}
	err   error
}

// batch returns an empty job that is not in use.
func (w *Writer) batch() *job {
	n := len(w.free)
	if n == 0 {
		return &job{in: make([]byte, 0, batchBytes+len(lzWindow{}))} // with a window behind the last block
	}
	j := w.free[n-1]
	w.free = w.free[:n-1]
	j.in, j.out, j.table, j.err = j.in[:0], j.out[:0], j.table[:0], nil
	return j
}

// submit starts the batch that was filled, after the oldest are committed if too many are on their way.
func (w *Writer) submit() {
	j := w.fill
	w.fill = nil
	w.length += int64(len(j.in))
	if w.workers == 1 {
		j.compress(w.c)
		w.commit(j)
		return
	}
	w.drain(w.workers - 1)
	j.done = make(chan struct{})
	w.pending = append(w.pending, j)
	go func() {
		defer close(j.done)
		defer func() {
			if p := recover(); p != nil {
				j.err = abi.Errorf(abi.ErrInternal, "zfile: compressing a batch: %v", p)
			}
		}()
		j.compress(w.c)
	}()
}

// drain waits for the oldest batches, in order, until at most n are left.
func (w *Writer) drain(n int) {
	for len(w.pending) > n {
		j := w.pending[0]
		w.pending = append(w.pending[:0], w.pending[1:]...)
		<-j.done
		w.commit(j)
	}
}

// commit writes the blocks of a finished batch.
func (w *Writer) commit(j *job) {
	w.free = append(w.free, j)
	if w.err == nil {
		w.err = j.err
	}
	if w.err != nil {
		return
	}
	if n := int64(len(w.table)+len(j.table)) / entrySize; n > w.c.MaxBlocks {
		w.err = format.Fail(abi.ErrLimit, w.pos, "index_size", codecerr.Dec(n), "at most "+codecerr.Dec(w.c.MaxBlocks)+" blocks")
		return
	}
	w.table = append(w.table, j.table...)
	w.emit(j.out)
}

// compress fills out and table.
func (j *job) compress(c Config) {
	for in := j.in; len(in) > 0; {
		n, start := min(len(in), c.BlockSize), len(j.out)
		out, err := appendBlock(j.out, in[:n], c.Algorithm, !c.NoVerify)
		if err != nil {
			j.err = err
			return
		}
		j.out, in = out, in[n:]
		j.table = binary.LittleEndian.AppendUint32(j.table, uint32(len(j.out)-start))
	}
}
