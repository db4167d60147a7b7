package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/convhost/convhost/abi"
)

// Dialect says what database it is.
type Dialect int

// Dialects.
const (
	MySQL      Dialect = 1 // also MariaDB
	PostgreSQL Dialect = 2
)

// schemaVersion is the version of the tables below.
const schemaVersion = 1

// tables returns the statements that make the tables. Keys fit into 3072 bytes, the most that InnoDB indexes.
func (d Dialect) tables() []string {
	id, text, blob, end := "VARCHAR(160) COLLATE \"C\"", "VARCHAR(255) COLLATE \"C\"", "BYTEA", ""
	if d == MySQL {
		id, text, blob = "VARCHAR(160) CHARACTER SET ascii COLLATE ascii_bin", "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "LONGBLOB"
		end = " ENGINE=InnoDB"
	}
	return []string{
		`CREATE TABLE IF NOT EXISTS convhost_dedup_schema (version INT NOT NULL PRIMARY KEY)` + end,
		fmt.Sprintf(`CREATE TABLE IF NOT EXISTS convhost_dedup_records (
			id %[1]s NOT NULL PRIMARY KEY, format %[2]s NOT NULL, version %[2]s NOT NULL, source %[1]s NOT NULL, platform %[2]s NOT NULL,
			record %[3]s NOT NULL, used_at BIGINT NOT NULL)`, id, text, blob) + end,
		fmt.Sprintf(`CREATE TABLE IF NOT EXISTS convhost_dedup_places (
			digest %[1]s NOT NULL, host %[2]s NOT NULL, repo %[2]s NOT NULL, seen_at BIGINT NOT NULL,
			PRIMARY KEY (digest, host, repo))`, id, text) + end,
	}
}

// query puts the dialect's parameters in place of question marks.
func (d Dialect) query(s string) string {
	if d == MySQL {
		return s
	}
	var out strings.Builder
	n := 0
	for _, r := range s {
		if r == '?' {
			n++
			out.WriteString("$" + strconv.Itoa(n))
			continue
		}
		out.WriteRune(r)
	}
	return out.String()
}

// upsert returns the end of an INSERT that replaces columns of a row with the same key.
func (d Dialect) upsert(key string, columns ...string) string {
	var set []string
	for _, c := range columns {
		if d == MySQL {
			set = append(set, c+"=VALUES("+c+")")
		} else {
			set = append(set, c+"=EXCLUDED."+c)
		}
	}
	if d == MySQL {
		return " ON DUPLICATE KEY UPDATE " + strings.Join(set, ", ")
	}
	return " ON CONFLICT (" + key + ") DO UPDATE SET " + strings.Join(set, ", ")
}

// lock keeps others from making the tables at the same time; only PostgreSQL needs that.
func (d Dialect) lock(ctx context.Context, tx *sql.Tx) error {
	if d != PostgreSQL {
		return nil
	}
	_, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(7526754413)")
	return err
}

// conflict tells errors that go away when the statement is repeated: deadlocks and lost races between transactions.
func conflict(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState() == "40P01" || state.SQLState() == "40001"
	}
	return strings.Contains(err.Error(), "Error 1213") || strings.Contains(err.Error(), "Error 1205")
}

// absent tells that a table does not exist.
func absent(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState() == "42P01"
	}
	return err != nil && strings.HasPrefix(err.Error(), "Error 1146")
}

// fail gives a driver's error its class.
func fail(err error, doing string) error {
	if err == nil {
		return nil
	}
	class := abi.ErrIO
	var state interface{ SQLState() string }
	switch text := err.Error(); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		class = abi.ClassOf(err)
	case errors.As(err, &state) && (strings.HasPrefix(state.SQLState(), "28") || state.SQLState() == "42501"):
		class = abi.ErrDenied
	case strings.HasPrefix(text, "Error 1045"), strings.HasPrefix(text, "Error 1044"), strings.HasPrefix(text, "Error 1142"):
		class = abi.ErrDenied
	}
	return abi.Errorf(class, "dedup database: %s: %w", doing, err)
}
