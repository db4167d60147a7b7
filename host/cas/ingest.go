package cas

import (
	"context"
	"crypto/rand"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
)

// Ingest implements Store.
func (s *embedded) Ingest(ctx context.Context, ref string) (Writer, error) {
	if ref == "" {
		ref = "ingest-" + rand.Text()
	}
	nctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	w, err := s.blobs.Writer(nctx, content.WithRef(ref))
	if err != nil {
		return nil, wrap(err, "begin ingest "+ref)
	}
	iw := &ingest{s: s, w: w, ref: ref, ctx: context.WithoutCancel(nctx)}
	if st, err := w.Status(); err != nil || st.Offset > 0 {
		if err = iw.Truncate(); err != nil {
			w.Close()
			return nil, wrap(err, "begin ingest "+ref)
		}
	}
	return iw, nil
}

// ingest is a Writer over containerd's.
type ingest struct {
	s    *embedded
	w    content.Writer
	ref  string
	ctx  context.Context // with namespace and lease, without cancellation: for Close
	n    int64
	err  error // the first one sticks
	done bool  // committed or closed
}

func (w *ingest) Write(p []byte) (int, error) {
	if err := w.usable(); err != nil {
		return 0, err
	}
	n, err := w.w.Write(p)
	w.n += int64(n)
	w.err = wrap(err, "write ingest "+w.ref)
	return n, w.err
}

func (w *ingest) Truncate() error {
	if w.done {
		return w.usable()
	}
	w.err = wrap(w.w.Truncate(0), "truncate ingest "+w.ref)
	w.n = 0
	return w.err
}

func (w *ingest) Digest() digest.Digest { return w.w.Digest() }

func (w *ingest) usable() error {
	if w.done {
		return abi.Errorf(abi.ErrInvalid, "ingest %s is finished", w.ref)
	}
	return w.err
}

func (w *ingest) Commit(ctx context.Context, size int64, want digest.Digest, labels map[string]string) (Info, error) {
	if err := w.usable(); err != nil {
		return Info{}, err
	}
	if want != "" {
		if err := validate(want); err != nil {
			return Info{}, err
		}
	}
	if size >= 0 && size != w.n {
		err := abi.Errorf(abi.ErrDigest, "blob %s has %d bytes, its descriptor says %d", want, w.n, size)
		w.drop()
		return Info{}, err
	}
	nctx, end, err := w.s.begin(ctx)
	if err != nil {
		return Info{}, err
	}
	defer end()
	err = w.w.Commit(nctx, w.n, want, content.WithLabels(labels))
	switch {
	case errdefs.IsAlreadyExists(err): // then the labels were not taken
		err = w.s.setLabels(nctx, w.w.Digest(), labels)
	case errdefs.IsFailedPrecondition(err):
		err = abi.Errorf(abi.ErrDigest, "blob %s: the bytes have the digest %s", want, w.w.Digest())
	}
	if err != nil {
		w.abort()
		return Info{}, wrap(err, "commit ingest "+w.ref)
	}
	w.done = true
	w.w.Close()
	got := want
	if got == "" {
		got = w.w.Digest()
	}
	info, err := w.s.blobs.Info(nctx, got)
	if err != nil {
		return Info{}, blobError(err, got)
	}
	return fromContainerd(info), nil
}

func (w *ingest) Close() error {
	if w.done {
		return nil
	}
	return w.drop()
}

// drop is abort for those who do not hold the store's mutex. With a closed store only the file is closed: what is left
// of the ingest is dropped when the store is opened again.
func (w *ingest) drop() error {
	_, end, err := w.s.begin(w.ctx)
	if err != nil {
		w.done = true
		return wrap(w.w.Close(), "close ingest "+w.ref)
	}
	defer end()
	return w.abort()
}

func (w *ingest) abort() error {
	w.done = true
	err := w.w.Close()
	if aerr := w.s.blobs.Abort(w.ctx, w.ref); err == nil && !errdefs.IsNotFound(aerr) {
		err = aerr
	}
	return wrap(err, "drop ingest "+w.ref)
}
