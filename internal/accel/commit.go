package accel

import (
	"runtime/debug"

	"github.com/convhost/convhost/abi"
)

// commitLoop takes the units in submission order until Close.
func (q *Queue) commitLoop() {
	defer close(q.finished)
	for u := range q.order {
		<-u.done
		if !q.stopped() {
			if err := q.commit(u); err != nil {
				q.fail(err)
			}
		}
		q.recycle(u)
		q.mu.Lock()
		q.pending--
		q.cond.Broadcast()
		q.mu.Unlock()
	}
}

// commit writes a unit's bytes and publishes its completions.
func (q *Queue) commit(u *unit) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = abi.Errorf(abi.ErrInternal, "panic in a sink: %v\n%s", r, debug.Stack())
		}
	}()
	q.recs = q.recs[:0]
	for i := range u.jobs {
		j := &u.jobs[i]
		if j.err != nil {
			return j.err
		}
		if j.sink != nil && !j.sink.dirty {
			j.sink.dirty = true
			q.dirty = append(q.dirty, j.sink)
		}
		if j.plan == nil {
			err = j.sink.append(j.store)
		} else {
			err = q.commitChunk(j)
		}
		if err != nil {
			return err
		}
	}
	for _, s := range q.dirty {
		s.dirty = false
		if err := s.flush(); err != nil {
			return err
		}
	}
	q.dirty = q.dirty[:0]
	q.mu.Lock()
	defer q.mu.Unlock()
	if have := (q.done.size + len(q.recs)) / abi.CompletionSize; have > q.lim.Completions {
		return abi.Errorf(abi.ErrLimit, "%d completions were not collected, limit %d", have, q.lim.Completions)
	}
	q.done.append(q.recs)
	return nil
}

func (q *Queue) commitChunk(j *job) error {
	p := j.plan
	p.info.Jobs++
	p.info.RawBytes += int64(len(j.raw))
	if p.sum != nil {
		p.sum.Write(j.raw)
	}
	c := abi.Completion{Tag: j.tag, Seq: j.seq, Flags: j.flags, Digest: j.digest, Raw: j.rawLen, CRC32C: j.crc, Pos: j.pos}
	k := chunkKey{j.digest, j.rawLen}
	if p.seen != nil {
		if e, ok := p.seen.lookup(k); ok {
			c.Offset, c.Stored, c.Index, c.Flags = e.offset, e.stored, e.index, e.flags|abi.CompletionDup
			q.recs = c.Append(q.recs)
			return nil
		}
		if j.known {
			return abi.Errorf(abi.ErrInternal, "job %d: chunk %d was taken for a duplicate and is none", j.tag, j.seq)
		}
		if p.info.Chunks >= q.lim.Chunks {
			return abi.Errorf(abi.ErrLimit, "job %d: more than %d distinct chunks", j.tag, q.lim.Chunks)
		}
	}
	c.Stored, c.Index = uint32(len(j.store)), uint32(p.info.Chunks)
	if s := j.sink; s != nil {
		pad, err := s.align(p.spec.Align)
		if err != nil {
			return err
		}
		c.Offset = s.size
		if err := s.append(j.store); err != nil {
			return err
		}
		p.info.StoredBytes += pad + int64(len(j.store))
	}
	p.info.Chunks++
	if p.seen != nil {
		p.seen.commit(k, storedChunk{offset: c.Offset, stored: c.Stored, index: c.Index, flags: c.Flags})
	}
	q.recs = c.Append(q.recs)
	return nil
}
