// Package sqlstore keeps what was converted in a database that many machines share: MySQL 8 or MariaDB 10.2 and later,
// PostgreSQL 10 and later. It links no driver: the caller opens the *sql.DB, with the driver of its choice.
//
//	db, err := sql.Open("mysql", "user:password@tcp(db.example:3306)/convhost")
//	store, err := sqlstore.Open(ctx, db, sqlstore.MySQL)
//	h, err := host.New(host.WithDedup(store), …)
//
// Open makes the tables when they are not there; a user who may not create tables needs select, insert, update and delete
// on
//
//	convhost_dedup_schema   one row: the version of the tables
//	convhost_dedup_records  one row for each record, as dedup.Encode makes it
//	convhost_dedup_places   one row for each blob and repository
//
// Places on one machine are left out: the others could not use them.
//
// The tables of accelerated-container-image's convertor, overlaybd_layers and overlaybd_manifests, may live in the same
// database. They can be listed ([UpstreamLayers], [UpstreamManifests]) and are never written. They are not taken for
// records: their rows say neither which version converted with which options, nor on which parent, so nobody can tell
// what they would have to be equal to.
//
// Errors have the classes of package dedup; what a driver says is ErrIO, or ErrDenied for credentials and grants.
package sqlstore
