package transport

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

func openDockerTarget(ref Reference) (Target, error) {
	return newArchiveTarget(ref, writeDockerArchive)
}

// writeDockerArchive writes what docker load reads: the config, the layers and manifest.json. docker unpacks layers
// itself, so all must be tar files, compressed or not; an archive holds no index.
func writeDockerArchive(ctx context.Context, t *archiveTarget, w *tarWriter, root ocispec.Descriptor) error {
	if !images.IsManifestType(root.MediaType) {
		return abi.Errorf(abi.ErrUnsupported, "a docker archive holds an image of one platform, not a document of type %s", root.MediaType)
	}
	b, err := t.staged(root.Digest)
	if err != nil {
		return err
	}
	f, err := os.Open(b.path)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := readAll(f, "manifest "+root.Digest.String())
	if err != nil {
		return err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return abi.Errorf(abi.ErrCorrupt, "manifest %s: %w", root.Digest, err)
	}
	return writeDockerImage(ctx, t, w, m)
}

// snapshotPrefix begins the annotations of layers that containerd hands to snapshotters: what lazy formats are known and read by.
const snapshotPrefix = "containerd.io/snapshot/"

func writeDockerImage(ctx context.Context, t *archiveTarget, w *tarWriter, m ocispec.Manifest) error {
	if !images.IsConfigType(m.Config.MediaType) {
		return abi.Errorf(abi.ErrUnsupported, "a docker archive holds images only, not a config of type %s", m.Config.MediaType)
	}
	item := dockerItem{Config: m.Config.Digest.Encoded() + ".json", RepoTags: []string{}, Layers: []string{}}
	if t.ref.Tag != "" {
		item.RepoTags = append(item.RepoTags, t.ref.Tag)
	}
	members := []struct {
		name string
		desc ocispec.Descriptor
	}{{item.Config, m.Config}}
	for _, l := range m.Layers {
		if !isTarLayer(l.MediaType) {
			return abi.Errorf(abi.ErrUnsupported, "a docker archive holds tar layers only, not %s (layer %s)", l.MediaType, l.Digest)
		}
		for _, key := range slices.Sorted(maps.Keys(l.Annotations)) {
			if strings.HasPrefix(key, snapshotPrefix) {
				return abi.Errorf(abi.ErrUnsupported, "a docker archive has no place for annotations, and layer %s could not be read without %s: use oci-archive:", l.Digest, key)
			}
		}
		name := l.Digest.Encoded() + ".tar"
		item.Layers = append(item.Layers, name)
		members = append(members, struct {
			name string
			desc ocispec.Descriptor
		}{name, l})
	}
	list, err := json.Marshal([]dockerItem{item})
	if err != nil {
		return abi.Errorf(abi.ErrInternal, "encode manifest.json: %w", err)
	}
	if len(list) > cas.MaxDocument {
		return abi.Errorf(abi.ErrLimit, "manifest.json would be larger than %d bytes", cas.MaxDocument)
	}
	if err := w.document("manifest.json", list); err != nil {
		return err
	}
	written := map[string]bool{}
	for _, x := range members {
		if written[x.name] {
			continue
		}
		written[x.name] = true
		b, err := t.staged(x.desc.Digest)
		if err != nil {
			return err
		}
		if err := w.blob(ctx, x.name, b); err != nil {
			return err
		}
	}
	return nil
}

// isTarLayer tells layers that are tar files, plain or compressed.
func isTarLayer(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		images.MediaTypeDockerSchema2Layer, images.MediaTypeDockerSchema2LayerGzip, images.MediaTypeDockerSchema2LayerZstd:
		return true
	}
	return false
}
