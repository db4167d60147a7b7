package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/transport"
)

// store implements dedup.Store. Every method is one statement, or one that may be repeated.
type store struct {
	db     *sql.DB
	d      Dialect
	closed atomic.Bool
}

// Open returns the store in a database, and makes its tables if they are not there. The database stays the caller's to
// close, after the store. abi.ErrUnsupported when a newer convhost made the tables.
func Open(ctx context.Context, db *sql.DB, d Dialect) (dedup.Store, error) {
	if d != MySQL && d != PostgreSQL {
		return nil, abi.Errorf(abi.ErrInvalid, "dedup database: dialect %d is none", int(d))
	}
	s := &store{db: db, d: d}
	version, err := s.version(ctx)
	if err != nil || version == 0 {
		if perr := db.PingContext(ctx); perr != nil {
			return nil, fail(perr, "connect")
		}
		if err := s.create(ctx); err != nil {
			return nil, fail(err, "make tables")
		}
		if version, err = s.version(ctx); err != nil {
			return nil, fail(err, "read the version of the tables")
		}
	}
	if version != schemaVersion {
		return nil, abi.Errorf(abi.ErrUnsupported, "dedup database: its tables have version %d, this convhost knows %d: use a newer convhost", version, schemaVersion)
	}
	return s, nil
}

// version returns 0 when there is none.
func (s *store) version(ctx context.Context) (int, error) {
	var v int
	err := s.db.QueryRowContext(ctx, "SELECT version FROM convhost_dedup_schema ORDER BY version DESC LIMIT 1").Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return v, err
}

func (s *store) create(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := s.d.lock(ctx, tx); err != nil {
		return err
	}
	for _, t := range s.d.tables() {
		if _, err := tx.ExecContext(ctx, t); err != nil {
			return err
		}
	}
	insert := s.d.query("INSERT INTO convhost_dedup_schema (version) VALUES (?)") + s.d.upsert("version", "version")
	if _, err := tx.ExecContext(ctx, insert, schemaVersion); err != nil {
		return err
	}
	return tx.Commit()
}

func (s *store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return abi.Errorf(abi.ErrInvalid, "the dedup store is closed")
	}
	if err := ctx.Err(); err != nil {
		return fail(err, "wait")
	}
	return nil
}

// exec runs a statement, again when it collided with another one.
func (s *store) exec(ctx context.Context, doing, query string, args ...any) (int64, error) {
	for attempt := 0; ; attempt++ {
		res, err := s.db.ExecContext(ctx, s.d.query(query), args...)
		switch {
		case err == nil:
			n, err := res.RowsAffected()
			return n, fail(err, doing)
		case ctx.Err() != nil:
			return 0, fail(ctx.Err(), doing)
		case attempt >= 5 || !conflict(err):
			return 0, fail(err, doing)
		}
	}
}

// now is what times are compared with: microseconds since 1970, of the machine that writes.
func now() int64 { return time.Now().UnixMicro() }

// short makes a text for people fit its column.
func short(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "?"), "?")
	if r := []rune(s); len(r) > 255 {
		return string(r[:255])
	}
	return s
}

// Get implements dedup.Store.
func (s *store) Get(ctx context.Context, key dedup.Key) (*dedup.Record, error) {
	if err := cmp.Or(key.Validate(), s.usable(ctx)); err != nil {
		return nil, err
	}
	doing := "look up " + key.String()
	var b []byte
	var used int64
	err := s.db.QueryRowContext(ctx, s.d.query("SELECT record, used_at FROM convhost_dedup_records WHERE id = ?"), key.String()).Scan(&b, &used)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, abi.Errorf(abi.ErrNotFound, "nothing was recorded as %s", key)
	case ctx.Err() != nil:
		return nil, fail(ctx.Err(), doing)
	case err != nil:
		return nil, fail(err, doing)
	}
	r, err := dedup.Decode(key, b)
	if err == nil && now()-used > (dedup.TimeGrain/2).Microseconds() {
		// A record that looks older than it is is pruned earlier, no more: somebody with read access only can use it too.
		_, _ = s.exec(ctx, doing, "UPDATE convhost_dedup_records SET used_at = ? WHERE id = ?", now(), key.String())
	}
	return r, err
}

// Put implements dedup.Store.
func (s *store) Put(ctx context.Context, rec *dedup.Record) error {
	b, err := dedup.Encode(rec)
	if err == nil {
		err = s.usable(ctx)
	}
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, "record "+rec.Key.String(),
		"INSERT INTO convhost_dedup_records (id, format, version, source, platform, record, used_at) VALUES (?, ?, ?, ?, ?, ?, ?)"+
			s.d.upsert("id", "format", "version", "source", "platform", "record", "used_at"),
		rec.Key.String(), short(rec.Format), short(rec.Version), rec.Source.String(), short(rec.Platform), b, now())
	return err
}

// Drop implements dedup.Store.
func (s *store) Drop(ctx context.Context, key dedup.Key) error {
	if err := cmp.Or(key.Validate(), s.usable(ctx)); err != nil {
		return err
	}
	_, err := s.exec(ctx, "drop "+key.String(), "DELETE FROM convhost_dedup_records WHERE id = ?", key.String())
	return err
}

// Places implements dedup.Store.
func (s *store) Places(ctx context.Context, blob digest.Digest) ([]dedup.Place, error) {
	if err := cmp.Or(validBlobs([]digest.Digest{blob}), s.usable(ctx)); err != nil {
		return nil, err
	}
	doing := "ask for places of " + blob.String()
	rows, err := s.db.QueryContext(ctx,
		s.d.query("SELECT host, repo FROM convhost_dedup_places WHERE digest = ? ORDER BY seen_at DESC LIMIT ?"), blob.String(), dedup.MaxPlaces)
	if err != nil {
		return nil, fail(cmp.Or(ctx.Err(), err), doing)
	}
	defer rows.Close()
	var out []dedup.Place
	for rows.Next() {
		p := dedup.Place{Transport: transport.Docker}
		if err := rows.Scan(&p.Host, &p.Path); err != nil {
			return nil, fail(err, doing)
		}
		if p.Validate() == nil { // somebody else's rows may say anything
			out = append(out, p)
		}
	}
	return out, fail(cmp.Or(ctx.Err(), rows.Err()), doing)
}

// batch is the most blobs that one statement speaks of.
const batch = 100

// each calls fn for blobs in batches, each once and in order, so that two writers lock rows in the same order.
func (s *store) each(ctx context.Context, place dedup.Place, blobs []digest.Digest, fn func([]digest.Digest) error) error {
	if err := cmp.Or(place.Validate(), validBlobs(blobs), s.usable(ctx)); err != nil {
		return err
	}
	if place.Local() {
		return nil
	}
	sorted := slices.Compact(slices.Sorted(slices.Values(blobs)))
	for b := range slices.Chunk(sorted, batch) {
		if err := fn(b); err != nil {
			return err
		}
	}
	return nil
}

// AddPlace implements dedup.Store.
func (s *store) AddPlace(ctx context.Context, place dedup.Place, blobs ...digest.Digest) error {
	return s.each(ctx, place, blobs, func(some []digest.Digest) error {
		var args []any
		at := now()
		for _, b := range some {
			args = append(args, b.String(), place.Host, place.Path, at)
		}
		_, err := s.exec(ctx, "note where blobs are", "INSERT INTO convhost_dedup_places (digest, host, repo, seen_at) VALUES "+
			strings.Repeat("(?, ?, ?, ?), ", len(some)-1)+"(?, ?, ?, ?)"+s.d.upsert("digest, host, repo", "seen_at"), args...)
		return err
	})
}

// DropPlace implements dedup.Store.
func (s *store) DropPlace(ctx context.Context, place dedup.Place, blobs ...digest.Digest) error {
	return s.each(ctx, place, blobs, func(some []digest.Digest) error {
		args := []any{place.Host, place.Path}
		for _, b := range some {
			args = append(args, b.String())
		}
		_, err := s.exec(ctx, "drop a place", "DELETE FROM convhost_dedup_places WHERE host = ? AND repo = ? AND digest IN ("+
			strings.Repeat("?, ", len(some)-1)+"?)", args...)
		return err
	})
}

// page is how many records List reads at a time; they may be large.
const page = 20

// List implements dedup.Store.
func (s *store) List(ctx context.Context, fn func(dedup.Entry) error) error {
	last := ""
	for {
		entries, end, err := s.list(ctx, last)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := fn(e); err != nil {
				return err
			}
		}
		if end == "" {
			return nil
		}
		last = end
	}
}

// list reads one page behind an id, and returns its last id, "" at the end.
func (s *store) list(ctx context.Context, last string) (out []dedup.Entry, end string, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, "", err
	}
	rows, err := s.db.QueryContext(ctx, s.d.query("SELECT id, record, used_at FROM convhost_dedup_records WHERE id > ? ORDER BY id LIMIT ?"), last, page)
	if err != nil {
		return nil, "", fail(cmp.Or(ctx.Err(), err), "list")
	}
	defer rows.Close()
	for rows.Next() {
		var b []byte
		var used int64
		if err := rows.Scan(&end, &b, &used); err != nil {
			return nil, "", fail(err, "list")
		}
		kind, id, _ := strings.Cut(end, "/")
		if r, err := dedup.Decode(dedup.Key{Kind: dedup.Kind(kind), ID: digest.Digest(id)}, b); err == nil {
			out = append(out, dedup.Entry{Record: r, Used: time.UnixMicro(used)})
		}
	}
	return out, end, fail(cmp.Or(ctx.Err(), rows.Err()), "list")
}

// Prune implements dedup.Store.
func (s *store) Prune(ctx context.Context, before time.Time) (int, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	n, err := s.exec(ctx, "prune", "DELETE FROM convhost_dedup_records WHERE used_at < ?", before.UnixMicro())
	if err == nil {
		_, err = s.exec(ctx, "prune", "DELETE FROM convhost_dedup_places WHERE seen_at < ?", before.UnixMicro())
	}
	return int(n), err
}

// Close implements dedup.Store.
func (s *store) Close() error {
	s.closed.Store(true)
	return nil
}

func validBlobs(blobs []digest.Digest) error {
	for _, b := range blobs {
		if err := b.Validate(); err != nil {
			return abi.Errorf(abi.ErrInvalid, "blob %q: %w", string(b), err)
		}
	}
	return nil
}
