package transport

import (
	"container/list"
	"context"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
)

const (
	rangeChunk  = 128 << 10 // bytes that are fetched and kept together
	rangeAhead  = 8         // chunks of one request, at most
	rangeMemory = 64 << 20  // bytes that a cache keeps
)

// rangeCache keeps what was read of blobs that are elsewhere, the least recently used goes first. Each chunk is fetched
// by one goroutine at a time, whoever waits for it.
type rangeCache struct {
	mu     sync.Mutex
	chunks map[chunkKey]*chunk
	recent *list.List // of complete chunks, the last used first
	bytes  int
}

type chunkKey struct {
	blob  digest.Digest
	index int64
}

// chunk is a piece of a blob. data and err are set before done is closed.
type chunk struct {
	key  chunkKey
	done chan struct{}
	data []byte
	err  error
	at   *list.Element
}

func newRangeCache() *rangeCache {
	return &rangeCache{chunks: map[chunkKey]*chunk{}, recent: list.New()}
}

// get returns the chunk of key; if it was not there, with as many behind it as are not there either, up to n, which the
// caller must complete.
func (c *rangeCache) get(key chunkKey, n int64) (found *chunk, missing []*chunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.chunks[key]; k != nil {
		if k.at != nil {
			c.recent.MoveToFront(k.at)
		}
		return k, nil
	}
	for ; n > 0 && c.chunks[key] == nil; n-- {
		k := &chunk{key: key, done: make(chan struct{})}
		c.chunks[key] = k
		missing = append(missing, k)
		key.index++
	}
	return missing[0], missing
}

// complete says what became of a chunk. One that failed is forgotten: the next who wants it tries again.
func (c *rangeCache) complete(k *chunk, data []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k.data, k.err = data, err
	close(k.done)
	if err != nil {
		delete(c.chunks, k.key)
		return
	}
	k.at = c.recent.PushFront(k)
	for c.bytes += len(data); c.bytes > rangeMemory; {
		old := c.recent.Remove(c.recent.Back()).(*chunk)
		c.bytes -= len(old.data)
		delete(c.chunks, old.key)
	}
}

// rangeReader is random access to a blob by requests for ranges.
type rangeReader struct {
	ctx   context.Context
	end   context.CancelFunc
	blob  digest.Digest
	size  int64
	cache *rangeCache
	// fetch calls each with the pieces of the range, in order, each as long as the chunk it is.
	fetch func(ctx context.Context, off, n int64, each func([]byte)) error

	mu     sync.Mutex
	next   int64 // chunk behind the last request
	window int64 // chunks of the last request
	work   sync.WaitGroup
}

// Size implements cas.ReaderAt.
func (r *rangeReader) Size() int64 { return r.size }

// Close ends the requests that run.
func (r *rangeReader) Close() error {
	r.end()
	r.work.Wait()
	return nil
}

// ReadAt implements io.ReaderAt.
func (r *rangeReader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, abi.Errorf(abi.ErrInvalid, "read at %d of blob %s", off, r.blob)
	}
	for n < len(p) && off+int64(n) < r.size {
		pos := off + int64(n)
		last := (min(off+int64(len(p)), r.size) - 1) / rangeChunk
		data, err := r.chunk(pos/rangeChunk, last)
		if err != nil {
			return n, err
		}
		n += copy(p[n:], data[pos%rangeChunk:])
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// chunk returns chunk number index; those up to last are wanted soon.
func (r *rangeReader) chunk(index, last int64) ([]byte, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, abi.Errorf(abi.ClassOf(err), "read blob %s: %w", r.blob, err)
	}
	k, missing := r.cache.get(chunkKey{r.blob, index}, r.ahead(index, last))
	if len(missing) > 0 {
		r.requested(index, int64(len(missing)))
		r.work.Go(func() { r.fill(missing) })
	}
	select {
	case <-k.done:
		return k.data, k.err
	case <-r.ctx.Done():
		return nil, abi.Errorf(abi.ClassOf(r.ctx.Err()), "read blob %s: %w", r.blob, r.ctx.Err())
	}
}

// ahead says how many chunks to ask for: what is wanted, and twice as many as before when reading goes on in order.
func (r *rangeReader) ahead(index, last int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := last - index + 1
	if index == r.next {
		n = max(n, 2*r.window)
	}
	return min(n, rangeAhead, (r.size-1)/rangeChunk-index+1)
}

func (r *rangeReader) requested(index, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next, r.window = index+n, n
}

// fill fetches adjacent chunks and completes them one by one.
func (r *rangeReader) fill(missing []*chunk) {
	off := missing[0].key.index * rangeChunk
	n := min(r.size-off, int64(len(missing))*rangeChunk)
	err := r.fetch(r.ctx, off, n, func(data []byte) {
		r.cache.complete(missing[0], data, nil)
		missing = missing[1:]
	})
	if err == nil && len(missing) > 0 {
		err = abi.Errorf(abi.ErrInternal, "blob %s: a range has fewer chunks than it should", r.blob)
	}
	for _, k := range missing {
		r.cache.complete(k, nil, err)
	}
}
