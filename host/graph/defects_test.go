package graph_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/graph/graphtest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Defects that were proven in another converter and must not come back here. Those that the tests of the rules hold
// already: null manifests (R9), Docker's zstd layers (R10), attestations (R12), labels (R17), diff_ids by position (R6),
// unknown fields (R2), absent foreign layers (R16).

// TestDefectStaleData: index entry and config descriptor embed the old documents.
func TestDefectStaleData(t *testing.T) {
	s := graphtest.NewStore()
	m := load(t, s, twoLayers(s, ocispec.Platform{})).Root
	config := m.Manifest.Config
	config.Data = s.Get(config.Digest)
	raw := must[[]byte](t)(graph.EditManifest(m.Raw, graph.ManifestChange{Config: &config}))
	img := s.Put(ociManifest, raw)
	img.Data, img.Platform = raw, m.Platform
	out, g := rewrite(t, s, s.Index(img), all, graph.RewriteOptions{}, lazy)
	n := g.Root.Children[0]
	if n.Desc.Data != nil || n.Manifest.Config.Data != nil {
		t.Errorf("data was carried over: %+v", n.Desc)
	}
	for _, d := range out.Documents {
		if strings.Contains(string(d.Raw), `"data"`) {
			t.Errorf("data in %s", d.Raw)
		}
	}
}

// TestDefectUnboundedAndRepeated: bounded number of conversions at once, each digest once.
func TestDefectUnboundedAndRepeated(t *testing.T) {
	s := graphtest.NewStore()
	var entries []ocispec.Descriptor
	for i := range 12 {
		d := twoLayers(s, ocispec.Platform{OS: "linux", Architecture: fmt.Sprint("arch", i)})
		entries = append(entries, d, d, d)
	}
	var now, most, calls atomic.Int32
	rewrite(t, s, s.Index(entries...), all, graph.RewriteOptions{Parallel: 3}, func(ctx context.Context, m *graph.Node) (*graph.Conversion, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		calls.Add(1)
		time.Sleep(time.Millisecond)
		return lazy(ctx, m)
	})
	if most.Load() > 3 || calls.Load() != 12 {
		t.Errorf("%d at once, %d calls", most.Load(), calls.Load())
	}
}

// TestDefectFeaturesOnAttestations: os.features must not appear on attestations and artifacts, nor their configs change.
func TestDefectFeaturesOnAttestations(t *testing.T) {
	s := graphtest.NewStore()
	amd := twoLayers(s, ocispec.Platform{})
	att, sbom := s.Attestation(amd), s.AttestationArtifact(amd)
	_, g := rewrite(t, s, s.Index(amd, att, sbom), graph.SelectOptions{All: true, Attestations: graph.KeepAttestations}, graph.RewriteOptions{}, lazy)
	c := g.Root.Children
	if len(c) != 3 || c[1].Desc.Digest != att.Digest || c[2].Desc.Digest != sbom.Digest ||
		len(c[1].Platform.OSFeatures)+len(c[2].Platform.OSFeatures) != 0 || len(c[0].Platform.OSFeatures) != 1 {
		t.Errorf("entries are %+v", g.Root.Index.Manifests)
	}
}

// TestDefectFilterMatchesNothing is an error that says what there is, not an index with null.
func TestDefectFilterMatchesNothing(t *testing.T) {
	s := graphtest.NewStore()
	g := load(t, s, s.Index(twoLayers(s, ocispec.Platform{})))
	_, err := graph.Select(g, graph.SelectOptions{Platforms: []ocispec.Platform{arm64()}})
	if err == nil || !strings.Contains(err.Error(), "no image for linux/arm64/v8; there are linux/amd64") {
		t.Errorf("error %v", err)
	}
}
