package graph_test

import (
	"context"
	"errors"
	"fmt"
	"io"
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

const (
	ociIndex    = ocispec.MediaTypeImageIndex
	ociManifest = ocispec.MediaTypeImageManifest
	ociConfig   = ocispec.MediaTypeImageConfig
	ociGzip     = ocispec.MediaTypeImageLayerGzip
)

func load(t *testing.T, s graph.Fetcher, root ocispec.Descriptor) *graph.Graph {
	t.Helper()
	g, err := graph.Load(t.Context(), s, root, graph.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func arm64() ocispec.Platform {
	return ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
}

// twoLayers makes an image with history, for platform p (linux/amd64 if empty).
func twoLayers(s *graphtest.Store, p ocispec.Platform) ocispec.Descriptor {
	return s.Image(graphtest.Image{Platform: p, History: true, Layers: []graphtest.Layer{
		s.Layer(map[string]string{"a": "base of " + p.Architecture + strings.Join(p.OSFeatures, "")}), s.Layer(map[string]string{"b": "top"})}})
}

func TestLoadTree(t *testing.T) {
	s := graphtest.NewStore()
	amd := twoLayers(s, ocispec.Platform{})
	arm := twoLayers(s, arm64())
	bare := twoLayers(s, ocispec.Platform{OS: "linux", Architecture: "riscv64"})
	bare.Platform = nil
	unknown := ocispec.Descriptor{MediaType: "application/vnd.buildkit.cacheconfig.v0", Digest: digest.FromString("x"), Size: 7}
	inner := s.Index(amd, arm, s.Attestation(amd), s.AttestationArtifact(arm), s.Artifact(amd), bare, unknown)
	root := s.Index(inner, amd)
	g := load(t, s, root)

	var got []string
	for _, n := range g.Root.Manifests() {
		p := "-"
		if n.Platform != nil {
			p = n.Platform.Architecture
		}
		got = append(got, fmt.Sprintf("%s runnable=%v attests=%v %s", p, n.Runnable, n.Attests != "", n.Reason))
	}
	want := []string{
		"amd64 runnable=true attests=false ",
		"arm64 runnable=true attests=false ",
		"unknown runnable=false attests=true attestation",
		"unknown runnable=false attests=true attestation",
		"- runnable=false attests=true artifact of type application/spdx+json",
		"riscv64 runnable=true attests=false ",
		"amd64 runnable=true attests=false ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("manifests:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := s.Fetches(amd.Digest); n != 1 {
		t.Errorf("shared manifest was fetched %d times", n)
	}
	last := g.Root.Children[0].Children[1].Layers()[1]
	if p := last.Path(); !strings.HasPrefix(p, "index sha256:"+root.Digest.Encoded()[:12]+"… → index 0 sha256:") ||
		!strings.Contains(p, "… → manifest 1 (linux/arm64/v8) sha256:") || !strings.Contains(p, " → layer 1 sha256:") {
		t.Errorf("path is %s", p)
	}
	if d := last.DiffID(); d == "" || d != last.Parent.ConfigNode().Config.RootFS.DiffIDs[1] || g.Root.DiffID() != "" {
		t.Errorf("diff_id is %s", d)
	}
	seen := map[digest.Digest]bool{}
	for _, d := range graph.Blobs(g.Root, g.Root) { // every parent after all of its children, nothing twice
		for _, c := range must[[]ocispec.Descriptor](t)(graph.Children(d.MediaType, s.Get(d.Digest))) {
			if !seen[c.Digest] {
				t.Errorf("%s comes before its child %s", d.Digest, c.Digest)
			}
		}
		if seen[d.Digest] {
			t.Errorf("%s twice", d.Digest)
		}
		seen[d.Digest] = true
	}
	if last.Depth() != 3 || len(g.Warnings) != 0 {
		t.Errorf("depth %d, warnings %q", last.Depth(), g.Warnings)
	}
}

// hostile makes one bad graph; the error must have the class and contain the text.
type hostile struct {
	name  string
	class abi.Class
	text  string
	make  func(s *graphtest.Store) ocispec.Descriptor
	opts  graph.LoadOptions
}

func doc(mediaType, text string) func(*graphtest.Store) ocispec.Descriptor {
	return func(s *graphtest.Store) ocispec.Descriptor { return s.Put(mediaType, []byte(text)) }
}

// manifestWith makes a manifest whose config and first layer descriptor are edited.
func manifestWith(edit func(config, layer *ocispec.Descriptor)) func(*graphtest.Store) ocispec.Descriptor {
	return func(s *graphtest.Store) ocispec.Descriptor {
		l := s.Layer(map[string]string{"f": "1"})
		c := s.Put(ociConfig, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, l.DiffID))
		edit(&c, &l.Desc)
		m := ocispec.Manifest{MediaType: ociManifest, Config: c, Layers: []ocispec.Descriptor{l.Desc}}
		m.SchemaVersion = 2
		return s.PutJSON(ociManifest, m)
	}
}

const someConfig = `"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}`

func hostiles() []hostile {
	type desc = ocispec.Descriptor
	type store = graphtest.Store
	return []hostile{
		{"cycle", abi.ErrDigest, "descriptor says", (*store).Cycle, graph.LoadOptions{}},
		{"doubling 22 levels", abi.ErrLimit, "nested more than 8", func(s *store) desc { return s.Doubling(22, twoLayers(s, ocispec.Platform{})) }, graph.LoadOptions{}},
		{"doubling 22 levels, deep nesting allowed", abi.ErrLimit, "more than 10000 references", func(s *store) desc { return s.Doubling(22, twoLayers(s, ocispec.Platform{})) },
			graph.LoadOptions{Limits: graph.Limits{Nesting: 100}}},
		{"nesting 9", abi.ErrLimit, "nested more than 8", func(s *store) desc { return s.Nested(9, twoLayers(s, ocispec.Platform{})) }, graph.LoadOptions{}},
		{"100000 references", abi.ErrLimit, "the limit is", func(s *store) desc { return s.Wide(100_000) }, graph.LoadOptions{}},
		{"100000 references, large documents allowed", abi.ErrLimit, "100000 descriptors, the limit is 10000", func(s *store) desc { return s.Wide(100_000) },
			graph.LoadOptions{Limits: graph.Limits{Document: 64 << 20}}},
		{"10000 references and the root", abi.ErrLimit, "more than 10000 references", func(s *store) desc { return s.Wide(10_000) }, graph.LoadOptions{}},
		{"distinct blobs", abi.ErrLimit, "more than 5 blobs", func(s *store) desc { return s.Wide(5) }, graph.LoadOptions{Limits: graph.Limits{Nodes: 5}}},
		{"total bytes", abi.ErrLimit, "declare more than", func(s *store) desc {
			return s.Index(desc{MediaType: "a/b", Digest: digest.FromString("x"), Size: 1 << 62})
		}, graph.LoadOptions{}},
		{"513 layers", abi.ErrLimit, "513 layers, the limit is 512", func(s *store) desc {
			l := s.Layer(nil)
			im := graphtest.Image{}
			for range 513 {
				im.Layers = append(im.Layers, l)
			}
			return s.Image(im)
		}, graph.LoadOptions{}},
		{"large document", abi.ErrLimit, "the limit is 4194304", func(s *store) desc {
			return s.Put(ociIndex, []byte(`{"schemaVersion":2,"manifests":[]}`+strings.Repeat(" ", 4<<20)))
		}, graph.LoadOptions{}},
		{"large config", abi.ErrLimit, "the limit is 10", func(s *store) desc { return twoLayers(s, ocispec.Platform{}) }, graph.LoadOptions{Limits: graph.Limits{Config: 10}}},
		{"large annotations", abi.ErrLimit, "annotations have", func(s *store) desc {
			return s.Image(graphtest.Image{Annotations: map[string]string{"k": strings.Repeat("x", 65536)}})
		}, graph.LoadOptions{}},
		{"large data", abi.ErrLimit, "embeds 65537 bytes", manifestWith(func(c, _ *desc) { c.Data = make([]byte, 65537) }), graph.LoadOptions{}},
		{"lying data", abi.ErrDigest, "embedded data has digest", manifestWith(func(c, _ *desc) { c.Data = make([]byte, c.Size) }), graph.LoadOptions{}},
		{"lying data size", abi.ErrDigest, "embedded data of", manifestWith(func(c, _ *desc) { c.Data = []byte("{}") }), graph.LoadOptions{}},
		{"deep json", abi.ErrLimit, "nesting depth", doc(ociIndex, strings.Repeat(`{"a":`, 1000)), graph.LoadOptions{}},

		{"wrong digest", abi.ErrDigest, "document has digest", func(s *store) desc { d := twoLayers(s, ocispec.Platform{}); s.Flip(d.Digest); return d }, graph.LoadOptions{}},
		{"wrong digest of config", abi.ErrDigest, "config sha256:", func(s *store) desc {
			d := twoLayers(s, ocispec.Platform{})
			s.Flip(load2(s, d).Root.ConfigNode().Desc.Digest)
			return d
		}, graph.LoadOptions{}},
		{"short document", abi.ErrDigest, "its descriptor says", func(s *store) desc { d := twoLayers(s, ocispec.Platform{}); s.Cut(d.Digest); return d }, graph.LoadOptions{}},
		{"long document", abi.ErrDigest, "more than the", func(s *store) desc {
			d := twoLayers(s, ocispec.Platform{})
			s.PutAs(d.Digest, append(s.Get(d.Digest), ' '))
			return d
		}, graph.LoadOptions{}},
		{"missing manifest", abi.ErrNotFound, "→ manifest 0 (linux/amd64) sha256:", func(s *store) desc {
			d := twoLayers(s, ocispec.Platform{})
			s.Delete(d.Digest)
			return s.Index(d)
		}, graph.LoadOptions{}},
		{"negative size", abi.ErrCorrupt, "size is -1", manifestWith(func(_, l *desc) { l.Size = -1 }), graph.LoadOptions{}},
		{"empty document", abi.ErrCorrupt, "size of the manifest is 0", func(s *store) desc { return s.Index(s.Put(ociManifest, nil)) }, graph.LoadOptions{}},
		{"control characters in a platform", abi.ErrCorrupt, "printable", func(s *store) desc {
			d := twoLayers(s, ocispec.Platform{})
			d.Platform = &ocispec.Platform{OS: "linux\x1b[2J", Architecture: "amd64"}
			return s.Index(d)
		}, graph.LoadOptions{}},
		{"control characters in a config", abi.ErrCorrupt, "printable", func(s *store) desc {
			return s.Index(s.Image(graphtest.Image{ConfigJSON: `{"os":"a\nb"}`}))
		}, graph.LoadOptions{}},
		{"control characters in a media type", abi.ErrCorrupt, "printable", manifestWith(func(_, l *desc) { l.MediaType = "a/\nb" }), graph.LoadOptions{}},
		{"docker manifest seen as OCI", abi.ErrCorrupt, "document says it is", func(s *store) desc {
			d := s.Image(graphtest.Image{Docker: true})
			e := d
			e.MediaType = ociManifest
			return s.Index(d, e)
		}, graph.LoadOptions{}},
		{"no media type", abi.ErrCorrupt, "no media type", manifestWith(func(_, l *desc) { l.MediaType = "" }), graph.LoadOptions{}},
		{"digest algorithm", abi.ErrUnsupported, "algorithm", manifestWith(func(_, l *desc) { l.Digest = "md5:d41d8cd98f00b204e9800998ecf8427e00000000" }), graph.LoadOptions{}},
		{"upper-case digest", abi.ErrCorrupt, "lower-case", manifestWith(func(_, l *desc) {
			l.Digest = digest.Digest("sha256:" + strings.ToUpper(digest.FromString("x").Encoded()))
		}), graph.LoadOptions{}},
		{"path-like digest", abi.ErrCorrupt, "not a digest", manifestWith(func(_, l *desc) { l.Digest = "sha256:../../../../etc/passwd" }), graph.LoadOptions{}},
		{"file url", abi.ErrCorrupt, "not an http", manifestWith(func(_, l *desc) { l.URLs = []string{"file:///etc/passwd"} }), graph.LoadOptions{}},
		{"two sizes", abi.ErrCorrupt, "elsewhere", func(s *store) desc {
			d := twoLayers(s, ocispec.Platform{})
			e := d
			e.Size++
			return s.Index(d, e)
		}, graph.LoadOptions{}},
		{"manifest seen as index", abi.ErrCorrupt, "elsewhere", func(s *store) desc {
			d := twoLayers(s, ocispec.Platform{})
			e := d
			e.MediaType = ociIndex
			return s.Index(d, e)
		}, graph.LoadOptions{}},
		{"layer in two compressions", abi.ErrCorrupt, "media type is", func(s *store) desc {
			l := s.Layer(nil)
			z := l
			z.Desc.MediaType = ocispec.MediaTypeImageLayerZstd
			return s.Image(graphtest.Image{Layers: []graphtest.Layer{l, z}})
		}, graph.LoadOptions{}},
		{"inner media type", abi.ErrCorrupt, "document says it is", doc(ociManifest, `{"schemaVersion":2,"mediaType":"`+ociIndex+`",`+someConfig+`,"layers":[]}`), graph.LoadOptions{}},
		{"index and manifest", abi.ErrCorrupt, "two kinds", doc(ociManifest, `{"schemaVersion":2,`+someConfig+`,"layers":[],"manifests":[]}`), graph.LoadOptions{}},
		{"manifest typed as index", abi.ErrCorrupt, "two kinds", doc(ociIndex, `{"schemaVersion":2,`+someConfig+`,"layers":[]}`), graph.LoadOptions{}},
		{"neither", abi.ErrCorrupt, "no field", doc(ociIndex, `{"schemaVersion":2}`), graph.LoadOptions{}},
		{"no config", abi.ErrCorrupt, "no config", doc(ociManifest, `{"schemaVersion":2,"layers":[]}`), graph.LoadOptions{}},
		{"duplicate key", abi.ErrCorrupt, "second time", doc(ociManifest, `{"schemaVersion":2,`+someConfig+`,"layers":[],"layers":[]}`), graph.LoadOptions{}},
		{"duplicate key, escaped", abi.ErrCorrupt, "second time", doc(ociManifest, `{"schemaVersion":2,`+someConfig+`,"layers":[],"l\u0061yers":[]}`), graph.LoadOptions{}},
		{"key in other case", abi.ErrCorrupt, "only in case", doc(ociManifest, `{"schemaVersion":2,`+someConfig+`,"layers":[],"Layers":[]}`), graph.LoadOptions{}},
		{"descriptor key in other case", abi.ErrCorrupt, "only in case", doc(ociManifest, `{"schemaVersion":2,`+someConfig+`,"layers":[{"Digest":""}]}`), graph.LoadOptions{}},
		{"trailing bytes", abi.ErrCorrupt, "trailing bytes", doc(ociManifest, `{"schemaVersion":2,`+someConfig+`,"layers":[]} {}`), graph.LoadOptions{}},
		{"invalid utf-8", abi.ErrCorrupt, "valid UTF-8", doc(ociManifest, "{\"schemaVersion\":2,"+someConfig+",\"layers\":[],\"x\":\"\xff\"}"), graph.LoadOptions{}},
		{"lone surrogate", abi.ErrCorrupt, "surrogates", doc(ociManifest, `{"schemaVersion":2,`+someConfig+`,"layers":[],"x":"\ud800"}`), graph.LoadOptions{}},
		{"truncated json", abi.ErrTruncated, "json", doc(ociManifest, `{"schemaVersion":2,`), graph.LoadOptions{}},
		{"array", abi.ErrCorrupt, "an object", doc(ociManifest, `[]`), graph.LoadOptions{}},
		{"schema version 3", abi.ErrCorrupt, "schemaVersion is 3", doc(ociManifest, `{"schemaVersion":3,`+someConfig+`,"layers":[]}`), graph.LoadOptions{}},
		{"schema 1", abi.ErrUnsupported, "schema 1", doc(graph.DockerSchema1Signed, `{}`), graph.LoadOptions{}},
		{"schema 1 below an index", abi.ErrUnsupported, "schema 1", func(s *store) desc { return s.Index(s.Put(graph.DockerSchema1, []byte("{}"))) }, graph.LoadOptions{}},
		{"schema 1 inside", abi.ErrUnsupported, "schema 1", doc(ociManifest, `{"schemaVersion":1,"fsLayers":[]}`), graph.LoadOptions{}},
		{"diff_ids", abi.ErrCorrupt, "config has 0 diff_ids, the manifest has 1 layers", manifestWith(func(c, _ *desc) {
			*c = desc{MediaType: ociConfig, Digest: digest.FromString("{}"), Size: 2, Data: []byte("{}")}
		}), graph.LoadOptions{}},
		{"root of another kind", abi.ErrInvalid, "neither", doc("text/plain", "x"), graph.LoadOptions{}},
	}
}

func load2(s *graphtest.Store, d ocispec.Descriptor) *graph.Graph {
	g, err := graph.Load(context.Background(), s, d, graph.LoadOptions{})
	if err != nil {
		panic(err)
	}
	return g
}

func TestHostile(t *testing.T) {
	for _, h := range hostiles() {
		t.Run(h.name, func(t *testing.T) {
			s := graphtest.NewStore()
			g, err := graph.Load(t.Context(), s, h.make(s), h.opts)
			if g != nil || err == nil || abi.ClassOf(err) != h.class {
				t.Fatalf("got %v, class %v; want class %v", err, abi.ClassOf(err), h.class)
			}
			if !strings.Contains(err.Error(), h.text) || !strings.Contains(err.Error(), "sha256:") {
				t.Errorf("message %q, want the place and %q", err, h.text)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	s := graphtest.NewStore()
	im := graphtest.Image{}
	for i := range 128 {
		im.Layers = append(im.Layers, s.Layer(map[string]string{"f": fmt.Sprint(i)}))
	}
	many := s.Image(im)
	odd := s.Image(graphtest.Image{ConfigJSON: `{"os":"linux","architecture":"amd64","history":[{"comment":"a layer that is not there"}]}`})
	odd.Platform = &ocispec.Platform{OS: "linux"}
	w := load(t, s, s.Index(many, odd)).Warnings
	for i, want := range []string{"128 layers are more than", "platform lacks architecture or os", "history names 1 layers, the manifest has 0"} {
		if len(w) != 3 || !strings.Contains(w[i], want) {
			t.Fatalf("warnings %q, want %q", w, want)
		}
	}
}

// failing is a store whose readers break.
type failing struct{ err error }

func (f failing) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("{"), errReader(f))), nil
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestFetchErrors(t *testing.T) {
	root := ocispec.Descriptor{MediaType: ociIndex, Digest: digest.FromString("x"), Size: 50}
	for _, c := range []struct {
		err  error
		want abi.Class
	}{{errors.New("disk on fire"), abi.ErrIO}, {os.ErrNotExist, abi.ErrNotFound}, {context.Canceled, abi.ErrCanceled},
		{abi.Errorf(abi.ErrDenied, "no"), abi.ErrDenied}, {os.ErrPermission, abi.ErrDenied}} {
		if _, err := graph.Load(t.Context(), failing{c.err}, root, graph.LoadOptions{}); abi.ClassOf(err) != c.want {
			t.Errorf("%v became class %v, want %v", c.err, abi.ClassOf(err), c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := graphtest.NewStore()
	if _, err := graph.Load(ctx, s, twoLayers(s, ocispec.Platform{}), graph.LoadOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// layout reads an OCI layout directory.
type layout string

func (l layout) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return os.Open(filepath.Join(string(l), "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded()))
}

// debian returns the tags of the shared test image.
func debian(t *testing.T) (layout, map[string]ocispec.Descriptor) {
	dir := os.Getenv("CONVHOST_TESTDATA")
	if dir == "" {
		t.Skip("CONVHOST_TESTDATA is not set: the real image is not tried")
	}
	l := layout(filepath.Join(dir, "images", "debian-multi"))
	raw, err := os.ReadFile(filepath.Join(string(l), "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]ocispec.Descriptor{}
	g, err := graph.Load(t.Context(), l, ocispec.Descriptor{MediaType: ociIndex, Digest: digest.FromBytes(raw), Size: int64(len(raw)), Data: raw}, graph.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range g.Root.Children {
		tags[n.Desc.Annotations[ocispec.AnnotationRefName]] = n.Desc
	}
	return l, tags
}

func TestLoadDebian(t *testing.T) {
	l, tags := debian(t)
	want := map[string]string{"amd64": "amd64", "index": "amd64 arm64 - -", "nested": "amd64 arm64 - - amd64",
		"docker": "amd64", "dockerlist": "amd64", "sbom": "-"}
	if len(tags) != len(want) {
		t.Fatalf("tags are %v", tags)
	}
	for tag, d := range tags {
		g := load(t, l, d)
		var got []string
		for _, n := range g.Root.Manifests() {
			if n.Runnable {
				got = append(got, n.Platform.Architecture)
			} else {
				got = append(got, "-")
			}
		}
		if s := strings.Join(got, " "); s != want[tag] {
			t.Errorf("%s: %s, want %s", tag, s, want[tag])
		}
		if len(g.Warnings) > 0 {
			t.Errorf("%s: %q", tag, g.Warnings)
		}
	}
}
