package cas

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Store keeps blobs by digest, with labels, and names for some of them. Every method may be called from any goroutine
// and repeated after an error; after Close all of them return abi.ErrInvalid. Arguments are not kept.
type Store interface {
	// Info tells digest, size and labels of a blob. abi.ErrNotFound when it is not there.
	Info(ctx context.Context, dgst digest.Digest) (Info, error)

	// Exists tells whether a blob is there. An error is never an answer: a store that cannot be read is not "absent".
	Exists(ctx context.Context, dgst digest.Digest) (bool, error)

	// Open gives random access to a blob, by desc.Digest; desc.Size must be the blob's size, or -1 if unknown
	// (else abi.ErrDigest). The caller closes it. It stays readable when the blob is collected meanwhile, where the
	// operating system allows; hold a lease to be sure. The bytes are not verified.
	Open(ctx context.Context, desc ocispec.Descriptor) (ReaderAt, error)

	// Walk calls fn for every blob, in order of digest, until it returns an error, which Walk returns. fn may use the
	// store. Blobs that come or go during the walk may be missed or met.
	Walk(ctx context.Context, fn func(Info) error) error

	// Ingest begins a blob. ref names the ingest; the same ref cannot be used twice at a time (abi.ErrExists); ""
	// takes a unique one. Nothing of an earlier ingest of that name is used. The caller closes the Writer.
	Ingest(ctx context.Context, ref string) (Writer, error)

	// SetLabels merges labels into those of a blob; an empty value removes the label. In one step, or not at all.
	SetLabels(ctx context.Context, dgst digest.Digest, labels map[string]string) error

	// Lease protects from GC what is ingested or held (Hold) with the returned context, until release is called or
	// the owner dies. release may be called more than once, also after ctx ended.
	Lease(ctx context.Context) (leased context.Context, release func() error, err error)

	// Hold adds blobs that exist, and so all they refer to, to the lease of ctx. abi.ErrInvalid without a lease,
	// abi.ErrNotFound if one is not there. It makes "it exists, so I need not write it" safe.
	Hold(ctx context.Context, dgsts ...digest.Digest) error

	// Image returns the record of a name, abi.ErrNotFound if there is none.
	Image(ctx context.Context, name string) (Image, error)

	// Images returns all records in order of name.
	Images(ctx context.Context) ([]Image, error)

	// SetImage creates or replaces a record if the name's target is old at that moment: compare-and-swap. old "" means
	// that there must be none, [AnyTarget] that it does not matter. abi.ErrExists when the target is another one,
	// abi.ErrNotFound when the new target is not in the store.
	SetImage(ctx context.Context, img Image, old digest.Digest) error

	// RemoveImage removes a record. It is no error when there is none.
	RemoveImage(ctx context.Context, name string) error

	// GC removes what is not reachable and tells how many blobs are left. It waits for commits and label changes in
	// progress and makes new ones wait.
	GC(ctx context.Context) (blobs int, err error)

	// Close ends the use of the store. Open readers stay usable, open writers fail. It may be called again.
	Close() error
}

// AnyTarget as the old target of SetImage replaces whatever is there.
const AnyTarget digest.Digest = "*"

// Info describes a blob.
type Info struct {
	Digest    digest.Digest
	Size      int64 // bytes
	Labels    map[string]string
	CreatedAt time.Time
	UpdatedAt time.Time // of labels
}

// Image is a name for a descriptor. Of Target only media type, digest, size and annotations are kept.
type Image struct {
	Name   string
	Target ocispec.Descriptor
	Labels map[string]string
}

// ReaderAt is random access to a blob at rest. ReadAt may be called from any goroutine, until Close.
type ReaderAt interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Writer takes in one blob. It is used from one goroutine. A blob is visible only after a Commit without an error.
type Writer interface {
	io.Writer

	// Truncate drops what was written, to start again after a failed source.
	Truncate() error

	// Digest returns the SHA-256 digest of what was written so far.
	Digest() digest.Digest

	// Commit checks size (-1: unknown) and digest ("": unknown, sha256 is computed), makes bytes and labels durable and
	// then the blob visible. A blob that is already there is success too; the labels are merged into its own.
	// abi.ErrDigest when the bytes are others; then nothing was kept. After Commit only Close is allowed.
	Commit(ctx context.Context, size int64, want digest.Digest, labels map[string]string) (Info, error)

	// Close drops the ingest unless it was committed. It may be called again.
	Close() error
}
