package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	orasregistry "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

// maxTags is how many tags of a repository are listed, in pages of what the registry likes.
const (
	maxTags     = 1000
	maxTagPages = 100
)

// repository is oras' client of our repository: it keeps the index of referrers of manifests with a subject, also
// where the registry does not.
func (r *registry) repository() *remote.Repository {
	client := &auth.Client{Client: r.client, Cache: auth.NewCache(), Credential: r.credential,
		Header: http.Header{"User-Agent": {r.opts.userAgent()}}}
	return &remote.Repository{
		Client:          client,
		Reference:       orasregistry.Reference{Registry: r.ref.Host, Repository: r.ref.Repo},
		PlainHTTP:       r.plain,
		SkipReferrersGC: true, // deleting takes permissions that pushing does not have
		TagListMaxPages: maxTagPages,
	}
}

var errEnough = errors.New("enough")

func (r *registry) tags(ctx context.Context) ([]string, error) {
	var out []string
	err := r.repository().Tags(ctx, "", func(tags []string) error {
		out = append(out, tags...)
		if len(out) >= maxTags {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, r.fail(err, "list tags")
	}
	slices.Sort(out)
	return out[:min(len(out), maxTags)], nil
}

// registryTarget pushes.
type registryTarget struct {
	*registry
	repo *remote.Repository

	mu     sync.Mutex
	closed bool
}

func openRegistryTarget(ctx context.Context, ref Reference, opts Options) (Target, error) {
	r, err := newRegistry(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	return &registryTarget{registry: r, repo: r.repository()}, nil
}

func (t *registryTarget) usable() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return abi.Errorf(abi.ErrInvalid, "the target is closed")
	}
	return nil
}

func isDocument(desc ocispec.Descriptor) bool {
	return images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType)
}

// Has asks the registry, which answers for the repository.
func (t *registryTarget) Has(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if err := t.usable(); err != nil {
		return false, err
	}
	if err := checkDescriptor(desc); err != nil {
		return false, err
	}
	ok, err := t.exists(ctx, desc)
	return ok, t.fail(err, "ask for "+desc.Digest.String())
}

func (t *registryTarget) exists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if isDocument(desc) {
		return t.repo.Manifests().Exists(ctx, desc)
	}
	return t.repo.Blobs().Exists(ctx, desc)
}

func (t *registryTarget) Push(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	if err := t.usable(); err != nil {
		return err
	}
	if err := checkDescriptor(desc); err != nil {
		return err
	}
	doing := "push " + desc.Digest.String()
	if isDocument(desc) {
		return t.fail(t.pushDocument(ctx, desc, open), doing)
	}
	return t.fail(again(ctx, t.opts, doing, final, func(attempt int) error {
		// After a failure the registry may have the blob all the same.
		if ok, err := t.exists(ctx, desc); err == nil && ok {
			return nil
		}
		if attempt == 0 && t.mount(ctx, desc) {
			return nil
		}
		return t.upload(ctx, desc, open)
	}), doing)
}

// pushDocument sends a manifest or index. Its bytes can be sent again, so the client does the retries.
func (t *registryTarget) pushDocument(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	if desc.Size > cas.MaxDocument {
		return abi.Errorf(abi.ErrLimit, "the document has %d bytes, registries take %d", desc.Size, cas.MaxDocument)
	}
	rc, err := open()
	if err != nil {
		return err
	}
	defer rc.Close()
	b, err := readAll(Verify(rc, desc), "document "+desc.Digest.String())
	if err != nil {
		return err
	}
	return t.repo.Manifests().Push(ctx, desc, bytes.NewReader(b))
}

// upload sends a blob once.
func (t *registryTarget) upload(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	rc, err := open()
	if err != nil {
		return &sourceError{err}
	}
	defer rc.Close()
	stall := t.opts.stall()
	pctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(answerTimeout, cancel)
	defer timer.Stop()
	body := &watched{r: Verify(rc, desc), progress: func(end bool) {
		if end {
			timer.Reset(answerTimeout)
		} else {
			timer.Reset(stall)
		}
	}}
	err = t.repo.Blobs().Push(pctx, desc, body)
	if err != nil && pctx.Err() != nil && ctx.Err() == nil {
		err = abi.Errorf(abi.ErrIO, "the registry took no byte for %v", stall)
	}
	if serr := body.failure(); serr != nil {
		return &sourceError{serr} // what our side did wrong explains what the other side says
	}
	return err
}

// mount tries to take the blob from another repository of the registry.
func (t *registryTarget) mount(ctx context.Context, desc ocispec.Descriptor) bool {
	for _, from := range t.opts.MountFrom {
		ok, err := t.Mount(ctx, desc, from)
		if ok {
			return true
		}
		if err != nil {
			t.opts.log().Debug("mount failed", "blob", desc.Digest, "from", from, "error", err)
		}
	}
	return false
}

// sourceError is a failure of what is pushed, not of the registry.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// final tells errors that another try does not cure.
func final(err error) bool {
	var src *sourceError
	var c abi.Class
	if errors.As(err, &src) || denied(err) || errors.As(err, &c) && c != abi.ErrIO {
		return true
	}
	switch statusOf(err) {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge:
		return true
	}
	return false
}

// watched remembers why a stream failed. net/http reads from its own goroutine and may do so for a moment after the
// request returned.
type watched struct {
	mu       sync.Mutex
	r        io.Reader
	err      error
	progress func(end bool) // called before (true) and after every read, true also after the last
}

func (w *watched) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.progress(true) // a slow source is not a slow registry
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	w.progress(err != nil)
	return n, err
}

// failure also ends the reading, so that the stream can be closed.
func (w *watched) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.r, w.progress = bytes.NewReader(nil), func(bool) {}
	return w.err
}

func (t *registryTarget) Publish(ctx context.Context, root ocispec.Descriptor) error {
	if err := t.usable(); err != nil {
		return err
	}
	if err := checkDescriptor(root); err != nil {
		return err
	}
	if !isDocument(root) {
		return abi.Errorf(abi.ErrInvalid, "%s: publish: %s is neither a manifest nor an index", t.ref, root.MediaType)
	}
	if t.ref.Digest != "" && t.ref.Digest != root.Digest {
		return abi.Errorf(abi.ErrInvalid, "%s: publish: the root is %s", t.ref, root.Digest)
	}
	if ok, err := t.Has(ctx, root); err != nil {
		return err
	} else if !ok {
		return abi.Errorf(abi.ErrNotFound, "%s: publish: the root %s was not pushed", t.ref, root.Digest)
	}
	if t.ref.Tag == "" {
		return nil // its digest is its name
	}
	rc, err := t.repo.Manifests().Fetch(ctx, root)
	if err != nil {
		return t.fail(err, "publish")
	}
	defer rc.Close()
	b, err := readAll(Verify(rc, root), "document "+root.Digest.String())
	if err != nil {
		return t.fail(err, "publish")
	}
	return t.fail(t.repo.Manifests().PushReference(ctx, root, bytes.NewReader(b), t.ref.Tag), "publish")
}

func (t *registryTarget) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.client.CloseIdleConnections()
	return nil
}
