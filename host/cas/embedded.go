package cas

import (
	"context"
	_ "crypto/sha256" // digest algorithms that blobs may have
	_ "crypto/sha512"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	"go.etcd.io/bbolt"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas/lockfile"
)

// Options for Open. The zero value is right for a store that is to last.
type Options struct {
	// Namespace separates the names and blobs of several users of one directory; "" is "convhost".
	Namespace string
	// NoSync gives up durability of the metadata against a crash of the machine, for a store nobody needs afterwards.
	NoSync bool
}

// embedded is files under containerd's metadata and leases, in one directory:
//
//	lock         held as long as the store is open
//	meta.db      names, labels, leases (bbolt)
//	content/     blobs/ALGORITHM/HEX and ingest/
type embedded struct {
	dir  string
	ns   string
	lock *lockfile.File

	// mu is held for reading by everything that uses the database, and for writing by GC and Close: so a commit with
	// its labels, or a check and the change that follows, is one step for GC. Lock order: mu first, containerd's after.
	mu     sync.RWMutex
	closed bool

	db     *metadata.DB
	bolt   *bbolt.DB
	blobs  content.Store
	images images.Store
	leases leases.Manager
}

// Open opens the store in dir, which is created when it does not exist (its parent must exist). abi.ErrExists when
// another process, or another Open in this one, has it: the text says who. What owners that died had begun (ingests,
// leases) is dropped.
func Open(ctx context.Context, dir string, opts Options) (Store, error) {
	s, err := open(ctx, dir, opts)
	if err != nil {
		return nil, err // not a nil *embedded in a Store
	}
	return s, nil
}

func open(ctx context.Context, dir string, opts Options) (_ *embedded, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return nil, wrap(err, "open content store")
	}
	s := &embedded{dir: dir, ns: opts.Namespace}
	if s.ns == "" {
		s.ns = "convhost"
	}
	if s.lock, err = lockfile.TryLock(filepath.Join(dir, "lock")); err != nil {
		return nil, wrap(err, "open content store")
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	s.bolt, err = bbolt.Open(filepath.Join(dir, "meta.db"), 0o600,
		&bbolt.Options{Timeout: 2 * time.Second, NoSync: opts.NoSync, NoGrowSync: opts.NoSync})
	if err != nil {
		return nil, wrap(err, "open content store "+dir+": meta.db")
	}
	files, err := newFiles(filepath.Join(dir, "content"), opts.NoSync)
	if err != nil {
		return nil, wrap(err, "open content store "+dir)
	}
	s.db = metadata.NewDB(s.bolt, files, nil)
	if err = s.db.Init(s.with(ctx)); err != nil {
		return nil, wrap(err, "open content store "+dir+": meta.db")
	}
	s.blobs, s.images, s.leases = s.db.ContentStore(), metadata.NewImageStore(s.db), metadata.NewLeaseManager(s.db)
	if err = s.dropStale(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// dropStale removes what earlier owners left unfinished. The lock says that they are all dead.
func (s *embedded) dropStale(ctx context.Context) error {
	ctx = s.with(ctx)
	statuses, err := s.blobs.ListStatuses(ctx)
	if err != nil {
		return wrap(err, "list unfinished ingests")
	}
	for _, st := range statuses {
		if err := s.blobs.Abort(ctx, st.Ref); err != nil {
			return wrap(err, "drop unfinished ingest")
		}
	}
	old, err := s.leases.List(ctx)
	if err != nil {
		return wrap(err, "list leases")
	}
	for _, l := range old {
		if err := s.leases.Delete(ctx, l); err != nil {
			return wrap(err, "drop lease")
		}
	}
	// Ingests that the database knows nothing of: killed between directory and transaction.
	return wrap(os.RemoveAll(filepath.Join(s.dir, "content", "ingest", "")), "drop unfinished ingests")
}

// begin starts an operation that uses the database; end it with the returned function.
func (s *embedded) begin(ctx context.Context) (context.Context, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, wrap(err, "content store")
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return nil, nil, errClosed()
	}
	return s.with(ctx), s.mu.RUnlock, nil
}

func errClosed() error { return abi.Errorf(abi.ErrInvalid, "the content store is closed") }

func (s *embedded) with(ctx context.Context) context.Context {
	return namespaces.WithNamespace(log.WithLogger(ctx, silent), s.ns)
}

// silent keeps containerd's packages from logging through the process's logger: what matters comes back as errors.
var silent = func() *log.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}()

// GC implements Store.
func (s *embedded) GC(ctx context.Context) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, wrap(err, "collect garbage")
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0, errClosed()
	}
	_, err := s.db.GarbageCollect(s.with(ctx))
	s.mu.Unlock()
	if err != nil {
		return 0, wrap(err, "collect garbage")
	}
	n := 0
	err = s.Walk(ctx, func(Info) error { n++; return nil })
	return n, err
}

// Close implements Store.
func (s *embedded) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.release()
}

// release closes the database and gives up the lock, in that order.
func (s *embedded) release() error {
	var err error
	if s.bolt != nil {
		err = s.bolt.Close()
	}
	if uerr := s.lock.Unlock(); err == nil {
		err = uerr
	}
	return wrap(err, "close content store")
}
