package graph_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// plain converts as overlaybd does: each layer becomes an uncompressed tar with annotations, in OCI's or Docker's words.
func plain(mediaType string) graph.ConvertFunc {
	return func(_ context.Context, m *graph.Node) (*graph.Conversion, error) {
		c := &graph.Conversion{Config: graph.ConfigChange{DiffIDs: []digest.Digest{}}}
		for _, l := range m.Layers() {
			b := blob(mediaType, "block device of "+l.Desc.Digest.String())
			b.Annotations = map[string]string{"containerd.io/snapshot/overlaybd/version": "0.1.0"}
			c.Manifest.Layers = append(c.Manifest.Layers, b)
			c.Config.DiffIDs = append(c.Config.DiffIDs, b.Digest)
		}
		return c, nil
	}
}

// types lists the media types of a graph by role, inner ones of documents included.
func types(g *graph.Graph) string {
	var out []string
	g.Root.Walk(func(n *graph.Node) bool {
		out = append(out, n.Desc.MediaType)
		if n.Raw != nil && n.Kind.Document() {
			var d struct{ MediaType string }
			if err := json.Unmarshal(n.Raw, &d); err != nil || d.MediaType != n.Desc.MediaType {
				out = append(out, "inside: "+d.MediaType)
			}
		}
		return true
	})
	return strings.Join(out, " ")
}

// TestMediaTypeFamilies: the table of the formats that upstream's convertor writes, for sources of both families.
func TestMediaTypeFamilies(t *testing.T) {
	docker := strings.Join([]string{graph.DockerList, graph.DockerManifest, graph.DockerConfig, graph.DockerLayer, graph.DockerLayer}, " ")
	oci := strings.Join([]string{ociIndex, ociManifest, ociConfig, ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayer}, " ")
	for _, source := range []bool{false, true} {
		s := graphtest.NewStore()
		layers := []graphtest.Layer{s.Layer(map[string]string{"a": "1"}), s.Layer(map[string]string{"b": "2"})}
		img := s.Image(graphtest.Image{Docker: source, History: true, Layers: layers})
		root := s.Index(img)
		if source {
			root = s.List(img)
		}
		for _, made := range []string{ocispec.MediaTypeImageLayer, graph.DockerLayer} {
			if _, g := rewrite(t, s, root, all, graph.RewriteOptions{Docker: true}, plain(made)); types(g) != docker {
				t.Errorf("docker source %v, layers %s, as docker: %s", source, made, types(g))
			}
			if _, g := rewrite(t, s, root, all, graph.RewriteOptions{OCI: true}, plain(made)); types(g) != oci {
				t.Errorf("docker source %v, layers %s, as oci: %s", source, made, types(g))
			}
		}
		if _, g := rewrite(t, s, root, all, graph.RewriteOptions{}, plain(ocispec.MediaTypeImageLayer)); types(g) != oci { // annotations
			t.Errorf("docker source %v: %s", source, types(g))
		}
	}
}

// TestDockerKeepsWhatIsNot: an index with an entry that Docker has no name for keeps its own type.
func TestDockerKeepsWhatIsNot(t *testing.T) {
	s := graphtest.NewStore()
	img := twoLayers(s, ocispec.Platform{})
	_, g := rewrite(t, s, s.Index(s.Artifact(blob(ociManifest, "elsewhere")), img), all, graph.RewriteOptions{Docker: true}, plain(ocispec.MediaTypeImageLayer))
	if g.Root.Desc.MediaType != ociIndex || g.Root.Children[1].Desc.MediaType != graph.DockerManifest {
		t.Errorf("types %s", types(g))
	}
}

// TestDockerWithoutMediaType: Docker's documents always name their type.
func TestDockerWithoutMediaType(t *testing.T) {
	s := graphtest.NewStore()
	img := s.Image(graphtest.Image{NoMediaType: true, Layers: []graphtest.Layer{s.Layer(nil)}})
	root := s.PutJSON(ociIndex, map[string]any{"schemaVersion": 2, "manifests": []ocispec.Descriptor{img}})
	_, g := rewrite(t, s, root, all, graph.RewriteOptions{Docker: true}, plain(ocispec.MediaTypeImageLayer))
	if want := strings.Join([]string{graph.DockerList, graph.DockerManifest, graph.DockerConfig, graph.DockerLayer}, " "); types(g) != want {
		t.Errorf("types %s", types(g))
	}
	if _, g = rewrite(t, s, root, all, graph.RewriteOptions{}, plain(ocispec.MediaTypeImageLayer)); g.Root.Index.MediaType != "" || g.Root.Children[0].Manifest.MediaType != "" {
		t.Errorf("a media type was added: %s", g.Root.Raw)
	}
}

func TestDockerRefuses(t *testing.T) {
	s := graphtest.NewStore()
	img := twoLayers(s, ocispec.Platform{})
	g := load(t, s, img)
	sel := must[*graph.Selection](t)(graph.Select(g, all))
	typed := func(ctx context.Context, m *graph.Node) (*graph.Conversion, error) {
		c, err := plain(ocispec.MediaTypeImageLayer)(ctx, m)
		c.Manifest.ArtifactType = "application/example"
		return c, err
	}
	config := func(ctx context.Context, m *graph.Node) (*graph.Conversion, error) {
		c, err := plain(ocispec.MediaTypeImageLayer)(ctx, m)
		c.ConfigMediaType = "application/example"
		return c, err
	}
	for name, c := range map[string]struct {
		opts  graph.RewriteOptions
		fn    graph.ConvertFunc
		class abi.Class
		want  string
	}{
		"a type that docker lacks": {graph.RewriteOptions{Docker: true}, lazy, abi.ErrUnsupported, "layer 0 is of type " + lazyLayer + ", for which docker has no name"},
		"an artifact type":         {graph.RewriteOptions{Docker: true}, typed, abi.ErrUnsupported, "no artifact type"},
		"another config":           {graph.RewriteOptions{Docker: true}, config, abi.ErrUnsupported, "config is of type application/example"},
		"both":                     {graph.RewriteOptions{Docker: true, OCI: true}, lazy, abi.ErrInvalid, "neither OCI's"},
		"a referrer":               {graph.RewriteOptions{Docker: true, ArtifactType: "a/b"}, lazy, abi.ErrInvalid, "subject"},
	} {
		if _, err := graph.Rewrite(t.Context(), g, sel, c.fn, s, c.opts); abi.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReferrers: every manifest and index that is made says of what, through nested indexes and from Docker's types.
func TestReferrers(t *testing.T) {
	const kind = "application/vnd.example.lazy.v1+json"
	s := graphtest.NewStore()
	amd := s.Image(graphtest.Image{Docker: true, Layers: []graphtest.Layer{s.Layer(nil)}})
	arm, x86 := twoLayers(s, arm64()), twoLayers(s, ocispec.Platform{OS: "linux", Architecture: "386"})
	inner, list := s.Index(arm, x86), s.List(amd)
	root := s.Index(inner, list)
	out, g := rewrite(t, s, root, all, graph.RewriteOptions{ArtifactType: kind}, lazy)
	want := []ocispec.Descriptor{root, inner, arm, x86, list, amd}
	for _, n := range documents(g) {
		var d struct {
			ArtifactType string
			Subject      *ocispec.Descriptor
		}
		if err := json.Unmarshal(n.Raw, &d); err != nil {
			t.Fatal(err)
		}
		w := want[0]
		want = want[1:]
		if d.ArtifactType != kind || d.Subject == nil || d.Subject.Digest != w.Digest || d.Subject.Size != w.Size || d.Subject.MediaType != w.MediaType ||
			d.Subject.Platform != nil || graph.IsDocker(n.Desc.MediaType) {
			t.Errorf("%s %s: type %q, subject %+v, want %s", n.Path(), n.Desc.MediaType, d.ArtifactType, d.Subject, w.Digest)
		}
		if n.Kind == graph.KindManifest && (!n.Runnable || n.Desc.ArtifactType != kind || n.Attests != "") {
			t.Errorf("%s: runnable %v (%s), entry's type %q", n.Path(), n.Runnable, n.Reason, n.Desc.ArtifactType)
		}
	}
	if len(want) != 0 || len(out.Notes) != 0 {
		t.Errorf("left %v, notes %v", want, out.Notes)
	}
	if _, err := graph.Select(g, all); err != nil { // it can be converted, and verified, like any other image
		t.Error(err)
	}
}

func documents(g *graph.Graph) (out []*graph.Node) {
	g.Root.Walk(func(n *graph.Node) bool {
		if n.Kind.Document() {
			out = append(out, n)
		}
		return true
	})
	return out
}

// TestReferrerOfReferrer: a subject that was there gives way, and the user hears of it.
func TestReferrerOfReferrer(t *testing.T) {
	s := graphtest.NewStore()
	old := blob(ociManifest, "origin")
	img := s.Image(graphtest.Image{Layers: []graphtest.Layer{s.Layer(nil)}, Subject: &old})
	out, g := rewrite(t, s, img, all, graph.RewriteOptions{ArtifactType: "a/b"}, lazy)
	if sub := g.Root.Manifest.Subject; sub.Digest != img.Digest || len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "gave way") {
		t.Errorf("subject %+v, notes %v", sub, out.Notes)
	}
}

// TestArtifactWithImageConfig: an artifact type and a subject alone make no image; the config has to fit the layers.
func TestArtifactWithImageConfig(t *testing.T) {
	s := graphtest.NewStore()
	sub := blob(ociManifest, "origin")
	layer := s.Layer(nil)
	for name, c := range map[string]struct {
		im   graphtest.Image
		want bool
	}{
		"fits":         {graphtest.Image{ArtifactType: "a/b", Subject: &sub, Layers: []graphtest.Layer{layer}}, true},
		"no subject":   {graphtest.Image{ArtifactType: "a/b", Layers: []graphtest.Layer{layer}}, false},
		"no layers":    {graphtest.Image{ArtifactType: "a/b", Subject: &sub}, false},
		"empty config": {graphtest.Image{ArtifactType: "a/b", Subject: &sub, Layers: []graphtest.Layer{layer}, ConfigJSON: "{}"}, false},
	} {
		n := load(t, s, s.Image(c.im)).Root
		if n.Runnable != c.want || !c.want && n.Reason != "artifact of type a/b" {
			t.Errorf("%s: runnable %v, %q", name, n.Runnable, n.Reason)
		}
	}
}

// dockerFields are fields of a config that only Docker knows, as docker 20.10 writes them.
const dockerFields = `{"architecture":"amd64","config":{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"Env":["PATH=/bin"],"Cmd":["/hello"],` +
	`"Healthcheck":{"Test":["CMD","true"],"Interval":1e9},"Image":"sha256:62a1","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":["RUN x"],` +
	`"Shell":["/bin/ash","-c"],"Labels":null},"container":"347c","container_config":{"Hostname":"347ca68872ee","Cmd":["/bin/sh","-c","#(nop) ","CMD [\"/hello\"]"],` +
	`"Image":"sha256:62a1","Labels":{}},"created":"2023-05-04T17:37:03.872958712Z","docker_version":"20.10.23",` +
	`"history":[{"created_by":"COPY <a> & b"},{"created_by":"CMD","empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":["DIFF"]}}`

// TestDockerConfigKeepsItsFields: of a config only the diff_ids change, and the two names of the image that it was.
func TestDockerConfigKeepsItsFields(t *testing.T) {
	check := func(raw string, old digest.Digest) {
		t.Helper()
		made := digest.FromString("converted")
		got := string(must[[]byte](t)(graph.EditConfig([]byte(raw), graph.ConfigChange{DiffIDs: []digest.Digest{made}})))
		want := strings.ReplaceAll(raw, old.String(), made.String())
		for _, image := range []string{`"Image":"sha256:62a1",`, `"Image":"sha256:62a15619037f3c4fb4e6ba9bd224cba3540e393a55dc52f6bebe212ca7b5e1a7",`} {
			want = strings.ReplaceAll(want, image, "")
		}
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	id := digest.FromString("tar")
	check(strings.ReplaceAll(dockerFields, "DIFF", id.String()), id)
	dir := os.Getenv("CONVHOST_TESTDATA")
	if dir == "" {
		t.Log("skipped: the config of a real image needs CONVHOST_TESTDATA")
		return
	}
	raw, err := os.ReadFile(filepath.Join(dir, "overlaybd/hello-world/blobs/sha256/9c7a54a9a43cca047013b82af109fe963fde787f63f9e016fdc3384500c2823d"))
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) != 1470 {
		t.Errorf("config has %d bytes", len(raw))
	}
	check(string(raw), "sha256:01bb4fce3eb1b56b05adf99504dafd31907a5aadac736e36b27595c8b92f07f1")
}

// TestOddShapes: lists that do not fit each other are errors of the source that say so, and what is merely empty is not.
func TestOddShapes(t *testing.T) {
	s := graphtest.NewStore()
	layer := s.Layer(nil)
	two := []graphtest.Layer{layer, s.Layer(map[string]string{"b": ""})}
	rootfs := func(ids string) string {
		return `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":` + ids + `}}`
	}
	one := `["` + layer.DiffID.String() + `"]`
	for name, c := range map[string]struct {
		im   graphtest.Image
		want string
	}{
		"fewer diff_ids": {graphtest.Image{Layers: two, ConfigJSON: rootfs(one)}, "config has 1 diff_ids, the manifest has 2 layers"},
		"no diff_ids":    {graphtest.Image{Layers: two, ConfigJSON: rootfs("null")}, "config has 0 diff_ids, the manifest has 2 layers"},
		"no rootfs":      {graphtest.Image{Layers: two, ConfigJSON: `{"architecture":"amd64","os":"linux"}`}, "config has 0 diff_ids, the manifest has 2 layers"},
		"more diff_ids":  {graphtest.Image{ConfigJSON: rootfs(one)}, "config has 1 diff_ids, the manifest has 0 layers"},
	} {
		_, err := graph.Load(t.Context(), s, s.Image(c.im), graph.LoadOptions{})
		if abi.ClassOf(err) != abi.ErrCorrupt || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	none := s.Image(graphtest.Image{})
	none.Platform = nil // in an index without platform and media type
	root := s.PutJSON(ociIndex, map[string]any{"schemaVersion": 2, "manifests": []ocispec.Descriptor{none}})
	_, g := rewrite(t, s, root, all, graph.RewriteOptions{OCI: true}, func(context.Context, *graph.Node) (*graph.Conversion, error) {
		return &graph.Conversion{OSFeatures: []string{"f"}}, nil
	})
	if n := g.Root.Children[0]; !n.Runnable || len(n.Layers()) != 0 || n.Platform == nil || n.Platform.Architecture != "amd64" {
		t.Errorf("%+v", n)
	}
}
