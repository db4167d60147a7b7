package graph_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/platforms"
	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const lazyLayer = "application/vnd.oci.image.layer.lazy.v1"

// lazy converts as a format does that has one blob a layer and one layer on top: diff_ids of blobs are their own digests.
func lazy(_ context.Context, m *graph.Node) (*graph.Conversion, error) {
	c := &graph.Conversion{OSFeatures: []string{"lazy.v1"}, EntryAnnotations: map[string]string{"lazy": "yes"}}
	for i, l := range m.Layers() {
		if l.Kind == graph.KindForeign {
			c.Manifest.Layers = append(c.Manifest.Layers, l.Desc)
			c.Config.DiffIDs = append(c.Config.DiffIDs, m.ConfigNode().Config.RootFS.DiffIDs[i])
			continue
		}
		b := blob(lazyLayer, fmt.Sprintf("%d %s", i, l.Desc.Digest))
		d := graph.NewDescriptor(l.Desc, lazyLayer, b.Digest, b.Size)
		d.Annotations = map[string]string{"containerd.io/snapshot/lazy-blob": "true"}
		c.Manifest.Layers = append(c.Manifest.Layers, d)
		c.Config.DiffIDs = append(c.Config.DiffIDs, d.Digest)
	}
	boot := blob(ociGzip, "boot "+m.Desc.Digest.String())
	boot.Annotations = map[string]string{"containerd.io/snapshot/lazy-boot": "true"}
	c.Manifest.Layers = append(c.Manifest.Layers, boot)
	c.Config.DiffIDs = append(c.Config.DiffIDs, digest.FromString("boot tar "+m.Desc.Digest.String()))
	c.Config.History.Append = []ocispec.History{{CreatedBy: "Lazy Converter", Comment: "Lazy Boot Layer"}}
	return c, nil
}

// rewrite loads, selects, converts and loads the result again.
func rewrite(t *testing.T, s *graphtest.Store, root ocispec.Descriptor, so graph.SelectOptions, ro graph.RewriteOptions, fn graph.ConvertFunc) (*graph.Rewritten, *graph.Graph) {
	t.Helper()
	g := load(t, s, root)
	sel, err := graph.Select(g, so)
	if err != nil {
		t.Fatal(err)
	}
	out, err := graph.Rewrite(t.Context(), g, sel, fn, s, ro)
	if err != nil {
		t.Fatal(err)
	}
	return out, load(t, s, out.Root)
}

var all = graph.SelectOptions{All: true}

func TestR1ChildrenFirst(t *testing.T) {
	s := graphtest.NewStore() // its WriteDocument refuses parents before children
	amd, arm := twoLayers(s, ocispec.Platform{}), twoLayers(s, arm64())
	out, _ := rewrite(t, s, s.Index(s.Index(amd, arm), amd), all, graph.RewriteOptions{}, lazy)
	var types []string
	for _, d := range s.Written() {
		types = append(types, string(graph.KindOf(d.MediaType)))
	}
	if got := strings.Join(types, " "); got != "config manifest config manifest index index" {
		t.Errorf("written: %s", got)
	}
	if len(out.Documents) != 6 || !out.Changed {
		t.Errorf("%d documents, changed %v", len(out.Documents), out.Changed)
	}
}

func TestR3UnchangedGraph(t *testing.T) {
	s := graphtest.NewStore()
	amd := twoLayers(s, ocispec.Platform{})
	root := s.Index(amd, s.Attestation(amd))
	for name, fn := range map[string]graph.ConvertFunc{
		"nil":   func(context.Context, *graph.Node) (*graph.Conversion, error) { return nil, nil },
		"no-op": func(context.Context, *graph.Node) (*graph.Conversion, error) { return &graph.Conversion{}, nil },
		"as was": func(_ context.Context, m *graph.Node) (*graph.Conversion, error) {
			return &graph.Conversion{Manifest: graph.ManifestChange{Layers: m.Manifest.Layers}}, nil
		},
	} {
		out, _ := rewrite(t, s, root, all, graph.RewriteOptions{}, fn)
		if out.Changed || out.Root.Digest != root.Digest || len(s.Written()) != 0 || len(out.Dropped) != 0 || len(out.Kept) != 1 {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

func TestR9IndexOfConverted(t *testing.T) {
	s := graphtest.NewStore()
	amd, arm := twoLayers(s, ocispec.Platform{}), twoLayers(s, arm64())
	bare := twoLayers(s, ocispec.Platform{OS: "linux", Architecture: "riscv64"})
	bare.Platform = nil
	sbom := s.Artifact(blob(ociManifest, "another image"))
	_, g := rewrite(t, s, s.Index(sbom, arm, amd, bare), all, graph.RewriteOptions{}, lazy)
	var got []string
	for _, d := range g.Root.Index.Manifests {
		p := "-"
		if d.Platform != nil {
			p = platforms.FormatAll(*d.Platform)
		}
		got = append(got, p+" "+d.Annotations["lazy"])
	}
	if want := []string{"- ", "linux(+lazy.v1)/arm64/v8 yes", "linux(+lazy.v1)/amd64 yes", "linux(+lazy.v1)/riscv64 yes"}; !reflect.DeepEqual(got, want) {
		t.Errorf("entries %q, want %q", got, want)
	}
	if g.Root.Index.Manifests[0].Digest != sbom.Digest {
		t.Error("the artifact changed")
	}
}

func TestR9EmptyIndexIsDropped(t *testing.T) {
	s := graphtest.NewStore()
	amd, arm := twoLayers(s, ocispec.Platform{}), twoLayers(s, arm64())
	out, g := rewrite(t, s, s.Index(s.Index(arm), amd), graph.SelectOptions{Platforms: []ocispec.Platform{*amd.Platform}}, graph.RewriteOptions{}, lazy)
	if n := len(g.Root.Children); n != 1 || len(out.Dropped) != 2 || out.Dropped[1].Reason != "no entry of it remains" {
		t.Errorf("%d entries, dropped %+v", n, out.Dropped)
	}
}

func TestR10DockerBecomesOCI(t *testing.T) {
	s := graphtest.NewStore()
	zst := s.Layer(map[string]string{"z": ""})
	zst.Desc = s.Put(graph.DockerLayerZstd, []byte("zstd"))
	img := s.Image(graphtest.Image{Docker: true, History: true, Layers: []graphtest.Layer{s.Layer(nil), zst}})
	root := s.List(img)
	// only the first layer is converted; the zstd one has to follow (a proven defect elsewhere)
	_, g := rewrite(t, s, root, all, graph.RewriteOptions{}, func(_ context.Context, m *graph.Node) (*graph.Conversion, error) {
		return &graph.Conversion{Manifest: graph.ManifestChange{Layers: []ocispec.Descriptor{blob(lazyLayer, "x"), m.Manifest.Layers[1]}}}, nil
	})
	m := g.Root.Children[0]
	if g.Root.Index.MediaType != ociIndex || m.Desc.MediaType != ociManifest || m.Manifest.MediaType != ociManifest ||
		m.Manifest.Config.MediaType != ociConfig || m.Manifest.Layers[1].MediaType != ocispec.MediaTypeImageLayerZstd {
		t.Errorf("types: %s %s %s %+v", g.Root.Index.MediaType, m.Manifest.MediaType, m.Manifest.Config.MediaType, m.Manifest.Layers)
	}
	if m.Manifest.Config.Digest != load(t, s, img).Root.Manifest.Config.Digest {
		t.Error("a config that did not change has another digest")
	}
	// a recompression within Docker's types stays Docker; the option makes it OCI
	gz := func(_ context.Context, m *graph.Node) (*graph.Conversion, error) {
		return &graph.Conversion{Manifest: graph.ManifestChange{Layers: []ocispec.Descriptor{blob(graph.DockerLayerGzip, "x"), m.Manifest.Layers[1]}}}, nil
	}
	if _, g := rewrite(t, s, root, all, graph.RewriteOptions{}, gz); g.Root.Desc.MediaType != graph.DockerList || g.Root.Children[0].Desc.MediaType != graph.DockerManifest {
		t.Errorf("recompression became %s", g.Root.Desc.MediaType)
	}
	if _, g := rewrite(t, s, root, all, graph.RewriteOptions{OCI: true}, gz); g.Root.Desc.MediaType != ociIndex || g.Root.Children[0].Manifest.Layers[0].MediaType != ociGzip {
		t.Errorf("with OCI: %s", g.Root.Desc.MediaType)
	}
}

func TestR11OnlyImagesAreConverted(t *testing.T) {
	s := graphtest.NewStore()
	amd := twoLayers(s, ocispec.Platform{})
	outside := blob(ociManifest, "another image")
	helm := s.PutJSON(ociManifest, map[string]any{"schemaVersion": 2, "config": s.Put("application/vnd.cncf.helm.config.v1+json", []byte("{}")), "layers": []any{}})
	check := s.PutJSON(ociManifest, map[string]any{"schemaVersion": 2, "config": s.Put(ociConfig, []byte(`{"os":"linux"}`)),
		"layers": []any{s.Put("application/vnd.containerd.container.criu.checkpoint.criu.tar", []byte("x"))}})
	root := s.Index(amd, s.Attestation(amd), s.AttestationArtifact(amd), s.Artifact(amd), s.Artifact(outside), helm, check)
	g := load(t, s, root)
	sel := must[*graph.Selection](t)(graph.Select(g, all))
	var got []string
	for _, d := range sel.Decisions {
		got = append(got, string(d.Action)+": "+d.Reason)
	}
	at := ": about the source image " + shortOf(amd.Digest) + ", not about the converted one"
	want := []string{"convert: selected", "drop" + at, "drop" + at, "drop" + at,
		"keep: about " + shortOf(outside.Digest) + ", which is not in this graph",
		"keep: its config is application/vnd.cncf.helm.config.v1+json, not an image config",
		"keep: layer 0 is application/vnd.containerd.container.criu.checkpoint.criu.tar, not a layer of a file system"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("decisions:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, d := range []ocispec.Descriptor{s.Artifact(amd), helm} {
		if _, err := graph.Select(load(t, s, d), all); abi.ClassOf(err) != abi.ErrUnsupported || !strings.Contains(err.Error(), "not a runnable image") {
			t.Errorf("artifact as root: %v", err)
		}
	}
}

func shortOf(d digest.Digest) string { return string(d[:19]) + "…" }

func TestR12Attestations(t *testing.T) {
	s := graphtest.NewStore()
	amd, arm := twoLayers(s, ocispec.Platform{}), twoLayers(s, arm64())
	root := s.Index(amd, arm, s.Attestation(amd), s.AttestationArtifact(arm))
	one := func(o graph.SelectOptions) graph.SelectOptions {
		o.Platforms = []ocispec.Platform{arm64()}
		return o
	}
	for _, c := range []struct {
		name          string
		opts          graph.SelectOptions
		left, dropped int
	}{
		{"all", all, 2, 2},
		{"all, keep", graph.SelectOptions{All: true, Attestations: graph.KeepAttestations}, 4, 0},
		{"arm64", one(graph.SelectOptions{}), 1, 3},
		{"arm64, keep attestations", one(graph.SelectOptions{Attestations: graph.KeepAttestations}), 2, 2},
		{"arm64, keep others", one(graph.SelectOptions{KeepOthers: true}), 3, 1},
	} {
		out, g := rewrite(t, s, root, c.opts, graph.RewriteOptions{}, lazy)
		if len(g.Root.Children) != c.left || len(out.Dropped) != c.dropped {
			t.Errorf("%s: %d entries, %d dropped; want %d and %d", c.name, len(g.Root.Children), len(out.Dropped), c.left, c.dropped)
		}
	}
}

func TestR13Subject(t *testing.T) {
	s := graphtest.NewStore()
	sub := blob(ociManifest, "{}")
	img := s.Image(graphtest.Image{Subject: &sub, Layers: []graphtest.Layer{s.Layer(nil)}})
	out, g := rewrite(t, s, img, all, graph.RewriteOptions{}, lazy)
	if g.Root.Manifest.Subject != nil || len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "subject sha256:") {
		t.Errorf("subject %v, notes %q", g.Root.Manifest.Subject, out.Notes)
	}
	if _, g = rewrite(t, s, img, all, graph.RewriteOptions{KeepSubject: true}, lazy); g.Root.Manifest.Subject == nil {
		t.Error("subject is gone although it was to be kept")
	}
	// a converter may tie the result to its source
	_, g = rewrite(t, s, img, all, graph.RewriteOptions{}, func(ctx context.Context, m *graph.Node) (*graph.Conversion, error) {
		c, err := lazy(ctx, m)
		c.Manifest.Subject = &ocispec.Descriptor{MediaType: m.Desc.MediaType, Digest: m.Desc.Digest, Size: m.Desc.Size}
		return c, err
	})
	if g.Root.Manifest.Subject == nil || g.Root.Manifest.Subject.Digest != img.Digest {
		t.Errorf("subject is %v", g.Root.Manifest.Subject)
	}
}

func TestR14NestedAndShared(t *testing.T) {
	s := graphtest.NewStore()
	amd, arm := twoLayers(s, ocispec.Platform{}), twoLayers(s, arm64())
	second := amd
	second.Annotations = map[string]string{"alias": "2"}
	inner := s.Index(amd, arm)
	var calls atomic.Int32
	_, g := rewrite(t, s, s.Index(inner, second, inner), all, graph.RewriteOptions{}, func(ctx context.Context, m *graph.Node) (*graph.Conversion, error) {
		calls.Add(1)
		return lazy(ctx, m)
	})
	a, b := g.Root.Children[0].Children[0], g.Root.Children[1]
	if calls.Load() != 2 || a.Desc.Digest != b.Desc.Digest || b.Desc.Annotations["alias"] != "2" || a.Desc.Annotations["alias"] != "" {
		t.Errorf("%d calls; %+v and %+v", calls.Load(), a.Desc, b.Desc)
	}
}

func TestR15EqualResultsStay(t *testing.T) {
	s := graphtest.NewStore()
	l := s.Layer(nil)
	cfg := fmt.Sprintf(`{"os":"linux","architecture":"arm","rootfs":{"type":"layers","diff_ids":[%q]}}`, l.DiffID)
	mk := func(variant, annotation string) ocispec.Descriptor {
		return s.Image(graphtest.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "arm", Variant: variant}, ConfigJSON: cfg,
			Layers: []graphtest.Layer{l}, Annotations: map[string]string{"v": annotation}})
	}
	_, g := rewrite(t, s, s.Index(mk("v6", "1"), mk("v7", "2")), all, graph.RewriteOptions{}, func(context.Context, *graph.Node) (*graph.Conversion, error) {
		return &graph.Conversion{Manifest: graph.ManifestChange{RemoveAnnotations: []string{"v"}}}, nil
	})
	c := g.Root.Children
	if len(c) != 2 || c[0].Desc.Digest != c[1].Desc.Digest || c[0].Platform.Variant != "v6" || c[1].Platform.Variant != "v7" {
		t.Errorf("entries are %+v", g.Root.Index.Manifests)
	}
}

func TestR16ForeignLayers(t *testing.T) {
	s := graphtest.NewStore()
	foreign := graphtest.Layer{DiffID: digest.FromString("f"), Desc: ocispec.Descriptor{MediaType: graph.DockerForeignGzip,
		Digest: digest.FromString("absent"), Size: 12, URLs: []string{"https://example.com/base"}}}
	img := s.Image(graphtest.Image{Docker: true, History: true, Layers: []graphtest.Layer{foreign, s.Layer(nil)}})
	_, g := rewrite(t, s, img, all, graph.RewriteOptions{}, lazy) // the blob is nowhere; conversion does not need it
	d := g.Root.Manifest.Layers[0]
	if d.Digest != foreign.Desc.Digest || len(d.URLs) != 1 || d.MediaType != graph.ToOCI(graph.DockerForeignGzip) {
		t.Errorf("foreign layer became %+v", d)
	}
}

func TestR17Labels(t *testing.T) {
	s := graphtest.NewStore()
	amd := twoLayers(s, ocispec.Platform{})
	check := func(d ocispec.Descriptor, want ...string) {
		t.Helper()
		labels := must[map[string]string](t)(graph.ChildLabels(d.MediaType, s.Get(d.Digest)))
		if len(labels) != len(want) {
			t.Errorf("labels are %v, want %v", labels, want)
		}
		for _, k := range want {
			if labels["containerd.io/gc.ref.content."+k] == "" {
				t.Errorf("label %s is missing in %v", k, labels)
			}
		}
	}
	out, _ := rewrite(t, s, s.Index(amd, s.Index(amd), s.Put("a/b", []byte("x"))), all, graph.RewriteOptions{}, lazy)
	check(out.Root, "m.0", "0", "1")
	check(out.Converted[0].Target, "config", "l.0", "l.1", "l.2")
	check(s.Artifact(amd), "0", "1")
	if l := must[map[string]string](t)(graph.ChildLabels(ociConfig, []byte("{}"))); len(l) != 0 {
		t.Errorf("a config has labels %v", l)
	}
	// what the target still needs of the source
	var kept []string
	for _, n := range out.Kept {
		kept = append(kept, string(n.Kind))
	}
	if got := strings.Join(kept, " "); got != "unknown" {
		t.Errorf("kept %s", got)
	}
}

// TestR18NothingPublishedOnFailure: an error leaves no root, and other conversions are canceled.
func TestR18NothingPublishedOnFailure(t *testing.T) {
	s := graphtest.NewStore()
	amd, arm := twoLayers(s, ocispec.Platform{}), twoLayers(s, arm64())
	g := load(t, s, s.Index(amd, arm))
	sel := must[*graph.Selection](t)(graph.Select(g, all))
	boom := abi.Errorf(abi.ErrPlugin, "boom")
	out, err := graph.Rewrite(t.Context(), g, sel, func(ctx context.Context, m *graph.Node) (*graph.Conversion, error) {
		if m.Platform.Architecture == "arm64" {
			return nil, boom
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}, s, graph.RewriteOptions{Parallel: 2})
	if out != nil || !errors.Is(err, boom) || err.Error() != "boom" || len(s.Written()) != 0 {
		t.Errorf("%v, %v", out, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = graph.Rewrite(ctx, g, sel, func(ctx context.Context, m *graph.Node) (*graph.Conversion, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}, s, graph.RewriteOptions{Parallel: 1})
	if abi.ClassOf(err) != abi.ErrCanceled {
		t.Errorf("canceled: %v", err)
	}
	_, err = graph.Rewrite(t.Context(), g, sel, lazy, noWriter{}, graph.RewriteOptions{})
	if abi.ClassOf(err) != abi.ErrIO || !strings.Contains(err.Error(), "config sha256:") {
		t.Errorf("writer: %v", err)
	}
}

type noWriter struct{}

func (noWriter) WriteDocument(context.Context, ocispec.Descriptor, []byte) error {
	return abi.Errorf(abi.ErrIO, "disk full")
}

// TestR19Contradictions: what a converter says is held against itself before anything is written.
func TestR19Contradictions(t *testing.T) {
	s := graphtest.NewStore()
	img := twoLayers(s, ocispec.Platform{})
	g := load(t, s, img)
	sel := must[*graph.Selection](t)(graph.Select(g, all))
	for name, edit := range map[string]func(c *graph.Conversion){
		"a layer without diff_id":  func(c *graph.Conversion) { c.Manifest.Layers = append(c.Manifest.Layers, blob(ociGzip, "more")) },
		"history forgotten":        func(c *graph.Conversion) { c.Config.History.Append = nil },
		"no media type":            func(c *graph.Conversion) { c.Manifest.Layers[0].MediaType = "" },
		"path-like digest":         func(c *graph.Conversion) { c.Manifest.Layers[0].Digest = "sha256:../x" },
		"negative size":            func(c *graph.Conversion) { c.Manifest.Layers[0].Size = -1 },
		"diff_id is not a digest":  func(c *graph.Conversion) { c.Config.DiffIDs[0] = "x" },
		"layers without a diff_id": func(c *graph.Conversion) { c.Config = graph.ConfigChange{} },
	} {
		_, err := graph.Rewrite(t.Context(), g, sel, func(ctx context.Context, m *graph.Node) (*graph.Conversion, error) {
			c, err := lazy(ctx, m)
			edit(c)
			return c, err
		}, s, graph.RewriteOptions{})
		if abi.ClassOf(err) != abi.ErrInvalid || !strings.Contains(err.Error(), "sha256:") || len(s.Written()) != 0 {
			t.Errorf("%s: %v (class %v), written %v", name, err, abi.ClassOf(err), s.Written())
		}
	}
	// config platform against index platform
	wrong := img
	p := arm64()
	wrong.Platform = &p
	if w := load(t, s, s.Index(wrong)).Warnings; len(w) != 1 || !strings.Contains(w[0], "config says linux/amd64") {
		t.Errorf("warnings %q", w)
	}
}

func TestR20Deterministic(t *testing.T) {
	var first []ocispec.Descriptor
	for i, n := range []int{1, 2, 8, 1} {
		s := graphtest.NewStore()
		var entries []ocispec.Descriptor
		for _, a := range []string{"amd64", "arm64", "riscv64", "s390x", "ppc64le"} {
			entries = append(entries, twoLayers(s, ocispec.Platform{OS: "linux", Architecture: a}))
		}
		rewrite(t, s, s.Index(entries...), all, graph.RewriteOptions{Parallel: n}, func(ctx context.Context, m *graph.Node) (*graph.Conversion, error) {
			runtime.Gosched()
			return lazy(ctx, m)
		})
		if i == 0 {
			first = s.Written()
		} else if !reflect.DeepEqual(first, s.Written()) {
			t.Errorf("with %d workers: %v, want %v", n, s.Written(), first)
		}
	}
}

func TestCollapse(t *testing.T) {
	s := graphtest.NewStore()
	amd := twoLayers(s, ocispec.Platform{})
	out, g := rewrite(t, s, s.Index(amd, s.Attestation(amd)), all, graph.RewriteOptions{Collapse: true}, lazy)
	if g.Root.Kind != graph.KindManifest || len(s.Written()) != 2 || len(out.Notes) != 1 {
		t.Errorf("root is %s, written %v", g.Root.Kind, s.Written())
	}
}

func TestCollapseUnchanged(t *testing.T) {
	s := graphtest.NewStore()
	amd := twoLayers(s, ocispec.Platform{})
	out, _ := rewrite(t, s, s.Index(amd), all, graph.RewriteOptions{Collapse: true}, func(context.Context, *graph.Node) (*graph.Conversion, error) { return nil, nil })
	if out.Root.Digest != amd.Digest || !out.Changed || len(out.Kept) != 1 || out.Kept[0].Desc.Digest != amd.Digest {
		t.Errorf("%+v", out)
	}
}

// TestSharedConfigIsWrittenOnce: two manifests with one config, which changes in the same way.
func TestSharedConfigIsWrittenOnce(t *testing.T) {
	s := graphtest.NewStore()
	a, b := s.Image(graphtest.Image{Annotations: map[string]string{"v": "1"}}), s.Image(graphtest.Image{Annotations: map[string]string{"v": "2"}})
	out, _ := rewrite(t, s, s.Index(a, b), all, graph.RewriteOptions{}, func(context.Context, *graph.Node) (*graph.Conversion, error) {
		return &graph.Conversion{Config: graph.ConfigChange{OSFeatures: []string{"f"}}}, nil
	})
	if len(out.Documents) != 4 || len(s.Written()) != 4 {
		t.Errorf("%d documents, written %v", len(out.Documents), s.Written())
	}
}

// TestEntrySaysArtifact: the index says that an image manifest is an artifact.
func TestEntrySaysArtifact(t *testing.T) {
	s := graphtest.NewStore()
	amd := twoLayers(s, ocispec.Platform{})
	amd.ArtifactType = "application/example"
	if n := load(t, s, s.Index(amd)).Root.Children[0]; n.Runnable || n.Reason != "artifact of type application/example" {
		t.Errorf("runnable %v, %s", n.Runnable, n.Reason)
	}
}

func TestPanicIsAnError(t *testing.T) {
	s := graphtest.NewStore()
	g := load(t, s, twoLayers(s, ocispec.Platform{}))
	_, err := graph.Rewrite(t.Context(), g, must[*graph.Selection](t)(graph.Select(g, all)), func(context.Context, *graph.Node) (*graph.Conversion, error) {
		panic("oh")
	}, s, graph.RewriteOptions{})
	if abi.ClassOf(err) != abi.ErrInternal || !strings.Contains(err.Error(), "panicked: oh") {
		t.Errorf("%v", err)
	}
}

// TestFinishLayer holds the shape that lazy formats ask for against a manifest and config written by hand.
func TestFinishLayer(t *testing.T) {
	s := graphtest.NewStore()
	img := twoLayers(s, ocispec.Platform{})
	_, g := rewrite(t, s, img, all, graph.RewriteOptions{}, lazy)
	m, cfg := g.Root.Manifest, g.Root.ConfigNode().Config
	if len(m.Layers) != 3 || m.Layers[0].MediaType != lazyLayer || m.Layers[2].MediaType != ociGzip {
		t.Errorf("layers %+v", m.Layers)
	}
	if cfg.RootFS.DiffIDs[0] != m.Layers[0].Digest || cfg.RootFS.DiffIDs[2] != digest.FromString("boot tar "+img.Digest.String()) {
		t.Errorf("diff_ids %v", cfg.RootFS.DiffIDs)
	}
	var raw struct{ History []json.RawMessage }
	if err := json.Unmarshal(g.Root.ConfigNode().Raw, &raw); err != nil {
		t.Fatal(err)
	}
	if got := string(raw.History[len(raw.History)-1]); got != `{"created_by":"Lazy Converter","comment":"Lazy Boot Layer"}` {
		t.Errorf("last history item is %s", got)
	}
}

func TestRewriteDebian(t *testing.T) {
	l, tags := debian(t)
	for _, tag := range []string{"amd64", "index", "nested", "docker", "dockerlist"} {
		s := graphtest.NewStore()
		g := load(t, l, tags[tag])
		sel := must[*graph.Selection](t)(graph.Select(g, all))
		g.Root.Walk(func(n *graph.Node) bool {
			if n.Raw != nil {
				s.Put(n.Desc.MediaType, n.Raw)
			}
			return true
		})
		out := must[*graph.Rewritten](t)(graph.Rewrite(t.Context(), g, sel, lazy, s, graph.RewriteOptions{}))
		again := load(t, s, out.Root)
		for _, m := range again.Root.Manifests() {
			if m.Runnable && (m.Layers()[0].Desc.MediaType != lazyLayer || graph.IsDocker(m.Desc.MediaType)) {
				t.Errorf("%s: %s has layer type %s", tag, m.Path(), m.Layers()[0].Desc.MediaType)
			}
		}
		if graph.IsDocker(again.Root.Desc.MediaType) || !out.Changed {
			t.Errorf("%s: root is %s", tag, again.Root.Desc.MediaType)
		}
		if tag == "index" && (len(out.Dropped) != 2 || len(again.Root.Children) != 2 || again.Root.Index.Annotations["org.opencontainers.image.title"] != "lab") {
			t.Errorf("index: dropped %d, %d entries", len(out.Dropped), len(again.Root.Children))
		}
	}
}
