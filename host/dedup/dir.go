package dedup

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/internal/private"
)

// dir is a store in files, each written aside and renamed:
//
//	layer/AB/HEX, manifest/AB/HEX   a record as Encode makes it; the file's time is its last use
//	places/AB/ALGORITHM-HEX         lines "SECONDS PLACE", appended; see places.go
//
// Nothing is locked and nothing is synced: readers see a file before or after a rename, lost lines are lost hints, and
// what a crash of the machine leaves half written fails its checksum.
type dir struct {
	path   string
	closed chan struct{}
}

const (
	placesDir   = "places"
	asidePrefix = ".new-"
)

// OpenDir opens the store in a directory, which is made if it does not exist, with its parents, for this user alone. Any
// number of processes may have it open. abi.ErrDenied when somebody else can write to it: what it says decides what becomes
// of conversions.
func OpenDir(path string) (Store, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(path, 0o700); err == nil {
			fi, err = os.Stat(path)
		}
	}
	switch {
	case err != nil:
		return nil, diskError(err, "dedup store")
	case !fi.IsDir():
		return nil, abi.Errorf(abi.ErrInvalid, "dedup store %s: it is not a directory", path)
	}
	if why := private.OthersCanWrite(fi); why != "" {
		return nil, abi.Errorf(abi.ErrDenied, "dedup store %s %s: whoever writes there decides what conversions give; make it yours alone (chmod go-w)", path, why)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, diskError(err, "dedup store")
	}
	return &dir{path: abs, closed: make(chan struct{})}, nil
}

func diskError(err error, doing string) error {
	class := abi.ErrIO
	switch {
	case errors.Is(err, fs.ErrPermission):
		class = abi.ErrDenied
	case errors.Is(err, fs.ErrNotExist):
		class = abi.ErrNotFound
	}
	return abi.Errorf(class, "%s: %w", doing, err)
}

func (d *dir) usable(ctx context.Context) error {
	select {
	case <-d.closed:
		return errClosed()
	default:
	}
	if err := ctx.Err(); err != nil {
		return canceled(err)
	}
	return nil
}

func (d *dir) file(key Key) string {
	hex := key.ID.Encoded()
	return filepath.Join(d.path, string(key.Kind), hex[:2], hex)
}

// Get implements Store.
func (d *dir) Get(ctx context.Context, key Key) (*Record, error) {
	if err := cmp.Or(key.Validate(), d.usable(ctx)); err != nil {
		return nil, err
	}
	b, used, err := readSmall(d.file(key), MaxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, absent(key)
	} else if err != nil {
		return nil, diskError(err, "dedup record "+key.String())
	}
	r, err := Decode(key, b)
	if now := time.Now(); err == nil && now.Sub(used) > TimeGrain/2 {
		_ = os.Chtimes(d.file(key), now, now) // a record that looks older than it is is pruned earlier, no more
	}
	return r, err
}

// readSmall reads a file of at most limit bytes whole, one more if it is larger.
func readSmall(path string, limit int64) ([]byte, time.Time, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	return b, fi.ModTime(), err
}

// Put implements Store.
func (d *dir) Put(ctx context.Context, rec *Record) error {
	b, err := Encode(rec)
	if err == nil {
		err = d.usable(ctx)
	}
	if err != nil {
		return err
	}
	return d.write(d.file(rec.Key), b)
}

// write puts a file in its place as a whole.
func (d *dir) write(path string, b []byte) error {
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return diskError(err, "dedup store")
	}
	aside := filepath.Join(parent, asidePrefix+rand.Text())
	err := os.WriteFile(aside, b, 0o600)
	if err == nil {
		err = os.Rename(aside, path)
	}
	if err == nil {
		return nil
	}
	os.Remove(aside)
	if old, rerr := os.ReadFile(path); rerr == nil && bytes.Equal(old, b) {
		return nil // windows does not replace a file that somebody reads, and this one says the same
	}
	return diskError(err, "dedup store")
}

// Drop implements Store.
func (d *dir) Drop(ctx context.Context, key Key) error {
	if err := cmp.Or(key.Validate(), d.usable(ctx)); err != nil {
		return err
	}
	return remove(d.file(key))
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError(err, "dedup store")
	}
	return nil
}

// List implements Store.
func (d *dir) List(ctx context.Context, fn func(Entry) error) error {
	for _, kind := range []Kind{KindLayer, KindManifest} {
		err := d.walk(ctx, string(kind), func(path string, fi fs.FileInfo) error {
			key := Key{Kind: kind, ID: digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(path))}
			if key.Validate() != nil {
				return nil
			}
			b, used, err := readSmall(path, MaxRecord)
			if err != nil {
				return nil // gone, or not to be read
			}
			r, err := Decode(key, b)
			if err != nil {
				return nil
			}
			return fn(Entry{Record: r, Used: used})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// walk calls fn for all files two levels below a directory of the store, in the order of their names.
func (d *dir) walk(ctx context.Context, name string, fn func(path string, fi fs.FileInfo) error) error {
	if err := d.usable(ctx); err != nil {
		return err
	}
	groups, err := os.ReadDir(filepath.Join(d.path, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError(err, "dedup store")
	}
	for _, g := range groups {
		files, err := os.ReadDir(filepath.Join(d.path, name, g.Name()))
		if err != nil {
			continue // not ours, or gone
		}
		for _, f := range files {
			if err := d.usable(ctx); err != nil {
				return err
			}
			fi, err := f.Info()
			if err != nil || !fi.Mode().IsRegular() {
				continue
			}
			if err := fn(filepath.Join(d.path, name, g.Name(), f.Name()), fi); err != nil {
				return err
			}
		}
	}
	return nil
}

// Prune implements Store. It also removes what killed writers left.
func (d *dir) Prune(ctx context.Context, before time.Time) (int, error) {
	n := 0
	for _, name := range []string{string(KindLayer), string(KindManifest), placesDir} {
		err := d.walk(ctx, name, func(path string, fi fs.FileInfo) error {
			switch base := filepath.Base(path); {
			case strings.HasPrefix(base, asidePrefix):
				if time.Since(fi.ModTime()) > time.Hour {
					return remove(path)
				}
				return nil
			case name == placesDir:
				return d.prunePlaces(path, before)
			case !fi.ModTime().Before(before):
				return nil
			}
			n++
			return remove(path)
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Close implements Store.
func (d *dir) Close() error {
	select {
	case <-d.closed:
	default:
		close(d.closed)
	}
	return nil
}
