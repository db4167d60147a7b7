package graph_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestSelect(t *testing.T) {
	s := graphtest.NewStore()
	var entries []ocispec.Descriptor
	for _, p := range []string{"linux/386", "linux/arm/v6", "linux/amd64", "linux/arm/v7", "linux/arm64", "linux(+lazy.v1)/amd64", "windows(10.0.17763.1)/amd64"} {
		entries = append(entries, twoLayers(s, platforms.MustParse(p)))
	}
	index := load(t, s, s.Index(append(entries, s.Index(entries[2]))...))
	single := load(t, s, entries[4])
	parse := func(list string) (out []ocispec.Platform) {
		for _, p := range strings.Fields(list) {
			out = append(out, platforms.MustParse(p))
		}
		return out
	}
	host := func(p string) graph.SelectOptions {
		h := platforms.MustParse(p)
		return graph.SelectOptions{Host: &h}
	}
	for _, c := range []struct {
		name string
		g    *graph.Graph
		opts graph.SelectOptions
		want string
	}{
		{"all", index, all, "linux/386 linux/arm/v6 linux/amd64 linux/arm/v7 linux/arm64 linux(+lazy.v1)/amd64 windows(10.0.17763.1)/amd64"},
		{"host amd64", index, host("linux/amd64"), "linux/amd64"},
		{"host arm/v8 takes the best", index, host("linux/arm/v8"), "linux/arm/v7"},
		{"platforms", index, graph.SelectOptions{Platforms: parse("linux/arm/v6 linux/arm64")}, "linux/arm/v6 linux/arm64"},
		{"platform with feature", index, graph.SelectOptions{Platforms: parse("linux(+lazy.v1)/amd64")}, "linux(+lazy.v1)/amd64"},
		{"only one", single, graph.SelectOptions{}, "linux/arm64"},
		{"only one, host differs", single, host("linux/s390x"), "linux/arm64"},
		{"no such platform", index, graph.SelectOptions{Platforms: parse("linux/amd64 linux/s390x")}, "error: no image for linux/s390x; there are linux"},
		{"no such host", index, host("plan9/mips"), "error: no image for plan9/mips"},
		{"only one, other asked", single, graph.SelectOptions{Platforms: parse("linux/amd64")}, "error: no image for linux/amd64; there are linux/arm64"},
	} {
		sel, err := graph.Select(c.g, c.opts)
		if want, isErr := strings.CutPrefix(c.want, "error: "); isErr {
			if abi.ClassOf(err) != abi.ErrNotFound || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []string
		for _, n := range sel.Convert {
			got = append(got, platforms.FormatAll(*n.Platform))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}

func TestLoadOnly(t *testing.T) {
	s := graphtest.NewStore()
	amd, arm := twoLayers(s, ocispec.Platform{}), twoLayers(s, arm64())
	att := s.Attestation(arm)
	root := s.Index(amd, arm, att)
	s.Delete(arm.Digest)
	s.Delete(att.Digest)
	g, err := graph.Load(t.Context(), s, root, graph.LoadOptions{Only: platforms.OnlyStrict(*amd.Platform)})
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range []bool{false, true} {
		sel := must[*graph.Selection](t)(graph.Select(g, graph.SelectOptions{All: true, KeepOthers: keep}))
		want := graph.Drop
		if keep {
			want = graph.Keep
		}
		if d, _ := sel.Of(g.Root.Children[1]); len(sel.Convert) != 1 || d.Action != want {
			t.Errorf("arm64 is %+v", d)
		}
		if d, _ := sel.Of(g.Root.Children[2]); d.Action != want {
			t.Errorf("its attestation is %+v", d)
		}
	}
}

func TestRows(t *testing.T) {
	s := graphtest.NewStore()
	amd := twoLayers(s, ocispec.Platform{})
	g := load(t, s, s.Index(amd, s.Attestation(amd), s.Artifact(amd)))
	var got []string
	for _, r := range g.Rows() {
		got = append(got, strings.TrimRight(strings.Repeat("  ", r.Depth)+string(r.Kind)+" "+r.Platform+" "+r.Note, " "))
	}
	want := []string{"index", "  manifest linux/amd64", "    config", "    layer", "    layer",
		"  manifest unknown/unknown attestation, about " + shortOf(amd.Digest), "    config", "    attestation",
		"  manifest  artifact of type application/spdx+json, about " + shortOf(amd.Digest), "    empty", "    unknown"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("rows:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	raw, err := json.Marshal(g.Rows()[1])
	if err != nil || !strings.HasPrefix(string(raw), `{"depth":1,"role":"entry","position":0,"kind":"manifest","mediaType":"`) {
		t.Errorf("%s, %v", raw, err)
	}
	var dot strings.Builder
	if err := g.DOT(&dot); err != nil || strings.Count(dot.String(), "->") != 10 || strings.Count(dot.String(), "label=") != 11 {
		t.Errorf("%v\n%s", err, dot.String())
	}
}

func TestMediaTypes(t *testing.T) {
	for _, c := range []struct {
		mediaType string
		kind      graph.Kind
		comp      graph.Compression
		oci       string
	}{
		{graph.DockerList, graph.KindIndex, "", ociIndex},
		{graph.DockerManifest, graph.KindManifest, "", ociManifest},
		{graph.DockerConfig, graph.KindConfig, "", ociConfig},
		{graph.DockerLayer, graph.KindLayer, graph.Sniff, ocispec.MediaTypeImageLayer},
		{graph.DockerLayerGzip, graph.KindLayer, graph.Gzip, ociGzip},
		{graph.DockerLayerZstd, graph.KindLayer, graph.Zstd, ocispec.MediaTypeImageLayerZstd},
		{graph.DockerForeignGzip, graph.KindForeign, graph.Gzip, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"},
		{ocispec.MediaTypeImageLayer, graph.KindLayer, graph.Uncompressed, ""},
		{"application/vnd.oci.image.layer.v1.tar+zstd+encrypted", graph.KindEncrypted, "", ""},
		{"application/vnd.oci.image.layer.nydus.blob.v1", graph.KindOpaque, "", ""},
		{"application/vnd.erofs.layer.v1+zstd", graph.KindOpaque, "", ""},
		{"application/vnd.containerd.container.rw.tar", graph.KindCheckpoint, "", ""},
		{graph.InToto, graph.KindAttestation, "", ""},
		{ocispec.MediaTypeEmptyJSON, graph.KindEmpty, "", ""},
		{graph.DockerSchema1, graph.KindSchema1, "", ""},
		{"application/vnd.oci.artifact.manifest.v1+json", graph.KindUnknown, "", ""},
		{"", graph.KindUnknown, "", ""},
	} {
		if c.oci == "" {
			c.oci = c.mediaType
		}
		comp, ok := graph.CompressionOf(c.mediaType)
		if graph.KindOf(c.mediaType) != c.kind || comp != c.comp || ok != (c.comp != "") || graph.ToOCI(c.mediaType) != c.oci {
			t.Errorf("%s: %s %q %s", c.mediaType, graph.KindOf(c.mediaType), comp, graph.ToOCI(c.mediaType))
		}
		if back, ok := graph.ToDocker(c.oci); graph.IsDocker(c.mediaType) && (c.oci != c.mediaType) && (!ok || back != c.mediaType) {
			t.Errorf("%s comes back as %s", c.oci, back)
		}
	}
}

// FuzzLoad: whatever a store hands out as the root, Load answers with a class or with a graph whose unchanged rewrite
// is the same and whose converted rewrite loads again.
func FuzzLoad(f *testing.F) {
	s := graphtest.NewStore()
	amd := twoLayers(s, ocispec.Platform{})
	dock := s.Image(graphtest.Image{Docker: true, History: true, Layers: []graphtest.Layer{s.Layer(nil)}})
	for _, d := range []ocispec.Descriptor{amd, dock, s.Index(amd, s.Attestation(amd), s.Artifact(amd)), s.List(dock), s.Index(s.Index(amd), dock)} {
		f.Add(s.Get(d.Digest), true)
		f.Add(s.Get(d.Digest), false)
	}
	f.Add([]byte(oddManifest), false)
	f.Fuzz(func(t *testing.T, raw []byte, index bool) {
		mediaType := ociManifest
		if index {
			mediaType = ociIndex
		}
		root := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
		s.PutAs(root.Digest, raw)
		defer s.Delete(root.Digest)
		g, err := graph.Load(t.Context(), s, root, graph.LoadOptions{Limits: graph.Limits{References: 200}})
		if err != nil {
			if c := abi.ClassOf(err); g != nil || c == abi.ErrInternal || c == abi.ErrIO {
				t.Fatalf("class %v: %v", c, err)
			}
			return
		}
		sel, err := graph.Select(g, all)
		if err != nil {
			return
		}
		out, err := graph.Rewrite(t.Context(), g, sel, lazy, sink{}, graph.RewriteOptions{})
		if err != nil {
			if abi.ClassOf(err) != abi.ErrInvalid { // contradictions of this converter with an odd document
				t.Fatal(err)
			}
			return
		}
		mem := graphtest.NewStore()
		for _, d := range out.Documents {
			mem.PutAs(d.Desc.Digest, d.Raw)
		}
		if _, err := graph.Load(t.Context(), both{mem, s}, out.Root, graph.LoadOptions{}); err != nil {
			t.Fatalf("%v\nfrom %s", err, raw)
		}
	})
}
