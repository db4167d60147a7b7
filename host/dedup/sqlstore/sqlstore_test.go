package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/dedup/deduptest"
)

// The contract itself is held against real servers in test/judges: a database that only looks like one proves nothing.

func TestQuery(t *testing.T) {
	for _, c := range []struct {
		d        Dialect
		in, want string
	}{
		{MySQL, "a = ? AND b = ?", "a = ? AND b = ?"},
		{PostgreSQL, "a = ? AND b = ?", "a = $1 AND b = $2"},
		{PostgreSQL, strings.Repeat("?, ", 11) + "?", "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12"},
	} {
		if got := c.d.query(c.in); got != c.want {
			t.Errorf("%d: %s, want %s", c.d, got, c.want)
		}
	}
	if got, want := MySQL.upsert("a, b", "c", "d"), " ON DUPLICATE KEY UPDATE c=VALUES(c), d=VALUES(d)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := PostgreSQL.upsert("a, b", "c", "d"), " ON CONFLICT (a, b) DO UPDATE SET c=EXCLUDED.c, d=EXCLUDED.d"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestShort(t *testing.T) {
	for in, want := range map[string]string{"": "", "a\x00b": "a?b", "\xff": "?", strings.Repeat("ü", 300): strings.Repeat("ü", 255)} {
		if got := short(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

type pgError string

func (e pgError) Error() string    { return "pq: " + string(e) }
func (e pgError) SQLState() string { return string(e) }

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err   error
		class abi.Class
		again bool
	}{
		{errors.New("Error 1213 (40001): Deadlock found when trying to get lock"), abi.ErrIO, true},
		{errors.New("Error 1045 (28000): Access denied for user 'a'@'b'"), abi.ErrDenied, false},
		{errors.New("dial tcp: connection refused"), abi.ErrIO, false},
		{pgError("40P01"), abi.ErrIO, true},
		{pgError("28P01"), abi.ErrDenied, false},
		{pgError("42501"), abi.ErrDenied, false},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), abi.ErrTimeout, false},
	} {
		if got := abi.ClassOf(fail(c.err, "x")); got != c.class {
			t.Errorf("%v has class %v, want %v", c.err, got, c.class)
		}
		if got := conflict(c.err); got != c.again {
			t.Errorf("%v is tried again: %v", c.err, got)
		}
	}
	if fail(nil, "x") != nil {
		t.Error("no error became one")
	}
}

// deadlocks is a driver whose statements collide a few times.
type deadlocks struct{ left, calls int }

func (d *deadlocks) Connect(context.Context) (driver.Conn, error) { return d, nil }
func (d *deadlocks) Driver() driver.Driver                        { return nil }
func (d *deadlocks) Prepare(string) (driver.Stmt, error)          { return d, nil }
func (d *deadlocks) Close() error                                 { return nil }
func (d *deadlocks) Begin() (driver.Tx, error)                    { return nil, errors.New("no transactions") }
func (d *deadlocks) NumInput() int                                { return -1 }
func (d *deadlocks) Query([]driver.Value) (driver.Rows, error)    { return nil, errors.New("no rows") }
func (d *deadlocks) Exec([]driver.Value) (driver.Result, error) {
	d.calls++
	if d.left--; d.left >= 0 {
		return nil, errors.New("Error 1213 (40001): Deadlock found")
	}
	return driver.RowsAffected(1), nil
}

func TestCollisions(t *testing.T) {
	for left, class := range map[int]abi.Class{0: 0, 3: 0, 100: abi.ErrIO} {
		d := &deadlocks{left: left}
		db := sql.OpenDB(d)
		s := &store{db: db, d: MySQL}
		if err := s.Put(t.Context(), deduptest.LayerRecord("a")); abi.ClassOf(err) != class {
			t.Errorf("%d deadlocks: %v after %d tries", left, err, d.calls)
		}
		if err := s.AddPlace(t.Context(), dedup.Place{Transport: "oci", Path: t.TempDir()}); err != nil {
			t.Error(err)
		}
		db.Close()
	}
	if _, err := Open(t.Context(), sql.OpenDB(&deadlocks{}), 0); abi.ClassOf(err) != abi.ErrInvalid {
		t.Errorf("no dialect: %v", err)
	}
}
