package gzindex

import (
	"sync"

	"github.com/convhost/convhost/internal/zran"
)

// Pool holds what readers of indexes decompressed, and the decompressors themselves, which go on where they stopped. Any number
// of files can share one, from any goroutines.
type Pool struct {
	mu      sync.Mutex
	freed   sync.Cond // a cursor was released
	pages   []kept    // most recent first
	spare   [][]byte
	max     int
	cursors []*cursor
	readers int
	clock   uint64
}

type kept struct {
	page
	data []byte
}

// cursor is a decompressor; the Pool's lock guards all but what is in use.
type cursor struct {
	f      *File // nil: stands nowhere
	pos    int64 // output offset of what z reads next
	z      *zran.Reader
	busy   bool
	used   uint64
	window [windowSize]byte
}

const (
	defaultPages   = 64
	defaultReaders = 4
)

// NewPool returns a Pool that keeps up to bytes of content, in pages of 128 KiB, and up to readers decompressors of 400 KB, which
// is how many reads can decompress at a time; others wait. 0 means 8 MiB and 4.
func NewPool(bytes int64, readers int) *Pool {
	p := &Pool{max: int(bytes / pageSize), readers: readers}
	if p.max <= 0 {
		p.max = defaultPages
	}
	if p.readers <= 0 {
		p.readers = defaultReaders
	}
	p.freed.L = &p.mu
	return p
}

// copy copies from byte skip of a page that is kept, 0 bytes if it is not.
func (p *Pool) copy(dst []byte, pg page, skip int64) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, have := range p.pages {
		if have.f == pg.f && have.off == pg.off {
			copy(p.pages[1:k+1], p.pages[:k])
			p.pages[0] = have
			return copy(dst, have.data[skip:have.size])
		}
	}
	return 0
}

// buffer returns memory for a page.
func (p *Pool) buffer() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.spare); n > 0 {
		b := p.spare[n-1]
		p.spare = p.spare[:n-1]
		return b
	}
	return make([]byte, pageSize)
}

// put keeps a page, whose data now belongs to the Pool.
func (p *Pool) put(pg page, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, have := range p.pages {
		if have.f == pg.f && have.off == pg.off {
			p.spare = append(p.spare, data)
			return
		}
	}
	if len(p.pages) < p.max {
		p.pages = append(p.pages, kept{})
	} else {
		p.spare = append(p.spare, p.pages[len(p.pages)-1].data)
	}
	copy(p.pages[1:], p.pages)
	p.pages[0] = kept{pg, data}
}

// acquire returns the cursor of f that stands last in [from, to], or else one that stands nowhere. It waits while all are
// in use.
func (p *Pool) acquire(f *File, from, to int64) *cursor {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		var best, oldest *cursor
		for _, c := range p.cursors {
			if c.busy {
				continue
			}
			if c.f == f && c.pos >= from && c.pos <= to && (best == nil || c.pos > best.pos) {
				best = c
			}
			if oldest == nil || c.used < oldest.used {
				oldest = c
			}
		}
		switch {
		case best != nil:
		case len(p.cursors) < p.readers:
			best = &cursor{}
			p.cursors = append(p.cursors, best)
		case oldest != nil:
			best = oldest
			best.f = nil
		default:
			p.freed.Wait()
			continue
		}
		best.busy = true
		return best
	}
}

// release gives a cursor back; one that failed stands nowhere.
func (p *Pool) release(c *cursor, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !ok {
		c.f = nil
	}
	p.clock++
	c.used, c.busy = p.clock, false
	p.freed.Signal()
}
