package sqlstore

import (
	"context"
	"database/sql"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/transport"
)

// UpstreamLayer is a row of overlaybd_layers: a layer that accelerated-container-image converted. It is not known with
// which version and options, nor on which parent.
type UpstreamLayer struct {
	Place   dedup.Place
	ChainID digest.Digest // of the source
	Digest  digest.Digest // of the converted layer
	Size    int64
}

// UpstreamManifest is a row of overlaybd_manifests.
type UpstreamManifest struct {
	Place     dedup.Place
	Source    digest.Digest
	Digest    digest.Digest // of the converted manifest
	Size      int64
	MediaType string
}

// UpstreamLayers calls fn for every row of overlaybd_layers. Nothing in it was checked. An error of fn ends it and is
// returned. abi.ErrNotFound when there is no such table.
func UpstreamLayers(ctx context.Context, db *sql.DB, fn func(UpstreamLayer) error) error {
	return upstream(ctx, db, "SELECT host, repo, chain_id, data_digest, data_size FROM overlaybd_layers ORDER BY host, repo, chain_id",
		func(rows *sql.Rows) error {
			l := UpstreamLayer{Place: dedup.Place{Transport: transport.Docker}}
			if err := rows.Scan(&l.Place.Host, &l.Place.Path, &l.ChainID, &l.Digest, &l.Size); err != nil {
				return fail(err, "read overlaybd_layers")
			}
			return fn(l)
		})
}

// UpstreamManifests is UpstreamLayers for overlaybd_manifests.
func UpstreamManifests(ctx context.Context, db *sql.DB, fn func(UpstreamManifest) error) error {
	return upstream(ctx, db, "SELECT host, repo, src_digest, out_digest, data_size, mediatype FROM overlaybd_manifests ORDER BY host, repo, src_digest, mediatype",
		func(rows *sql.Rows) error {
			m := UpstreamManifest{Place: dedup.Place{Transport: transport.Docker}}
			if err := rows.Scan(&m.Place.Host, &m.Place.Path, &m.Source, &m.Digest, &m.Size, &m.MediaType); err != nil {
				return fail(err, "read overlaybd_manifests")
			}
			return fn(m)
		})
}

func upstream(ctx context.Context, db *sql.DB, query string, fn func(*sql.Rows) error) error {
	rows, err := db.QueryContext(ctx, query)
	if absent(err) {
		return abi.Errorf(abi.ErrNotFound, "dedup database: it does not have upstream's tables: %w", err)
	} else if err != nil {
		return fail(err, "read upstream's tables")
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return fail(rows.Err(), "read upstream's tables")
}
