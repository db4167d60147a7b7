package accel

import (
	"crypto/sha256"
	"hash"

	"github.com/convhost/convhost/abi"
)

// Plan is a declared plan of one queue; see abi.PlanSpec.
type Plan struct {
	spec   abi.PlanSpec
	sink   *Sink // nil: store nothing
	seen   *dedup
	next   uint64 // order of the next job
	closed bool

	// The committer's, and the submitter's when the queue is drained.
	info abi.PlanInfo
	sum  hash.Hash
}

// NewPlan declares a plan. sink may be nil: then nothing is stored; offsets are 0, but chunks are still digested,
// compressed and counted. spec.Sink is not looked at; spec is copied. ErrUnsupported: a codec, level, digest or mode
// that this host does not know (the queue stays usable); ErrPlugin: values that contradict the contract.
func (q *Queue) NewPlan(spec *abi.PlanSpec, sink *Sink) (*Plan, error) {
	if err := q.ready(); err != nil {
		return nil, err
	}
	if sink != nil && sink.q != q {
		return nil, q.fail(abi.Errorf(abi.ErrPlugin, "plan: sink of another operation"))
	}
	if err := checkCodec(spec.Codec, spec.Level); err != nil {
		return nil, err
	}
	if spec.Digest < abi.DigestNone || spec.Digest > abi.DigestBLAKE3 {
		return nil, abi.Errorf(abi.ErrUnsupported, "plan: digest %d is not known", spec.Digest)
	}
	if spec.Dedup < abi.DedupNone || spec.Dedup > abi.DedupPlan {
		return nil, abi.Errorf(abi.ErrUnsupported, "plan: dedup mode %d is not known", spec.Dedup)
	}
	if err := checkSpec(spec); err != nil {
		return nil, q.fail(err)
	}
	p := &Plan{spec: *spec, sink: sink}
	if spec.Dedup == abi.DedupPlan {
		p.seen = newDedup()
	}
	switch {
	case spec.SharedSum:
		if q.sum == nil {
			q.sum = sha256.New()
		}
		p.sum = q.sum
	case spec.RawSum:
		p.sum = sha256.New()
	}
	return p, nil
}

func checkSpec(s *abi.PlanSpec) error {
	switch {
	case s.ChunkSize != 0 && (s.ChunkSize < abi.MinChunkSize || s.ChunkSize > abi.MaxChunkSize):
		return abi.Errorf(abi.ErrPlugin, "plan: chunk size is %d, want 0 or %d to %d", s.ChunkSize, abi.MinChunkSize, abi.MaxChunkSize)
	case s.Align < 0 || s.Align > abi.MaxChunkSize:
		return abi.Errorf(abi.ErrPlugin, "plan: alignment is %d, want 0 to %d", s.Align, abi.MaxChunkSize)
	case s.Dedup == abi.DedupPlan && s.Digest == abi.DigestNone:
		return abi.Errorf(abi.ErrPlugin, "plan: dedup needs a digest")
	case s.Decode && s.Dedup != abi.DedupNone:
		return abi.Errorf(abi.ErrPlugin, "plan: a decoding plan cannot dedup")
	}
	return nil
}

// ClosePlan waits for the plan's jobs, and for all others submitted before, and returns its totals. Completions stay
// collectable. StoredBytes include the zeros of Align. In a decoding plan raw bytes are those that were written.
func (q *Queue) ClosePlan(p *Plan) (abi.PlanInfo, error) {
	if err := q.usable(p); err != nil {
		return abi.PlanInfo{}, err
	}
	if err := q.drain(); err != nil {
		return abi.PlanInfo{}, err
	}
	p.closed = true
	p.seen = nil
	if p.sum != nil {
		p.sum.Sum(p.info.RawSHA256[:0])
	}
	return p.info, nil
}

// usable reports the queue's error, or one if p is not an open plan of q.
func (q *Queue) usable(p *Plan) error {
	if err := q.ready(); err != nil {
		return err
	}
	if p == nil || p.closed {
		return q.fail(abi.Errorf(abi.ErrPlugin, "plan is closed"))
	}
	return nil
}
