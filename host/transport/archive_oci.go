package transport

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

func openArchiveSource(ctx context.Context, ref Reference, opts Options) (Source, error) {
	t, err := openTar(ctx, ref.Path, opts)
	if err != nil {
		return nil, wrap(err, ref.String())
	}
	b, err := t.readAll("index.json")
	if err != nil {
		t.close()
		return nil, wrap(err, ref.String()+": not an OCI image archive")
	}
	idx, err := parseLayoutIndex(ref.Path, b)
	if err != nil {
		t.close()
		return nil, err
	}
	open := func(d digest.Digest) (cas.ReaderAt, error) {
		p, err := t.open("blobs/" + d.Algorithm().String() + "/" + d.Encoded())
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	return &atRest{
		resolve: func() (ocispec.Descriptor, error) { return idx.find(ref, open) },
		tags:    idx.tags,
		open:    open,
		close:   t.close,
	}, nil
}

// archiveTarget writes a tar file: blobs are staged beside it, Publish writes the archive and renames it into place,
// replacing what was there. The bytes depend on the image and the tag only.
type archiveTarget struct {
	*staging
	ref   Reference
	write func(ctx context.Context, t *archiveTarget, w *tarWriter, root ocispec.Descriptor) error
}

func openArchiveTarget(ref Reference) (Target, error) { return newArchiveTarget(ref, writeOCIArchive) }

func newArchiveTarget(ref Reference, write func(context.Context, *archiveTarget, *tarWriter, ocispec.Descriptor) error) (Target, error) {
	if fi, err := os.Stat(ref.Path); err == nil && !fi.Mode().IsRegular() {
		return nil, abi.Errorf(abi.ErrExists, "%s: the path exists and is not a file", ref)
	}
	s, err := newStaging(filepath.Dir(ref.Path))
	if err != nil {
		return nil, wrap(err, ref.String())
	}
	return &archiveTarget{staging: s, ref: ref, write: write}, nil
}

func (t *archiveTarget) Has(_ context.Context, desc ocispec.Descriptor) (bool, error) {
	if err := t.usable(); err != nil {
		return false, err
	}
	return t.has(desc)
}

func (t *archiveTarget) Push(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	return t.push(ctx, desc, open)
}

func (t *archiveTarget) Publish(ctx context.Context, root ocispec.Descriptor) error {
	if ok, err := t.Has(ctx, root); err != nil {
		return err
	} else if !ok {
		return abi.Errorf(abi.ErrNotFound, "publish %s: the root %s was not pushed", t.ref, root.Digest)
	}
	aside := filepath.Join(t.scratch.Dir, "archive-"+rand.Text())
	err := t.writeAside(ctx, aside, root)
	if err == nil {
		err = os.Rename(aside, t.ref.Path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(t.ref.Path))
	}
	if err != nil {
		os.Remove(aside)
	}
	return wrap(err, "publish "+t.ref.String())
}

func (t *archiveTarget) Close() error { return t.staging.close() }

func (t *archiveTarget) writeAside(ctx context.Context, aside string, root ocispec.Descriptor) error {
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	w := &tarWriter{tar: tar.NewWriter(f)}
	err = t.write(ctx, t, w, root)
	if err == nil {
		err = w.tar.Close()
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// staged returns a pushed blob.
func (t *archiveTarget) staged(d digest.Digest) (stagedBlob, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, ok := t.blobs[d]
	if !ok {
		return b, abi.Errorf(abi.ErrNotFound, "blob %s was not pushed", d)
	}
	return b, nil
}

func writeOCIArchive(ctx context.Context, t *archiveTarget, w *tarWriter, root ocispec.Descriptor) error {
	index, err := addToIndex(t.ref.Path, nil, root, t.ref.Tag)
	if err != nil {
		return err
	}
	if err := w.document("oci-layout", []byte(layoutJSON)); err != nil {
		return err
	}
	if err := w.document("index.json", index); err != nil {
		return err
	}
	t.mu.Lock()
	list := make([]stagedBlob, 0, len(t.blobs))
	for _, b := range t.blobs {
		list = append(list, b)
	}
	t.mu.Unlock()
	slices.SortFunc(list, func(a, b stagedBlob) int { return cmp.Compare(a.desc.Digest, b.desc.Digest) })
	for _, b := range list {
		if err := w.blob(ctx, "blobs/"+b.desc.Digest.Algorithm().String()+"/"+b.desc.Digest.Encoded(), b); err != nil {
			return err
		}
	}
	return nil
}

// tarWriter writes members without owner and time.
type tarWriter struct {
	tar *tar.Writer
}

func (w *tarWriter) header(name string, size int64) error {
	return w.tar.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
}

func (w *tarWriter) document(name string, b []byte) error {
	if err := w.header(name, int64(len(b))); err != nil {
		return err
	}
	_, err := w.tar.Write(b)
	return err
}

func (w *tarWriter) blob(ctx context.Context, name string, b stagedBlob) error {
	f, err := openRegular(b.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.header(name, b.desc.Size); err != nil {
		return err
	}
	_, err = io.Copy(w.tar, Verify(&ctxReader{ctx: ctx, ReadCloser: BlobReader(f)}, b.desc))
	return err
}
