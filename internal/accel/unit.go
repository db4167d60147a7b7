package accel

import (
	"hash/crc32"
	"runtime/debug"

	"github.com/convhost/convhost/abi"
)

const (
	slabSize    = 256 << 10 // buffer of a unit of small chunks
	smallChunk  = slabSize / 2
	maxUnitJobs = 512
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// unit is what one worker takes at once: one big chunk or several small ones, whose bytes lie in one buffer. It
// belongs to the submitter until submit, to a worker until done, and then to the committer.
type unit struct {
	q      *Queue
	in     []byte
	out    []byte // made by the worker when it needs it
	outCap int    // bytes reserved for out
	outUse int    // bytes of outCap promised to jobs
	cost   int64  // bytes of the budget
	jobs   []job
	ranges []storedRange
	done   chan struct{}
}

// job is one chunk, one stored range, or bytes of Queue.Write (plan nil).
type job struct {
	plan  *Plan
	sink  *Sink
	tag   uint64
	pos   int64
	seq   uint32
	rng   int32  // index in unit.ranges, -1 if the job is not a range
	order uint64 // position in its plan
	in    []byte // part of unit.in

	digest [32]byte
	crc    uint32
	flags  uint32
	raw    []byte // uncompressed bytes, for RawSum
	rawLen uint32
	store  []byte // bytes to append to the sink
	known  bool   // an equal chunk comes earlier: store is not set
	err    error
}

// storedRange is the copy of an abi.Range; want is valid if Want is not nil.
type storedRange struct {
	abi.Range
	want [32]byte
}

func (u *unit) fits(in, out int) bool {
	return len(u.jobs) < maxUnitJobs && in <= cap(u.in)-len(u.in) && out <= u.outCap-u.outUse
}

// process runs all jobs; it stops early if the queue has failed or a job has.
func (u *unit) process(c *codecs) {
	for i := range u.jobs {
		if u.q.stopped() {
			return
		}
		j := &u.jobs[i]
		u.try(c, j)
		if j.err != nil {
			return
		}
	}
}

func (u *unit) try(c *codecs, j *job) {
	defer func() {
		if r := recover(); r != nil {
			*c = codecs{} // its state may be half changed
			j.err = abi.Errorf(abi.ErrInternal, "panic in a job: %v\n%s", r, debug.Stack())
		}
	}()
	if testHook != nil {
		testHook(j)
	}
	switch {
	case j.plan == nil:
		j.store = j.in
	case j.rng >= 0:
		j.err = u.decode(c, j, &u.ranges[j.rng])
	case j.plan.spec.Decode:
		u.sums(c, j, j.in)
		j.raw, j.rawLen, j.store, j.flags = j.in, uint32(len(j.in)), j.in, abi.CompletionRaw
	default:
		j.err = u.encode(c, j)
	}
}

// testHook is called before each job when a test sets it.
var testHook func(*job)

func (u *unit) sums(c *codecs, j *job, p []byte) {
	s := &j.plan.spec
	c.sum(s.Digest, p, &j.digest)
	if s.CRC32C {
		j.crc = crc32.Checksum(p, castagnoli)
	}
}

func (u *unit) encode(c *codecs, j *job) error {
	s := &j.plan.spec
	u.sums(c, j, j.in)
	j.raw, j.rawLen = j.in, uint32(len(j.in))
	if j.plan.seen != nil && j.plan.seen.earlier(chunkKey{j.digest, j.rawLen}, j.order) {
		j.known = true
		return nil
	}
	if s.Codec == abi.CodecNone {
		j.store, j.flags = j.in, abi.CompletionRaw
		return nil
	}
	free := u.outSpace()
	enc, err := c.encode(s.Codec, s.Level, free, j.in)
	if err != nil {
		return err
	}
	if s.KeepRaw && len(enc) >= len(j.in) {
		j.store, j.flags = j.in, abi.CompletionRaw
		return nil
	}
	if len(enc) <= cap(free) {
		u.out = u.out[:len(u.out)+len(enc)]
	}
	j.store = enc
	return nil
}

// outSpace returns the free rest of the output buffer.
func (u *unit) outSpace() []byte {
	if u.out == nil {
		u.out = u.q.pool.bufs.get(u.outCap)
	}
	return u.out[len(u.out):]
}

func (u *unit) decode(c *codecs, j *job, r *storedRange) error {
	s := &j.plan.spec
	b := j.in
	if r.Raw {
		j.flags = abi.CompletionRaw
	} else {
		free := u.outSpace()
		var err error
		dec := c.decode
		if r.Prefix {
			dec = c.decodePrefix
		}
		if b, err = dec(s.Codec, free[:0:min(r.ULen, cap(free))], j.in, r.ULen); err != nil {
			return rangeError(err, j, r)
		}
		if len(b) <= cap(free) {
			u.out = u.out[:len(u.out)+len(b)]
		}
	}
	u.sums(c, j, b)
	if s.Digest != abi.DigestNone && r.Want != nil && j.digest != r.want {
		return rangeError(abi.Errorf(abi.ErrDigest, "digest is %x, want %x", j.digest, r.want), j, r)
	}
	if r.HasCRC {
		if j.crc = crc32.Checksum(b, castagnoli); j.crc != r.CRC {
			return rangeError(abi.Errorf(abi.ErrDigest, "CRC-32C is %#x, want %#x", j.crc, r.CRC), j, r)
		}
	}
	j.rawLen = uint32(len(b))
	j.raw = b[r.Skip : r.Skip+r.N]
	j.store = j.raw
	return nil
}
