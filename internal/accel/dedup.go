package accel

import "sync"

// chunkKey says which chunks are equal.
type chunkKey struct {
	digest [32]byte
	raw    uint32
}

// storedChunk is what is known of a chunk: the lowest position at which a worker saw it, and where it was stored.
type storedChunk struct {
	order  uint64
	offset int64
	stored uint32
	index  uint32
	flags  uint32
	done   bool // committed
}

// dedup knows the chunks of one plan. Workers enter them in any order, the committer in submission order.
type dedup struct {
	shards [32]struct {
		sync.Mutex
		m map[chunkKey]storedChunk
	}
}

func newDedup() *dedup {
	d := new(dedup)
	for i := range d.shards {
		d.shards[i].m = make(map[chunkKey]storedChunk)
	}
	return d
}

// earlier reports whether an equal chunk was seen at a lower position, and notes this one if not.
func (d *dedup) earlier(k chunkKey, order uint64) bool {
	s := &d.shards[k.digest[0]%32]
	s.Lock()
	defer s.Unlock()
	if c, ok := s.m[k]; ok && c.order < order {
		return true
	}
	s.m[k] = storedChunk{order: order}
	return false
}

// lookup returns the committed equal chunk.
func (d *dedup) lookup(k chunkKey) (storedChunk, bool) {
	s := &d.shards[k.digest[0]%32]
	s.Lock()
	defer s.Unlock()
	c := s.m[k]
	return c, c.done
}

// commit notes where a chunk was stored.
func (d *dedup) commit(k chunkKey, c storedChunk) {
	s := &d.shards[k.digest[0]%32]
	s.Lock()
	defer s.Unlock()
	c.order, c.done = s.m[k].order, true
	s.m[k] = c
}
