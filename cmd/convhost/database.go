package main

import (
	"cmp"
	"database/sql"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/lib/pq"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup/sqlstore"
)

// database is an opened one. Connections are made when they are needed.
type database struct {
	*sql.DB
	dialect sqlstore.Dialect
}

const (
	connectTime     = 10 * time.Second
	databasePassKey = "CONVHOST_DEDUP_PASSWORD"
)

// openDatabase opens what a URL in --dedup names. Errors never show the URL: it may hold a password.
func openDatabase(s *settings, a *app, scheme string) (*database, error) {
	u, err := url.Parse(s.dedup)
	if err != nil {
		return nil, withHint(abi.Errorf(abi.ErrInvalid, "--dedup: the URL of a database cannot be read"), "convhost help dedup shows how it is written")
	}
	password, has := u.User.Password()
	if !has {
		if password, err = databasePassword(s, a); err != nil {
			return nil, err
		}
	}
	var d *database
	switch scheme {
	case "mysql", "mariadb":
		d, err = openMySQL(u, password)
	case "postgres", "postgresql":
		d, err = openPostgres(u, password)
	default:
		return nil, withHint(abi.Errorf(abi.ErrInvalid, "--dedup %s://…: there is no such store", clean(scheme)), "convhost help dedup lists them")
	}
	if err != nil {
		return nil, err
	}
	d.SetMaxOpenConns(8)
	d.SetConnMaxIdleTime(time.Minute)
	return d, nil
}

func databasePassword(s *settings, a *app) (string, error) {
	if s.dedupPasswordFile != "" {
		return readCreds(s.dedupPasswordFile, a.stdin)
	}
	return a.env[databasePassKey], nil
}

func openMySQL(u *url.URL, password string) (*database, error) {
	name := strings.TrimPrefix(u.Path, "/")
	if name == "" {
		return nil, abi.Errorf(abi.ErrInvalid, "--dedup: the URL names no database: want mysql://USER@HOST/DATABASE")
	}
	q := u.Query()
	socket := q.Get("socket")
	q.Del("socket")
	c, err := mysql.ParseDSN("/?" + q.Encode()) // the parameters only
	if err != nil {
		return nil, abi.Errorf(abi.ErrInvalid, "--dedup: parameters of the URL: %w", err)
	}
	c.User, c.Passwd, c.DBName = u.User.Username(), password, name
	c.Net, c.Addr = "tcp", net.JoinHostPort(cmp.Or(u.Hostname(), "127.0.0.1"), cmp.Or(u.Port(), "3306"))
	if socket != "" {
		c.Net, c.Addr = "unix", socket
	}
	c.Timeout = cmp.Or(c.Timeout, connectTime)
	c.Logger = &mysql.NopLogger{} // what matters comes back as an error
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, abi.Errorf(abi.ErrInvalid, "--dedup: %w", err)
	}
	return &database{DB: sql.OpenDB(connector), dialect: sqlstore.MySQL}, nil
}

func openPostgres(u *url.URL, password string) (*database, error) {
	v := *u
	if v.User != nil && password != "" {
		v.User = url.UserPassword(u.User.Username(), password)
	}
	q := v.Query()
	if !q.Has("connect_timeout") {
		q.Set("connect_timeout", "10")
	}
	v.RawQuery = q.Encode()
	connector, err := pq.NewConnector(v.String())
	if err != nil {
		text := strings.ReplaceAll(err.Error(), v.String(), "the URL")
		if password != "" {
			text = strings.ReplaceAll(text, password, "…")
		}
		return nil, abi.Errorf(abi.ErrInvalid, "--dedup: %s", text)
	}
	return &database{DB: sql.OpenDB(connector), dialect: sqlstore.PostgreSQL}, nil
}
