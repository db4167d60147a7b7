package dedup

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
)

// NewMemory returns a store that lives as long as the process: for services whose targets are registries, and for tests.
func NewMemory() Store {
	return &memory{records: map[Key]*kept{}, places: map[digest.Digest][]seen{}}
}

type memory struct {
	mu      sync.Mutex
	closed  bool
	records map[Key]*kept
	places  map[digest.Digest][]seen // oldest first
}

// kept is an encoded record: what callers do with theirs cannot reach it.
type kept struct {
	bytes []byte
	used  time.Time
}

type seen struct {
	place Place
	at    time.Time
}

// begin locks the store; end it with mu.Unlock.
func (m *memory) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return canceled(err)
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return errClosed()
	}
	return nil
}

func errClosed() error { return abi.Errorf(abi.ErrInvalid, "the dedup store is closed") }

func canceled(err error) error { return abi.Errorf(abi.ClassOf(err), "dedup store: %w", err) }

func absent(key Key) error { return abi.Errorf(abi.ErrNotFound, "nothing was recorded as %s", key) }

// Get implements Store.
func (m *memory) Get(ctx context.Context, key Key) (*Record, error) {
	if err := key.Validate(); err != nil {
		return nil, err
	}
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	k := m.records[key]
	if k == nil {
		return nil, absent(key)
	}
	k.used = time.Now()
	return Decode(key, k.bytes)
}

// Put implements Store.
func (m *memory) Put(ctx context.Context, rec *Record) error {
	b, err := Encode(rec)
	if err != nil {
		return err
	}
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.records[rec.Key] = &kept{bytes: b, used: time.Now()}
	return nil
}

// Drop implements Store.
func (m *memory) Drop(ctx context.Context, key Key) error {
	if err := key.Validate(); err != nil {
		return err
	}
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	delete(m.records, key)
	return nil
}

// Places implements Store.
func (m *memory) Places(ctx context.Context, blob digest.Digest) ([]Place, error) {
	if err := validBlobs([]digest.Digest{blob}); err != nil {
		return nil, err
	}
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var out []Place
	for _, s := range slices.Backward(m.places[blob]) {
		out = append(out, s.place)
	}
	return out, nil
}

// AddPlace implements Store.
func (m *memory) AddPlace(ctx context.Context, place Place, blobs ...digest.Digest) error {
	return m.change(ctx, place, blobs, func(list []seen) []seen {
		list = append(list, seen{place, time.Now()})
		return list[max(0, len(list)-MaxPlaces):]
	})
}

// DropPlace implements Store.
func (m *memory) DropPlace(ctx context.Context, place Place, blobs ...digest.Digest) error {
	return m.change(ctx, place, blobs, func(list []seen) []seen { return list })
}

// change takes a place out of the lists of blobs and lets fn do the rest.
func (m *memory) change(ctx context.Context, place Place, blobs []digest.Digest, fn func([]seen) []seen) error {
	if err := place.Validate(); err != nil {
		return err
	}
	if err := validBlobs(blobs); err != nil {
		return err
	}
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, b := range blobs {
		list := slices.DeleteFunc(m.places[b], func(s seen) bool { return s.place == place })
		if list = fn(list); len(list) > 0 {
			m.places[b] = list
		} else {
			delete(m.places, b)
		}
	}
	return nil
}

// List implements Store.
func (m *memory) List(ctx context.Context, fn func(Entry) error) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	var all []Entry
	for key, k := range m.records {
		if r, err := Decode(key, k.bytes); err == nil {
			all = append(all, Entry{Record: r, Used: k.used})
		}
	}
	m.mu.Unlock()
	for _, e := range all {
		if err := ctx.Err(); err != nil {
			return canceled(err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// Prune implements Store.
func (m *memory) Prune(ctx context.Context, before time.Time) (int, error) {
	if err := m.begin(ctx); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	n := 0
	for key, k := range m.records {
		if k.used.Before(before) {
			delete(m.records, key)
			n++
		}
	}
	for b, list := range m.places {
		list = slices.DeleteFunc(list, func(s seen) bool { return s.at.Before(before) })
		if m.places[b] = list; len(list) == 0 {
			delete(m.places, b)
		}
	}
	return n, nil
}

// Close implements Store.
func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
