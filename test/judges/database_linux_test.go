package judges

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/lib/pq"
	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/dedup/deduptest"
	"github.com/convhost/convhost/host/dedup/sqlstore"
	"github.com/convhost/convhost/host/transport"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/sdk"
	"github.com/convhost/convhost/test/judge"
)

// database is a running server, reached by a socket in a directory of its own.
type database struct {
	dialect sqlstore.Dialect
	open    func(t *testing.T, name, user string) *sql.DB // user "": the administrator
	grant   []string                                      // statements that make the user "reader", who may not change anything
}

// databases are the servers that Debian has.
var databases = map[string]func(t *testing.T) *database{"mariadb": mariadb, "postgresql": postgresql}

// serverDir makes a directory with a short name, as sockets need it, for the user that the server runs as.
func serverDir(t *testing.T, account string) (string, *syscall.SysProcAttr) {
	t.Helper()
	dir, err := os.MkdirTemp("", "db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Getuid() != 0 {
		return dir, nil
	}
	u, err := user.Lookup(account)
	if err != nil {
		judge.Missing(t, "there is no user "+account)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Pdeathsig: syscall.SIGKILL}
}

// setUp runs a program that prepares a server.
func setUp(t *testing.T, dir string, as *syscall.SysProcAttr, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.SysProcAttr = dir, as
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%.3000s", name, err, out)
	}
}

// serve starts a server and waits until it answers.
func serve(t *testing.T, dir string, as *syscall.SysProcAttr, db *sql.DB, name string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = dir, as, &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGQUIT) // at once
		cmd.Process.Kill()
		if cmd.Wait(); t.Failed() {
			t.Logf("%s:\n%.3000s", name, log.String())
		}
	})
	deadline := time.Now().Add(time.Minute)
	for {
		err := db.PingContext(t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v\n%.3000s", name, err, log.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func mariadb(t *testing.T) *database {
	install, server := judge.Tool(t, "mariadb-install-db"), judge.Tool(t, "mariadbd")
	dir, as := serverDir(t, "mysql")
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "sock")
	setUp(t, dir, as, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	open := func(t *testing.T, name, user string) *sql.DB {
		c := mysql.NewConfig()
		c.User, c.Net, c.Addr, c.DBName, c.Logger = user, "unix", socket, name, &mysql.NopLogger{}
		if user == "" {
			c.User = "root"
		}
		connector, err := mysql.NewConnector(c) // a DSN has no place for the logger
		if err != nil {
			t.Fatal(err)
		}
		db := sql.OpenDB(connector)
		t.Cleanup(func() { db.Close() })
		return db
	}
	admin := open(t, "", "")
	serve(t, dir, as, admin, server, "--no-defaults", "--datadir="+data, "--socket="+socket, "--skip-networking", "--innodb-flush-log-at-trx-commit=0")
	return &database{dialect: sqlstore.MySQL, open: open, grant: []string{"CREATE USER reader", "GRANT SELECT ON *.* TO reader"}}
}

func postgresql(t *testing.T) *database {
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		judge.Missing(t, "postgresql not installed")
	}
	bin := bins[len(bins)-1]
	dir, as := serverDir(t, "postgres")
	data := filepath.Join(dir, "data")
	setUp(t, dir, as, filepath.Join(bin, "initdb"), "-D", data, "-U", "admin", "-A", "trust", "-E", "UTF8", "--no-sync")
	open := func(t *testing.T, name, user string) *sql.DB {
		if user == "" {
			user = "admin"
		}
		if name == "" {
			name = "postgres"
		}
		return opened(t, "postgres", (&url.URL{Scheme: "postgres", User: url.User(user), Path: "/" + name,
			RawQuery: url.Values{"host": {dir}, "sslmode": {"disable"}}.Encode()}).String())
	}
	admin := open(t, "", "")
	serve(t, dir, as, admin, filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-F", "-c", "listen_addresses=")
	return &database{dialect: sqlstore.PostgreSQL, open: open,
		grant: []string{"CREATE ROLE reader LOGIN", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"}}
}

func opened(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

var databaseCount atomic.Int64

// fresh makes a database and returns its name.
func (d *database) fresh(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("db%d", databaseCount.Add(1))
	run(t, d.open(t, "", ""), "CREATE DATABASE "+name)
	return name
}

func run(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func (d *database) store(t *testing.T, db *sql.DB) dedup.Store {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), db, d.dialect)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDatabases holds the stores in real databases to the contract, and converts with them.
func TestDatabases(t *testing.T) {
	for name, start := range databases {
		t.Run(name, func(t *testing.T) {
			d := start(t)
			t.Run("contract", func(t *testing.T) {
				var name string
				deduptest.Run(t, deduptest.Config{
					Open: func(t *testing.T) dedup.Store {
						name = d.fresh(t)
						return d.store(t, d.open(t, name, ""))
					},
					Again:  func(t *testing.T) dedup.Store { return d.store(t, d.open(t, name, "")) },
					Shared: true,
				})
			})
			t.Run("tables are made once", d.sameTime)
			t.Run("tables of a newer version", d.newer)
			t.Run("who may only read", d.reader)
			t.Run("damaged and foreign rows", d.damaged)
			t.Run("upstream's tables", d.upstream)
			t.Run("no server", d.down)
			t.Run("conversions", d.convert)
		})
	}
}

func (d *database) sameTime(t *testing.T) {
	name := d.fresh(t)
	errs := make(chan error, 8)
	for range cap(errs) {
		db := d.open(t, name, "")
		go func() {
			s, err := sqlstore.Open(t.Context(), db, d.dialect)
			if err == nil {
				err = s.Put(t.Context(), deduptest.LayerRecord("a"))
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func (d *database) newer(t *testing.T) {
	db := d.open(t, d.fresh(t), "")
	d.store(t, db)
	run(t, db, "UPDATE convhost_dedup_schema SET version = 99")
	if _, err := sqlstore.Open(t.Context(), db, d.dialect); abi.ClassOf(err) != abi.ErrUnsupported {
		t.Errorf("%v, want ErrUnsupported", err)
	}
}

func (d *database) reader(t *testing.T) {
	name := d.fresh(t)
	db := d.open(t, name, "")
	s := d.store(t, db)
	rec := deduptest.LayerRecord("a")
	if err := s.Put(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	run(t, db, d.grant...)
	run(t, db, "UPDATE convhost_dedup_records SET used_at = 1")
	r := d.store(t, d.open(t, name, "reader"))
	if _, err := r.Get(t.Context(), rec.Key); err != nil {
		t.Error(err)
	}
	if err := r.Put(t.Context(), rec); abi.ClassOf(err) != abi.ErrDenied {
		t.Errorf("%v, want ErrDenied", err)
	}
	if _, err := sqlstore.Open(t.Context(), d.open(t, name, "nobody-of-that-name"), d.dialect); abi.ClassOf(err) != abi.ErrDenied {
		t.Errorf("%v, want ErrDenied", err)
	}
}

func (d *database) damaged(t *testing.T) {
	db := d.open(t, d.fresh(t), "")
	s := d.store(t, db)
	rec, blob := deduptest.LayerRecord("a"), digest.FromString("a")
	if err := s.Put(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	run(t, db, "UPDATE convhost_dedup_records SET record = 'half'",
		"INSERT INTO convhost_dedup_places (digest, host, repo, seen_at) VALUES ('"+blob.String()+"', '', '../etc', 5)")
	if _, err := s.Get(t.Context(), rec.Key); abi.ClassOf(err) != abi.ErrCorrupt {
		t.Errorf("%v, want ErrCorrupt", err)
	}
	if p, err := s.Places(t.Context(), blob); len(p) > 0 || err != nil {
		t.Errorf("%v, %v", p, err)
	}
}

// upstream reads the tables as accelerated-container-image's samples/mysql.conf declares them: names and keys.
func (d *database) upstream(t *testing.T) {
	db := d.open(t, d.fresh(t), "")
	if err := sqlstore.UpstreamLayers(t.Context(), db, nil); abi.ClassOf(err) != abi.ErrNotFound {
		t.Errorf("no tables: %v", err)
	}
	run(t, db,
		"CREATE TABLE overlaybd_layers (host varchar(255) NOT NULL, repo varchar(255) NOT NULL, chain_id varchar(255) NOT NULL, data_digest varchar(255) NOT NULL, data_size bigint NOT NULL, PRIMARY KEY (host, repo, chain_id))",
		"CREATE TABLE overlaybd_manifests (host varchar(255) NOT NULL, repo varchar(255) NOT NULL, src_digest varchar(255) NOT NULL, out_digest varchar(255) NOT NULL, data_size bigint NOT NULL, mediatype varchar(255) NOT NULL, PRIMARY KEY (host, repo, src_digest, mediatype))",
		"INSERT INTO overlaybd_layers VALUES ('registry.example', 'team/app', 'sha256:c', 'sha256:d', 77)",
		"INSERT INTO overlaybd_manifests VALUES ('registry.example', 'team/app', 'sha256:s', 'sha256:o', 88, 'm/t')")
	d.store(t, db) // beside ours
	var got []string
	err := sqlstore.UpstreamLayers(t.Context(), db, func(l sqlstore.UpstreamLayer) error { got = append(got, fmt.Sprint(l)); return nil })
	if err == nil {
		err = sqlstore.UpstreamManifests(t.Context(), db, func(m sqlstore.UpstreamManifest) error { got = append(got, fmt.Sprint(m)); return nil })
	}
	want := []string{"{docker://registry.example/team/app sha256:c sha256:d 77}", "{docker://registry.example/team/app sha256:s sha256:o 88 m/t}"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func (d *database) down(t *testing.T) {
	driver, dsn := "mysql", "user:geheim@tcp(127.0.0.1:1)/x?timeout=2s"
	if d.dialect == sqlstore.PostgreSQL {
		driver, dsn = "postgres", "postgres://user:geheim@127.0.0.1:1/x?connect_timeout=2"
	}
	_, err := sqlstore.Open(t.Context(), opened(t, driver, dsn), d.dialect)
	if abi.ClassOf(err) != abi.ErrIO || strings.Contains(err.Error(), "geheim") {
		t.Errorf("%v, want ErrIO without the password", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sqlstore.Open(ctx, opened(t, driver, dsn), d.dialect); abi.ClassOf(err) != abi.ErrCanceled {
		t.Errorf("%v, want ErrCanceled", err)
	}
}

// convert converts twice, to two repositories of Debian's registry, with two hosts: the second one converts and sends nothing.
func (d *database) convert(t *testing.T) {
	reg := registry(t)
	name := d.fresh(t)
	for i, repo := range []string{"team/a", "team/b", "team/b"} {
		var events []host.Event
		h, err := host.New(host.WithWorkDir(t.TempDir()), host.WithDedup(d.store(t, d.open(t, name, ""))),
			host.WithBuiltin(host.Builtin{Name: "nydus", InProcess: sdk.InProcess(nydus.New())}, host.Builtin{Name: "overlaybd", InProcess: sdk.InProcess(overlaybd.New())}),
			host.WithTransport(transport.Options{AuthFile: noCredentials(t)}), host.WithEvents(func(e host.Event) { events = append(events, e) }))
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		var targets []host.Target
		for _, format := range []string{"nydus", "overlaybd"} {
			targets = append(targets, host.Target{Format: format, Dest: fmt.Sprintf("docker://%s/%s:%s", reg, repo, format)})
		}
		if _, err := h.Convert(t.Context(), host.ConvertRequest{Source: "oci:../../testdata/demo/image:demo", Targets: targets, Verify: i == 2}); err != nil {
			t.Fatal(err)
		}
		n := map[host.EventKind]int{}
		for _, e := range events {
			n[e.Kind]++
		}
		first := i == 0
		if (n[host.EventLayerStarted] > 0) != first || (n[host.EventLayerReused] == 0) != first || n[host.EventWarning] > 0 {
			t.Errorf("to %s, time %d: %v", repo, i, n)
		}
	}
}

func noCredentials(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(name, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

var _ = pq.Driver{} // registers "postgres"
