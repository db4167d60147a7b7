package graph_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The names of these tests are the rules of rewriting: R2 unknown fields, R3 unchanged bytes, R4 descriptors,
// R5 layers, diff_ids and history in step, R6 by position, R7 Docker's Image, R8 order, R9 indexes, R10 Docker to OCI,
// R11 only images, R12 attestations, R13 subjects, R14 nesting and sharing, R15 equal results, R16 foreign layers,
// R17 labels, R18 publish last, R19 read back, R20 determinism. R1 is the order of writing.

func blob(mediaType, text string) ocispec.Descriptor {
	return graph.DocumentDescriptor(mediaType, []byte(text))
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func decode(t *testing.T, raw []byte) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return m
}

// oddManifest has unknown fields, odd numbers and odd white space.
const oddManifest = `{
   "x-first": 1.00e2, "schemaVersion": 2,
   "config": {"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","x-c":[1]},
   "layers": [
      {"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":7,"digest":"sha256:aec070645fe53ee3b3763059376134f058cc337247c978add178b6ccdfb0019f","x-l":true},
      {"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip","size":8,"digest":"sha256:b413f47d13ee2fe6c845b2ee141af81de858df4ec549a58b7970bb96645bc8d2","urls":["https://example.com/l"],"x-l":2}
   ],
   "annotations": { "keep":"\u00e9", "drop":"x" },
   "x-last": {"a":[ ]}
}
`

func oddLayers(t *testing.T) (m ocispec.Manifest) {
	if err := json.Unmarshal([]byte(oddManifest), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestR2UnknownFieldsSurvive(t *testing.T) {
	m := oddLayers(t)
	layers := []ocispec.Descriptor{blob("application/x", "new"), m.Layers[1]}
	got := string(must[[]byte](t)(graph.EditManifest([]byte(oddManifest), graph.ManifestChange{Layers: layers,
		Annotations: map[string]string{"new": "<&>"}, RemoveAnnotations: []string{"drop", "absent"}})))
	for _, want := range []string{`"x-first": 1.00e2, "schemaVersion": 2,`, `"x-c":[1]},`, `"x-l":2}` + "\n   ],", `"x-last": {"a":[ ]}` + "\n}\n",
		`"keep":"\u00e9"`, `"new":"<&>"`, `"digest":"` + layers[0].Digest.String()} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
	if strings.Contains(got, "drop") || strings.Contains(got, "x-l\":true") || strings.Contains(got, "null") {
		t.Errorf("left over: %s", got)
	}
}

func TestR3UnchangedKeepsBytes(t *testing.T) {
	m := oddLayers(t)
	for name, ch := range map[string]graph.ManifestChange{"zero": {}, "same values": {Config: &m.Config, Layers: m.Layers,
		MediaType: ociManifest, Annotations: map[string]string{"keep": "é"}, RemoveAnnotations: []string{"absent"}, RemoveSubject: true}} {
		if got := must[[]byte](t)(graph.EditManifest([]byte(oddManifest), ch)); string(got) != oddManifest {
			t.Errorf("%s: became %s", name, got)
		}
	}
	cfg := `{ "rootfs":{"diff_ids":[ ],"type":"layers"}, "history":[ ], "os.features":["a" ], "config":{"Image":"x"} }`
	if got := must[[]byte](t)(graph.EditConfig([]byte(cfg), graph.ConfigChange{DiffIDs: []digest.Digest{}, OSFeatures: []string{"a"},
		History: graph.HistoryChange{Append: []ocispec.History{{Comment: "not added, there is none"}}}})); string(got) != cfg {
		t.Errorf("config became %s", got)
	}
	ix := `{"schemaVersion":2,"manifests":null }`
	if got := must[[]byte](t)(graph.EditIndex([]byte(ix), graph.IndexChange{})); string(got) != ix {
		t.Errorf("index became %s", got)
	}
}

func TestR4NewDescriptors(t *testing.T) {
	old := ocispec.Descriptor{MediaType: ociGzip, Digest: digest.FromString("old"), Size: 3, URLs: []string{"https://example.com"}, Data: []byte("old"),
		ArtifactType: "a", Annotations: map[string]string{"keep": "1", "org.opencontainers.image.title": "2", "containerd.io/uncompressed": "x",
			"containerd.io/snapshot/nydus-blob": "x", "containerd.io/snapshot/stargz/toc.digest": "x",
			"io.containers.estargz.uncompressed-size": "x", "containerd.io/distribution.source.docker.io": "x"}}
	d := graph.NewDescriptor(old, "new/type", digest.FromString("new"), 9)
	if len(d.Annotations) != 2 || d.Annotations["keep"] != "1" || d.Data != nil || d.URLs != nil || d.ArtifactType != "" || d.Size != 9 {
		t.Errorf("descriptor is %+v", d)
	}
	if len(old.Annotations) != 7 {
		t.Error("the old descriptor was changed")
	}
	// a descriptor of new bytes never carries data or urls, not even if the caller forgot
	old.Digest = digest.FromString("other")
	raw := must[[]byte](t)(graph.EditManifest([]byte(oddManifest), graph.ManifestChange{Layers: []ocispec.Descriptor{old}}))
	if l := decode(t, raw)["layers"].([]any)[0].(map[string]any); l["data"] != nil || l["urls"] != nil {
		t.Errorf("layer is %v", l)
	}
	// an index entry that points elsewhere loses data (a proven defect of another converter), urls and stale annotations
	ix := `{"schemaVersion":2,"manifests":[{"mediaType":"` + ociManifest + `","size":1,"x":0,"digest":"` + digest.FromString("a").String() +
		`","data":"YQ==","urls":["https://e"],"annotations":{"containerd.io/uncompressed":"x"},"platform":{"os":"linux","architecture":"amd64","x":[]}}]}`
	n := blob(ociManifest, "bb")
	got := string(must[[]byte](t)(graph.EditIndex([]byte(ix), graph.IndexChange{Entries: map[int]graph.EntryChange{0: {Desc: &n}}})))
	want := `{"schemaVersion":2,"manifests":[{"mediaType":"` + ociManifest + `","size":2,"x":0,"digest":"` + n.Digest.String() +
		`","platform":{"os":"linux","architecture":"amd64","x":[]}}]}`
	if got != want {
		t.Errorf("index is\n%s, want\n%s", got, want)
	}
}

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// threeLayers is a config with two layers and an empty item between them.
const threeLayers = `{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + someDigest + `","` + someDigest + `"]},` +
	`"history":[{"created_by":"one","x":1},{"created_by":"ENV","empty_layer":true},{"created_by":"two"}]}`

func TestR5HistoryInStep(t *testing.T) {
	ids := func(n int) (out []digest.Digest) {
		for range n {
			out = append(out, digest.FromString("new"))
		}
		return out
	}
	finish := ocispec.History{CreatedBy: "a converter", Comment: "its last layer"}
	for _, c := range []struct {
		name string
		ch   graph.ConfigChange
		want string // history as created_by list
		err  abi.Class
	}{
		{"append", graph.ConfigChange{DiffIDs: ids(3), History: graph.HistoryChange{Append: []ocispec.History{finish}}}, "one,ENV,two,a converter", 0},
		{"prepend", graph.ConfigChange{DiffIDs: ids(3), History: graph.HistoryChange{Prepend: []ocispec.History{finish}}}, "a converter,one,ENV,two", 0},
		{"drop first", graph.ConfigChange{DiffIDs: ids(1), History: graph.HistoryChange{Drop: []int{0}}}, "ENV,two", 0},
		{"drop last", graph.ConfigChange{DiffIDs: ids(1), History: graph.HistoryChange{Drop: []int{1}}}, "one,ENV", 0},
		{"merge all", graph.ConfigChange{DiffIDs: ids(1), History: graph.HistoryChange{Drop: []int{1, 0, 1}, Append: []ocispec.History{finish}}}, "ENV,a converter", 0},
		{"replace", graph.ConfigChange{DiffIDs: ids(1), History: graph.HistoryChange{Replace: []ocispec.History{finish}}}, "a converter", 0},
		{"recompress", graph.ConfigChange{DiffIDs: ids(2)}, "one,ENV,two", 0},
		{"forgotten history", graph.ConfigChange{DiffIDs: ids(3)}, "", abi.ErrInvalid},
		{"forgotten diff_id", graph.ConfigChange{History: graph.HistoryChange{Append: []ocispec.History{finish}}}, "", abi.ErrInvalid},
		{"drop a layer that is not there", graph.ConfigChange{DiffIDs: ids(1), History: graph.HistoryChange{Drop: []int{2}}}, "", abi.ErrInvalid},
		{"not a digest", graph.ConfigChange{DiffIDs: []digest.Digest{"x", "y"}}, "", abi.ErrInvalid},
	} {
		raw, err := graph.EditConfig([]byte(threeLayers), c.ch)
		if abi.ClassOf(err) != c.err {
			t.Errorf("%s: error %v, want class %v", c.name, err, c.err)
		}
		if err != nil {
			continue
		}
		var names []string
		for _, h := range decode(t, raw)["history"].([]any) {
			names = append(names, h.(map[string]any)["created_by"].(string))
		}
		if got := strings.Join(names, ","); got != c.want {
			t.Errorf("%s: history is %s, want %s", c.name, got, c.want)
		}
		if strings.Contains(c.want, "one") && !strings.Contains(string(raw), `{"created_by":"one","x":1}`) {
			t.Errorf("%s: untouched item changed: %s", c.name, raw)
		}
	}
	// absent stays absent, out of step stays out of step
	bare := `{"rootfs":{"type":"layers","diff_ids":[]}}`
	raw := must[[]byte](t)(graph.EditConfig([]byte(bare), graph.ConfigChange{DiffIDs: ids(1), History: graph.HistoryChange{Append: []ocispec.History{finish}}}))
	if strings.Contains(string(raw), "history") {
		t.Errorf("history appeared: %s", raw)
	}
	out := `{"rootfs":{"type":"layers","diff_ids":[]},"history":[{"comment":"x"}]}`
	raw = must[[]byte](t)(graph.EditConfig([]byte(out), graph.ConfigChange{DiffIDs: ids(1), History: graph.HistoryChange{Append: []ocispec.History{finish}}}))
	if n := len(decode(t, raw)["history"].([]any)); n != 2 {
		t.Errorf("history has %d items", n)
	}
}

// TestR6DiffIDsByPosition: two equal layers of one manifest may become different ones (a defect elsewhere: one map
// from old to new diff_id for the whole image).
func TestR6DiffIDsByPosition(t *testing.T) {
	a, b := digest.FromString("a"), digest.FromString("b")
	raw := must[[]byte](t)(graph.EditConfig([]byte(threeLayers), graph.ConfigChange{DiffIDs: []digest.Digest{a, b}}))
	if got := decode(t, raw)["rootfs"].(map[string]any)["diff_ids"].([]any); got[0] != string(a) || got[1] != string(b) {
		t.Errorf("diff_ids are %v", got)
	}
}

func TestR7DockerImageGoes(t *testing.T) {
	s := graphtest.NewStore()
	g := load(t, s, s.Image(graphtest.Image{Docker: true, Layers: []graphtest.Layer{s.Layer(nil)}}))
	raw := must[[]byte](t)(graph.EditConfig(g.Root.ConfigNode().Raw, graph.ConfigChange{OSFeatures: []string{"lazy"}}))
	m := decode(t, raw)
	for _, f := range []string{"config", "container_config"} {
		if o := m[f].(map[string]any); o["Image"] != nil || len(o) != 1 {
			t.Errorf("%s is %v", f, o)
		}
	}
	if f := m["os.features"].([]any); len(f) != 1 || f[0] != "lazy" {
		t.Errorf("os.features are %v", f)
	}
}

func TestR8LayerOrder(t *testing.T) {
	m := oddLayers(t)
	want := []ocispec.Descriptor{m.Layers[1], blob("a/b", "1"), m.Layers[0], blob("a/b", "2")}
	raw := must[[]byte](t)(graph.EditManifest([]byte(oddManifest), graph.ManifestChange{Layers: want}))
	var got ocispec.Manifest
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if got.Layers[i].Digest != want[i].Digest {
			t.Errorf("layer %d is %s, want %s", i, got.Layers[i].Digest, want[i].Digest)
		}
	}
}

func TestR9IndexEdits(t *testing.T) {
	d := func(s string) string {
		return `{"mediaType":"` + ociManifest + `","digest":"` + digest.FromString(s).String() + `","size":1`
	}
	ix := `{"schemaVersion":2,"manifests":[` + d("0") + `,"platform":{"architecture":"amd64","os":"linux","os.features":["a"]}}, ` +
		d("1") + `,"platform":{"architecture":"arm64","os":"linux"}},` + d("2") + `}]}`
	edit := func(e map[int]graph.EntryChange) string {
		return string(must[[]byte](t)(graph.EditIndex([]byte(ix), graph.IndexChange{Entries: e})))
	}
	p := arm64()
	got := edit(map[int]graph.EntryChange{0: {OSFeatures: []string{"lazy", "a"}}, 1: {Drop: true}, 2: {Platform: &p, OSFeatures: []string{"lazy"}}})
	want := `{"schemaVersion":2,"manifests":[` + d("0") + `,"platform":{"architecture":"amd64","os":"linux","os.features":["a","lazy"]}},` +
		d("2") + `,"platform":{"architecture":"arm64","os":"linux","variant":"v8","os.features":["lazy"]}}]}`
	if got != want {
		t.Errorf("index is\n%s, want\n%s", got, want)
	}
	if got := edit(map[int]graph.EntryChange{0: {Drop: true}, 1: {Drop: true}, 2: {Drop: true}}); got != `{"schemaVersion":2,"manifests":[]}` {
		t.Errorf("empty index is %s", got)
	}
	raw := must[[]byte](t)(graph.EditIndex([]byte(`{"schemaVersion":2,"manifests":null}`), graph.IndexChange{Annotations: map[string]string{"a": "b"}}))
	if string(raw) != `{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"}}` {
		t.Errorf("null became %s", raw)
	}
	if _, err := graph.EditIndex([]byte(ix), graph.IndexChange{Entries: map[int]graph.EntryChange{3: {Drop: true}}}); abi.ClassOf(err) != abi.ErrInvalid {
		t.Errorf("entry 4 of 3: %v", err)
	}
}
