package transport

import (
	"context"
	"io"
	"net/http"
	"net/url"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	orasregistry "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/convhost/convhost/abi"
)

// Mounter is a Target that can take over blobs from other repositories of its registry.
type Mounter interface {
	Target

	// Mount makes a blob of another repository one of the target's, without sending its bytes. False: the registry cannot
	// or does not want to, or the blob is not there; Push it then. Errors are those of Push. It may be repeated.
	Mount(ctx context.Context, desc ocispec.Descriptor, from string) (bool, error)
}

// Mount implements Mounter.
func (t *registryTarget) Mount(ctx context.Context, desc ocispec.Descriptor, from string) (bool, error) {
	if err := t.usable(); err != nil {
		return false, err
	}
	if err := checkDescriptor(desc); err != nil {
		return false, err
	}
	source := orasregistry.Reference{Registry: t.repo.Reference.Registry, Repository: from}
	if err := source.ValidateRepository(); err != nil {
		return false, abi.Errorf(abi.ErrInvalid, "%s: mount from %q: %w", t.ref, from, err)
	}
	ok, err := t.mountFrom(ctx, desc, source)
	return ok, t.fail(err, "mount "+desc.Digest.String()+" from "+from)
}

// mountFrom asks for a mount. A registry that does not do it opens an upload, which is ended again.
func (t *registryTarget) mountFrom(ctx context.Context, desc ocispec.Descriptor, from orasregistry.Reference) (bool, error) {
	ctx = auth.AppendRepositoryScope(ctx, t.repo.Reference, auth.ActionPull, auth.ActionPush)
	ctx = auth.AppendRepositoryScope(ctx, from, auth.ActionPull)
	at := url.URL{Scheme: "https", Host: t.repo.Reference.Host(), Path: "/v2/" + t.repo.Reference.Repository + "/blobs/uploads/",
		RawQuery: url.Values{"mount": {desc.Digest.String()}, "from": {from.Repository}}.Encode()}
	if t.plain {
		at.Scheme = "http"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), nil)
	if err != nil {
		return false, err
	}
	resp, err := t.repo.Client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // lets the connection be used again
	switch resp.StatusCode {
	case http.StatusCreated:
		return true, nil
	case http.StatusAccepted:
		t.endUpload(ctx, req, resp)
		return false, nil
	}
	return false, &errcode.ErrorResponse{Method: req.Method, URL: req.URL, StatusCode: resp.StatusCode}
}

// endUpload gives up the upload that a registry opened. That it fails harms nobody: registries forget uploads after a while.
func (t *registryTarget) endUpload(ctx context.Context, req *http.Request, resp *http.Response) {
	at, err := resp.Location()
	if err != nil || at.Host != req.URL.Host || at.Scheme != req.URL.Scheme {
		return // credentials go to no other place
	}
	del, err := http.NewRequestWithContext(ctx, http.MethodDelete, at.String(), nil)
	if err != nil {
		return
	}
	if resp, err := t.repo.Client.Do(del); err == nil {
		resp.Body.Close()
	}
}
