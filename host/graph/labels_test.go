package graph_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/convhost/convhost/host/graph"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestLabelsAsContainerd holds the names of the labels against containerd's own.
func TestLabelsAsContainerd(t *testing.T) {
	for _, mediaType := range []string{ociIndex, ociManifest, ociGzip, ocispec.MediaTypeImageLayer, graph.DockerList, graph.DockerManifest,
		graph.DockerLayer, graph.DockerLayerGzip, graph.DockerLayerZstd, graph.DockerForeign, graph.DockerForeignGzip,
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
		"application/vnd.oci.image.layer.nydus.blob.v1", "application/vnd.erofs.layer.v1", graph.InToto, ocispec.MediaTypeEmptyJSON, "a/b"} {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(mediaType), Size: 1}
		raw, err := json.Marshal(ocispec.Index{MediaType: ociIndex, Manifests: []ocispec.Descriptor{d, d}})
		if err != nil {
			t.Fatal(err)
		}
		raw = []byte(strings.Replace(string(raw), `"schemaVersion":0`, `"schemaVersion":2`, 1))
		prefix := images.ChildGCLabels(d)[0]
		want := []string{prefix + "0", prefix + "1"}
		if got := slices.Sorted(maps.Keys(must[map[string]string](t)(graph.ChildLabels(ociIndex, raw)))); !slices.Equal(got, want) {
			t.Errorf("%s: labels %v, want %v", mediaType, got, want)
		}
	}
}
