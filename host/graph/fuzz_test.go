package graph_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzEditDocument holds the three editors to their laws: no change gives the same bytes; a change made twice is the
// same as made once; members that were not to change keep their bytes.
func FuzzEditDocument(f *testing.F) {
	for _, s := range []string{oddManifest, threeLayers, `{"schemaVersion":2,"manifests":[{"mediaType":"a/b","digest":"` + someDigest +
		`","size":1,"data":"YQ==","platform":{"os":"linux","architecture":"amd64"},"x":1},{}],"x":[1.0]}`,
		`{"manifests":null}`, `{"config":{"Image":"x"},"rootfs":null,"history":[{}]}`, `{"layers":[ ]}`, `{"annotations":{"a":"b"} }`, `{"manifests":[1]}`} {
		f.Add([]byte(s))
	}
	d := blob(ociManifest, "new")
	m := graph.ManifestChange{Layers: []ocispec.Descriptor{d, blob("a/b", "2")}, Annotations: map[string]string{"k": "v"}, RemoveAnnotations: []string{"a"}, RemoveSubject: true}
	ix := graph.IndexChange{Entries: map[int]graph.EntryChange{0: {Desc: &d, OSFeatures: []string{"f"}, Platform: &ocispec.Platform{OS: "linux", Architecture: "arm"}}},
		Annotations: map[string]string{"k": "v"}}
	cfg := graph.ConfigChange{DiffIDs: []digest.Digest{d.Digest, d.Digest}, OSFeatures: []string{"f"}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		law(t, raw, []string{"layers", "annotations", "subject"}, func(b []byte, edit bool) ([]byte, error) {
			if edit {
				return graph.EditManifest(b, m)
			}
			return graph.EditManifest(b, graph.ManifestChange{})
		})
		law(t, raw, []string{"manifests", "annotations"}, func(b []byte, edit bool) ([]byte, error) {
			if edit {
				return graph.EditIndex(b, ix)
			}
			return graph.EditIndex(b, graph.IndexChange{})
		})
		law(t, raw, []string{"rootfs", "os.features", "config", "container_config"}, func(b []byte, edit bool) ([]byte, error) {
			if edit {
				return graph.EditConfig(b, cfg)
			}
			return graph.EditConfig(b, graph.ConfigChange{})
		})
	})
}

func law(t *testing.T, raw []byte, touched []string, edit func([]byte, bool) ([]byte, error)) {
	t.Helper()
	if same, err := edit(raw, false); err == nil && !bytes.Equal(same, raw) {
		t.Fatalf("no change, but %q became %q", raw, same)
	}
	once, err := edit(raw, true)
	if err != nil {
		if c := abi.ClassOf(err); c == abi.ErrInternal || once != nil {
			t.Fatalf("%q: class %v, %v", raw, c, err)
		}
		return
	}
	twice, err := edit(once, true)
	if err != nil || !bytes.Equal(once, twice) {
		t.Fatalf("%q, edited again %q (%v), from %q", once, twice, err, raw)
	}
	before, after := members(t, raw), members(t, once)
	for _, k := range touched {
		delete(before, k)
		delete(after, k)
	}
	if len(before) != len(after) {
		t.Fatalf("members of %q became those of %q", raw, once)
	}
	for k, v := range before {
		if !bytes.Equal(v, after[k]) {
			t.Fatalf("member %q is %q, was %q", k, after[k], v)
		}
	}
}

func members(t *testing.T, raw []byte) (m map[string]json.RawMessage) {
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	return m
}
