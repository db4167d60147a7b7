package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

// maxDockerLayers is the most layers an image may have: four times what docker itself mounts.
const maxDockerLayers = 512

// dockerItem is an element of manifest.json in an archive of docker save.
type dockerItem struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// dockerArchive is an opened archive of docker save. It has no manifests: one is made for the item that the reference
// means, with digests computed from the bytes.
type dockerArchive struct {
	tar   *tarFile
	ref   Reference
	items []dockerItem

	root  ocispec.Descriptor
	blobs map[digest.Digest]part
}

// openDockerSource reads manifest.json, and every layer of the chosen image once, for its digest.
func openDockerSource(ctx context.Context, ref Reference, opts Options) (Source, error) {
	t, err := openTar(ctx, ref.Path, opts)
	if err != nil {
		return nil, wrap(err, ref.String())
	}
	a := &dockerArchive{tar: t, ref: ref, blobs: map[digest.Digest]part{}}
	if err := a.load(ctx); err != nil {
		t.close()
		return nil, wrap(err, ref.String())
	}
	return &atRest{
		resolve: func() (ocispec.Descriptor, error) {
			if a.root.Digest == "" {
				return ocispec.Descriptor{}, a.missing()
			}
			return a.root, nil
		},
		tags: func() ([]string, error) { return a.tags(), nil },
		open: func(d digest.Digest) (cas.ReaderAt, error) {
			p, ok := a.blobs[d]
			if !ok {
				return nil, abi.Errorf(abi.ErrNotFound, "%s: no blob %s", ref, d)
			}
			return part{io.NewSectionReader(p, 0, p.Size())}, nil
		},
		close: t.close,
	}, nil
}

func (a *dockerArchive) load(ctx context.Context) error {
	b, err := a.tar.readAll("manifest.json")
	if err != nil {
		return wrap(err, "not an archive of docker save")
	}
	if err := json.Unmarshal(b, &a.items); err != nil {
		return abi.Errorf(abi.ErrCorrupt, "manifest.json: %w", err)
	}
	item, ok := a.choose()
	if !ok {
		return nil // Resolve says so; Tags still works
	}
	return a.synthesise(ctx, item)
}

// choose finds the item that the reference means, if it is exactly one.
func (a *dockerArchive) choose() (dockerItem, bool) {
	if a.ref.Index >= 0 || a.ref.Tag == "" {
		i := max(a.ref.Index, 0)
		if i >= len(a.items) || a.ref.Index < 0 && len(a.items) != 1 {
			return dockerItem{}, false
		}
		return a.items[i], true
	}
	for _, item := range a.items {
		for _, tag := range item.RepoTags {
			if normalizeTag(tag) == a.ref.Tag {
				return item, true
			}
		}
	}
	return dockerItem{}, false
}

func (a *dockerArchive) missing() error {
	tags := a.tags()
	hint := "it has the tags " + strings.Join(tags[:min(len(tags), 20)], ", ")
	if len(tags) == 0 {
		hint = fmt.Sprintf("it has %d images without a tag", len(a.items))
	}
	if a.ref.Tag == "" && a.ref.Index < 0 && len(a.items) > 1 {
		return abi.Errorf(abi.ErrInvalid, "%s: the archive has several images; %s", a.ref, hint)
	}
	return abi.Errorf(abi.ErrNotFound, "%s: no such image; %s", a.ref, hint)
}

func (a *dockerArchive) tags() []string {
	var out []string
	for _, item := range a.items {
		out = append(out, item.RepoTags...)
	}
	return out
}

func normalizeTag(s string) string {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return s
	}
	return reference.TagNameOnly(named).String()
}

// synthesise makes the manifest of one item and registers its blobs.
func (a *dockerArchive) synthesise(ctx context.Context, item dockerItem) error {
	if len(item.Layers) > maxDockerLayers {
		return abi.Errorf(abi.ErrLimit, "the image has %d layers, at most %d are read", len(item.Layers), maxDockerLayers)
	}
	config, err := a.tar.readAll(item.Config)
	if err != nil {
		return wrap(err, "image config")
	}
	if named := strings.TrimSuffix(path.Base(item.Config), ".json"); len(named) == 64 && named != digest.FromBytes(config).Encoded() {
		return abi.Errorf(abi.ErrDigest, "image config %s: the bytes have the digest %s", item.Config, digest.FromBytes(config))
	}
	m := ocispec.Manifest{MediaType: images.MediaTypeDockerSchema2Manifest, Layers: []ocispec.Descriptor{},
		Config: a.document(images.MediaTypeDockerSchema2Config, config)}
	m.SchemaVersion = 2
	seen := map[string]ocispec.Descriptor{}
	for _, name := range item.Layers {
		d, ok := seen[memberName(name)]
		if !ok {
			if d, err = a.layer(ctx, name); err != nil {
				return wrap(err, "layer "+name)
			}
			seen[memberName(name)] = d
		}
		m.Layers = append(m.Layers, d)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return abi.Errorf(abi.ErrInternal, "encode manifest: %w", err)
	}
	a.root = a.document(m.MediaType, b)
	return nil
}

func (a *dockerArchive) document(mediaType string, b []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	a.blobs[d.Digest] = part{io.NewSectionReader(bytes.NewReader(b), 0, d.Size)}
	return d
}

// layer digests a layer as it is stored: usually a plain tar, in newer archives whatever the store had.
func (a *dockerArchive) layer(ctx context.Context, name string) (ocispec.Descriptor, error) {
	p, err := a.tar.open(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	magic := make([]byte, 4)
	n, err := p.ReadAt(magic, 0)
	if err != nil && err != io.EOF {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: images.MediaTypeDockerSchema2Layer, Size: p.Size()}
	switch {
	case bytes.HasPrefix(magic[:n], []byte{0x1f, 0x8b}):
		d.MediaType = images.MediaTypeDockerSchema2LayerGzip
	case decompressor(magic[:n]) != nil:
		d.MediaType = images.MediaTypeDockerSchema2LayerZstd
	}
	h := digest.Canonical.Digester()
	body := io.NewSectionReader(p, 0, p.Size())
	k, err := io.Copy(h.Hash(), &ctxReader{ctx: ctx, ReadCloser: io.NopCloser(body)})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if k != d.Size {
		return ocispec.Descriptor{}, abi.Errorf(abi.ErrTruncated, "it ends after %d of %d bytes", k, d.Size)
	}
	d.Digest = h.Digest()
	if base := path.Base(memberName(name)); strings.Contains("/"+memberName(name), "/blobs/sha256/") && base != d.Digest.Encoded() {
		return ocispec.Descriptor{}, abi.Errorf(abi.ErrDigest, "the bytes have the digest %s", d.Digest)
	}
	a.blobs[d.Digest] = p
	return d, nil
}
