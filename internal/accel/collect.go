package accel

import "github.com/convhost/convhost/abi"

// Collect fills buf with completion records of all plans in submission order, whole records only, and returns the
// bytes used. It waits until min records are there (or as many as fit) or no job is outstanding; min 0 polls.
// ErrPlugin: buf is smaller than a record.
func (q *Queue) Collect(buf []byte, min int) (int, error) {
	if err := q.ready(); err != nil {
		return 0, err
	}
	if len(buf) < abi.CompletionSize {
		return 0, q.fail(abi.Errorf(abi.ErrPlugin, "collect: buffer of %d bytes, a record has %d", len(buf), abi.CompletionSize))
	}
	need := max(0, len(buf)/abi.CompletionSize)
	if min < need {
		need = min
	}
	q.mu.Lock()
	hurry := q.done.size < need*abi.CompletionSize || q.pending == 0 && q.done.size == 0
	q.mu.Unlock()
	if hurry { // or a plugin that polls would wait for ever
		if err := q.submit(); err != nil {
			return 0, err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.err == nil && q.pending > 0 && q.done.size < need*abi.CompletionSize {
		q.cond.Wait()
	}
	if q.err != nil {
		return 0, q.err
	}
	return q.done.read(buf[:len(buf)/abi.CompletionSize*abi.CompletionSize]), nil
}

const recordBlock = 512 * abi.CompletionSize

// records is a queue of completion records in blocks, which are freed one by one.
type records struct {
	blocks [][]byte
	size   int
}

func (r *records) append(b []byte) {
	r.size += len(b)
	for len(b) > 0 {
		n := len(r.blocks)
		if n == 0 || len(r.blocks[n-1]) == cap(r.blocks[n-1]) {
			r.blocks = append(r.blocks, make([]byte, 0, recordBlock))
			continue
		}
		last := &r.blocks[n-1]
		k := min(len(b), cap(*last)-len(*last))
		*last = append(*last, b[:k]...)
		b = b[k:]
	}
}

func (r *records) read(buf []byte) int {
	n := 0
	for n < len(buf) && len(r.blocks) > 0 {
		k := copy(buf[n:], r.blocks[0])
		n += k
		if r.blocks[0] = r.blocks[0][k:]; len(r.blocks[0]) == 0 {
			r.blocks[0] = nil
			r.blocks = r.blocks[1:]
		}
	}
	r.size -= n
	return n
}
