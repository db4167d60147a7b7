package dedup

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
)

// Store remembers conversions. All methods may be called from any goroutine, and again after an error; other processes may
// use the same store at the same time. Arguments are not kept and not changed. Every method ends when ctx does.
//
// A store is a cache: it may forget anything at any time. It never invents: what it gives was Put under that key.
type Store interface {
	// Get returns the record of a key: the one that was Put last. abi.ErrNotFound when there is none, abi.ErrCorrupt
	// when there is one that cannot be read (who gets that may Drop it). The caller owns the record.
	Get(ctx context.Context, key Key) (*Record, error)

	// Put keeps a record under its key, in place of one that was there. abi.ErrInvalid when it fails Record.Validate,
	// abi.ErrLimit when it is larger than MaxRecord, encoded. It is there as a whole or not at all.
	Put(ctx context.Context, rec *Record) error

	// Drop forgets a record. It is no error when there is none.
	Drop(ctx context.Context, key Key) error

	// Places returns where a blob was seen, the newest first, each once, at most MaxPlaces; none is no error.
	Places(ctx context.Context, blob digest.Digest) ([]Place, error)

	// AddPlace says that blobs are at a place now. A store that machines share leaves out places that are Local.
	AddPlace(ctx context.Context, place Place, blobs ...digest.Digest) error

	// DropPlace says that blobs are not at a place. It is no error when nobody said so.
	DropPlace(ctx context.Context, place Place, blobs ...digest.Digest) error

	// List calls fn for every record that can be read, in no particular order. An error of fn ends it and is returned.
	// fn may use the store.
	List(ctx context.Context, fn func(Entry) error) error

	// Prune forgets records that were neither Put nor got since a time, and places that nobody added since, and tells how
	// many records that were. A store need not note every use: a record's time may be up to TimeGrain old.
	Prune(ctx context.Context, before time.Time) (records int, err error)

	// Close ends the use of the store. It may be called again.
	Close() error
}

// TimeGrain is how exactly stores know when a record was used last: noting each use would make a write of every read.
const TimeGrain = 24 * time.Hour

// Entry is a record in a list.
type Entry struct {
	Record *Record
	Used   time.Time // last, by TimeGrain
}
