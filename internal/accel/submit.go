package accel

import (
	"io"
	"math"

	"github.com/convhost/convhost/abi"
)

const copyPiece = 1 << 20 // pieces of what has no chunks

// Stream submits the next n bytes of r, cut into chunks by the plan, and returns the number of chunks: 0 if n is 0.
// It waits while the pool's budget is used up. ErrTruncated: r ends before n bytes; ErrLimit: a job of one chunk is
// longer than abi.MaxChunkSize. A decoding plan passes the bytes through to its sink.
func (q *Queue) Stream(p *Plan, r io.Reader, n int64, tag uint64) (int, error) {
	if err := q.usable(p); err != nil {
		return 0, err
	}
	if n < 0 {
		return 0, q.fail(abi.Errorf(abi.ErrPlugin, "job %d: %d bytes of a stream", tag, n))
	}
	size, err := p.cut(n, tag)
	if err != nil {
		return 0, q.fail(err)
	}
	chunks := 0
	for pos := int64(0); pos < n; chunks++ {
		k := int(min(size, n-pos))
		b, err := q.space(p, k)
		if err != nil {
			return chunks, err
		}
		if got, err := q.readFull(r, b); err != nil {
			return chunks, q.fail(streamError(err, tag, pos+int64(got), n))
		}
		if err := q.addChunk(p, b, tag, chunks, pos); err != nil {
			return chunks, err
		}
		pos += int64(k)
	}
	return chunks, nil
}

func streamError(err error, tag uint64, pos, n int64) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return abi.Errorf(abi.ErrTruncated, "job %d: stream ends after %d of %d bytes", tag, pos, n)
	}
	return classed(abi.ErrIO, err, "job %d: read stream at byte %d of %d", tag, pos, n)
}

// Bytes submits a copy of b, cut into chunks by the plan, and returns the number of chunks. Otherwise like Stream.
func (q *Queue) Bytes(p *Plan, b []byte, tag uint64) (int, error) {
	if err := q.usable(p); err != nil {
		return 0, err
	}
	size, err := p.cut(int64(len(b)), tag)
	if err != nil {
		return 0, q.fail(err)
	}
	chunks := 0
	for pos := 0; pos < len(b); chunks++ {
		k := int(min(size, int64(len(b)-pos)))
		dst, err := q.space(p, k)
		if err != nil {
			return chunks, err
		}
		copy(dst, b[pos:])
		if err := q.addChunk(p, dst, tag, chunks, int64(pos)); err != nil {
			return chunks, err
		}
		pos += k
	}
	return chunks, nil
}

// Write submits a copy of b, to be appended to s behind all earlier jobs. It makes no completion.
func (q *Queue) Write(s *Sink, b []byte) error {
	if err := q.ready(); err != nil {
		return err
	}
	if s == nil || s.q != q {
		return q.fail(abi.Errorf(abi.ErrPlugin, "write: sink of another operation"))
	}
	for len(b) > 0 {
		k := min(len(b), copyPiece)
		if err := q.room(k, 0); err != nil {
			return err
		}
		dst := q.take(k)
		copy(dst, b)
		if err := q.add(job{sink: s, in: dst, rng: -1}); err != nil {
			return err
		}
		b = b[k:]
	}
	return nil
}

// Range submits stored bytes of src, which has size bytes, to a decoding plan; see abi.Range. src is read before
// Range returns. It makes one completion, whose Stored are the bytes that were written. ErrTruncated: the range
// goes beyond src; ErrLimit: more than abi.MaxChunkSize; ErrCorrupt and ErrDigest (reported later): the bytes do not
// decode to ULen bytes with the given digest.
func (q *Queue) Range(p *Plan, src io.ReaderAt, size int64, r abi.Range, tag uint64) error {
	if err := q.usable(p); err != nil {
		return err
	}
	if r.N == -1 {
		r.N = r.ULen - r.Skip
	}
	if err := checkRange(p, size, &r, tag); err != nil {
		return q.fail(err)
	}
	out := 0
	if !r.Raw {
		out = max(r.ULen, 1)
	}
	if err := q.room(r.CLen, out); err != nil {
		return err
	}
	b := q.take(r.CLen)
	if n, err := src.ReadAt(b, r.Off); n < len(b) {
		if err == nil {
			err = io.ErrNoProgress
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return q.fail(abi.Errorf(abi.ErrTruncated, "job %d: %d of %d bytes at offset 0x%x", tag, n, len(b), r.Off))
		}
		return q.fail(classed(abi.ErrIO, err, "job %d: read %d bytes at offset 0x%x", tag, len(b), r.Off))
	}
	sr := storedRange{Range: r}
	if r.Want != nil {
		sr.want = *r.Want
	}
	u := q.cur
	u.outUse += out
	u.ranges = append(u.ranges, sr)
	j := job{plan: p, sink: p.sink, tag: tag, in: b, rng: int32(len(u.ranges) - 1), order: p.next}
	p.next++
	return q.add(j)
}

func checkRange(p *Plan, size int64, r *abi.Range, tag uint64) error {
	switch {
	case !p.spec.Decode:
		return abi.Errorf(abi.ErrPlugin, "job %d: range for a plan that does not decode", tag)
	case r.Off < 0 || r.CLen < 0 || r.ULen < 0 || r.Skip < 0 || r.Skip > r.ULen || r.N < 0 || r.N > r.ULen-r.Skip:
		return abi.Errorf(abi.ErrPlugin, "job %d: range with offset %d, lengths %d and %d, skip %d, n %d",
			tag, r.Off, r.CLen, r.ULen, r.Skip, r.N)
	case r.ULen > abi.MaxChunkSize || r.CLen > bound(abi.MaxChunkSize):
		return abi.Errorf(abi.ErrLimit, "job %d: range of %d bytes that become %d, limit %d", tag, r.CLen, r.ULen, abi.MaxChunkSize)
	case r.Off > size || int64(r.CLen) > size-r.Off:
		return abi.Errorf(abi.ErrTruncated, "job %d: %d bytes at offset 0x%x of a stream of %d bytes", tag, r.CLen, r.Off, size)
	case r.Prefix && !r.Raw && p.spec.Codec != abi.CodecGzip && p.spec.Codec != abi.CodecDeflate:
		return abi.Errorf(abi.ErrUnsupported, "job %d: codec %d cannot decode a prefix", tag, p.spec.Codec)
	case r.Raw && r.CLen != r.ULen:
		return abi.Errorf(abi.ErrCorrupt, "job %d: raw range of %d bytes becomes %d", tag, r.CLen, r.ULen)
	}
	return nil
}

// cut returns the chunk size for a job of n bytes.
func (p *Plan) cut(n int64, tag uint64) (int64, error) {
	size := int64(p.spec.ChunkSize)
	switch {
	case size > 0:
	case p.spec.Decode:
		size = copyPiece
	case n > abi.MaxChunkSize:
		return 0, abi.Errorf(abi.ErrLimit, "job %d: one chunk of %d bytes, limit %d", tag, n, abi.MaxChunkSize)
	default:
		size = max(n, 1)
	}
	if n/size >= math.MaxUint32 {
		return 0, abi.Errorf(abi.ErrLimit, "job %d: %d bytes make too many chunks of %d", tag, n, size)
	}
	return size, nil
}

// space returns n bytes of the open unit for a chunk of p.
func (q *Queue) space(p *Plan, n int) ([]byte, error) {
	out := p.outBytes(n)
	if err := q.room(n, out); err != nil {
		return nil, err
	}
	q.cur.outUse += out
	return q.take(n), nil
}

// outBytes returns the output space that a chunk of n bytes may need.
func (p *Plan) outBytes(n int) int {
	if p.spec.Decode || p.spec.Codec == abi.CodecNone {
		return 0
	}
	return bound(n)
}

func (q *Queue) take(n int) []byte {
	u := q.cur
	off := len(u.in)
	u.in = u.in[:off+n]
	return u.in[off : off+n : off+n]
}

func (q *Queue) addChunk(p *Plan, b []byte, tag uint64, seq int, pos int64) error {
	j := job{plan: p, sink: p.sink, tag: tag, seq: uint32(seq), pos: pos, in: b, rng: -1, order: p.next}
	p.next++
	return q.add(j)
}

// add puts j into the open unit, which is submitted when it is as full as makes sense.
func (q *Queue) add(j job) error {
	u := q.cur
	u.jobs = append(u.jobs, j)
	if len(j.in) > smallChunk || u.outCap-u.outUse < smallChunk/32 && u.outCap > 0 || len(u.jobs) == maxUnitJobs {
		return q.submit()
	}
	return nil
}

// readFull is io.ReadFull that ends when the queue does and when r does nothing.
func (q *Queue) readFull(r io.Reader, b []byte) (int, error) {
	got := 0
	for idle := 0; got < len(b); {
		if q.stopped() {
			return got, q.Err()
		}
		n, err := r.Read(b[got:])
		if n < 0 || n > len(b)-got {
			return got, abi.Errorf(abi.ErrInternal, "reader returned %d for %d bytes", n, len(b)-got)
		}
		got += n
		if got == len(b) {
			break
		}
		if err != nil {
			return got, err
		}
		if idle++; n > 0 {
			idle = 0
		}
		if idle == 100 {
			return got, io.ErrNoProgress
		}
	}
	return got, nil
}
