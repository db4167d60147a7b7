package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/dedup/sqlstore"
)

const dedupHelp = `Conversions remember which layers and images they converted, with which plugin and options, and where they put the
result. A later conversion that would give the same takes it from there: nothing is converted, and a registry that has
the blobs in another repository is asked to mount them. The result is the same, byte for byte, as without.

What is remembered is a few kilobytes for a layer; the bytes themselves stay in the images. --dedup names where:

  DIR             a directory; default convhost/dedup in the user's cache directory. Any number of processes share it.
  mysql://USER@HOST[:PORT]/DATABASE     MySQL or MariaDB; with ?tls=true and other parameters of go-sql-driver/mysql,
                                        and ?socket=PATH for a socket
  postgres://USER@HOST[:PORT]/DATABASE  PostgreSQL; with ?sslmode=disable and other parameters of libpq
  off             nowhere

The password of a database is taken from CONVHOST_DEDUP_PASSWORD or --dedup-password-file; in the URL, others can see it.
A store that does not answer makes no conversion fail: it is slower, and a warning tells.`

// pruneAge is how long what nobody uses is remembered, and pruneEvery how often the command looks for it.
const (
	pruneAge   = 90 * 24 * time.Hour
	pruneEvery = 7 * 24 * time.Hour
)

func (a *app) dedupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dedup", Short: "show and prune what conversions remember", Long: dedupHelp,
		Args: noSuchCommand, RunE: showHelp,
	}
	var upstream bool
	list := &cobra.Command{
		Use: "list", Short: "list what is remembered",
		Long: `Lists the layers and images that were converted, and when they were used last, to a day.

--upstream lists what accelerated-container-image's convertor left in the same database instead. convhost does not reuse that:
its rows do not tell the version, the options and the parent that a layer was made with.`,
		Example: "  convhost dedup list\n  convhost dedup list --dedup mysql://convhost@db.example/images --json",
		Args:    arguments(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), func(ctx context.Context, s *openedStore) error {
				if upstream {
					return a.upstreamList(ctx, s)
				}
				return a.dedupList(ctx, s)
			})
		},
	}
	list.Flags().BoolVar(&upstream, "upstream", false, "list the tables overlaybd_layers and overlaybd_manifests of a database")
	days := 0
	prune := &cobra.Command{
		Use: "prune", Short: "forget what was not used for long",
		Long:    "Forgets layers and images that no conversion used for some days. Images stay: only what is remembered of them goes.",
		Example: "  convhost dedup prune --days 30\n  convhost dedup prune --days 0   # everything",
		Args:    arguments(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if days < 0 {
				return usage(cmd, "--days is %d, want 0 or more", days)
			}
			return a.withStore(cmd.Context(), func(ctx context.Context, s *openedStore) error { return a.dedupPrune(ctx, s, days) })
		},
	}
	prune.Flags().IntVar(&days, "days", int(pruneAge/(24*time.Hour)), "keep what was used in the last `N` days")
	cmd.AddCommand(list, prune)
	return cmd
}

// openedStore is a store and, for a directory, its path.
type openedStore struct {
	dedup.Store
	dir   string
	sql   *database
	close func() error
}

// openStore opens what --dedup names; nil if that is nowhere. Errors of a store that only does not answer are ErrIO,
// ErrDenied or ErrTimeout.
func (s *settings) openStore(ctx context.Context, a *app) (*openedStore, error) {
	name := s.dedup
	switch scheme, _, isURL := strings.Cut(name, "://"); {
	case name == "off", name == "false": // as a configuration file may say it
		return nil, nil
	case isURL:
		db, err := openDatabase(s, a, scheme)
		if err != nil {
			return nil, err
		}
		store, err := sqlstore.Open(ctx, db.DB, db.dialect)
		if err != nil {
			db.Close()
			return nil, err
		}
		return &openedStore{Store: store, sql: db, close: func() error { return errors.Join(store.Close(), db.Close()) }}, nil
	case name == "", name == "on", name == "true":
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, abi.Errorf(abi.ErrIO, "%w", err)
		}
		name = filepath.Join(dir, "convhost", "dedup")
	}
	store, err := dedup.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &openedStore{Store: store, dir: name, close: store.Close}, nil
}

// conversionStore opens the store for a conversion. A database that does not answer, and a default directory that
// cannot be used, are warnings; anything else that was asked for must work.
func (s *settings) conversionStore(ctx context.Context, a *app) (*openedStore, error) {
	store, err := s.openStore(ctx, a)
	if err == nil || ctx.Err() != nil {
		return store, err
	}
	remote := strings.Contains(s.dedup, "://") && slices.Contains([]abi.Class{abi.ErrIO, abi.ErrDenied, abi.ErrTimeout}, abi.ClassOf(err))
	if !remote && given(s.flags, "dedup") {
		return nil, withHint(err, "--dedup names another place; off, nothing is remembered")
	}
	a.warnings = append(a.warnings, "nothing is reused or remembered: "+err.Error())
	return nil, nil
}

// remember opens the store for a conversion, until done is called.
func (a *app) remember(ctx context.Context) (done func(), err error) {
	store, err := a.set.conversionStore(ctx, a)
	if err != nil || store == nil {
		return func() {}, err
	}
	a.set.store = store
	return func() {
		if err := errors.Join(store.tidy(ctx), store.close()); err != nil && ctx.Err() == nil && a.con != nil {
			a.con.warn("dedup store: " + err.Error())
		}
	}, nil
}

// tidy forgets from time to time what nobody used for long, so that the default directory does not grow for ever.
func (o *openedStore) tidy(ctx context.Context) error {
	if o.dir == "" {
		return nil
	}
	marker := filepath.Join(o.dir, "pruned")
	fi, err := os.Stat(marker)
	if err == nil && time.Since(fi.ModTime()) < pruneEvery {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		return err
	}
	if fi == nil {
		return nil // it is new
	}
	_, err = o.Prune(ctx, time.Now().Add(-pruneAge))
	return err
}

// withStore opens the store for a command about it.
func (a *app) withStore(ctx context.Context, fn func(context.Context, *openedStore) error) error {
	s, err := a.set.openStore(ctx, a)
	if err != nil {
		return err
	}
	if s == nil {
		return withHint(abi.Errorf(abi.ErrInvalid, "--dedup is off"), "convhost help dedup tells where conversions are remembered")
	}
	return errors.Join(fn(ctx, s), s.close())
}

// remembered is the JSON form of a record.
type remembered struct {
	Record    string          `json:"record"` // layer or manifest
	Format    string          `json:"format"`
	Version   string          `json:"version"`
	Source    digest.Digest   `json:"source"`
	Platform  string          `json:"platform,omitempty"`
	Converted []digest.Digest `json:"converted"` // the manifest, or the layer's parts
	Size      int64           `json:"size"`      // of all layers or parts
	Used      string          `json:"used"`      // YYYY-MM-DD, UTC
}

func (a *app) dedupList(ctx context.Context, s *openedStore) error {
	doc := struct {
		Records []remembered `json:"records"`
	}{[]remembered{}}
	err := s.List(ctx, func(e dedup.Entry) error {
		r := e.Record
		out := remembered{Record: string(r.Key.Kind), Format: r.Format, Version: r.Version, Source: r.Source, Platform: r.Platform,
			Converted: []digest.Digest{}, Used: e.Used.UTC().Format(time.DateOnly)}
		if r.Layer != nil {
			for _, p := range r.Layer.Parts {
				out.Converted, out.Size = append(out.Converted, p.Digest), out.Size+p.Size
			}
		} else {
			out.Converted = append(out.Converted, r.Manifest.Converted.Digest)
			for _, l := range r.Manifest.Layers {
				out.Size += l.Size
			}
		}
		doc.Records = append(doc.Records, out)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(doc.Records, func(a, b remembered) int {
		return strings.Compare(a.Record+a.Format+a.Version+string(a.Source), b.Record+b.Format+b.Version+string(b.Source))
	})
	return a.result("remembered", doc, func(t *table) {
		t.row("RECORD", "FORMAT", "VERSION", "SOURCE", "CONVERTED", "SIZE", "USED", "PLATFORM")
		for _, r := range doc.Records {
			var to []string
			for _, d := range r.Converted {
				to = append(to, short(d))
			}
			t.row(r.Record, r.Format, r.Version, short(r.Source), strings.Join(to, ", "), size(r.Size), r.Used, r.Platform)
		}
	})
}

func (a *app) upstreamList(ctx context.Context, s *openedStore) error {
	if s.sql == nil {
		return abi.Errorf(abi.ErrInvalid, "--upstream: upstream's tables are in a database, --dedup does not name one")
	}
	type row struct {
		Table     string `json:"table"`
		Place     string `json:"place"`
		Source    string `json:"source"` // chain ID of a layer, digest of a manifest
		Converted string `json:"converted"`
		Size      int64  `json:"size"`
		MediaType string `json:"mediaType,omitempty"`
	}
	doc := struct {
		Rows []row `json:"rows"`
	}{[]row{}}
	err := sqlstore.UpstreamLayers(ctx, s.sql.DB, func(l sqlstore.UpstreamLayer) error {
		doc.Rows = append(doc.Rows, row{Table: "overlaybd_layers", Place: l.Place.String(), Source: string(l.ChainID), Converted: string(l.Digest), Size: l.Size})
		return nil
	})
	if err == nil {
		err = sqlstore.UpstreamManifests(ctx, s.sql.DB, func(m sqlstore.UpstreamManifest) error {
			doc.Rows = append(doc.Rows, row{"overlaybd_manifests", m.Place.String(), string(m.Source), string(m.Digest), m.Size, m.MediaType})
			return nil
		})
	}
	if err != nil {
		return err
	}
	return a.result("upstream", doc, func(t *table) {
		t.row("TABLE", "PLACE", "SOURCE", "CONVERTED", "SIZE")
		for _, r := range doc.Rows {
			t.row(r.Table, clean(r.Place), clean(r.Source), clean(r.Converted), size(r.Size))
		}
	})
}

func (a *app) dedupPrune(ctx context.Context, s *openedStore, days int) error {
	before := time.Now().Add(-time.Duration(days) * 24 * time.Hour)
	if days == 0 {
		before = time.Now().Add(24 * time.Hour) // whatever other machines' clocks say
	}
	n, err := s.Prune(ctx, before)
	if err != nil {
		return err
	}
	doc := struct {
		Records int `json:"records"`
	}{n}
	return a.result("pruned", doc, func(t *table) { t.line("%s forgotten", strconv.Itoa(n)+pick(n == 1, " record", " records")) })
}
