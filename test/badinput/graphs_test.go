package badinput

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/graph/graphtest"
)

// manifest stores a manifest with one good layer and lets edit change it.
func (w *world) manifest(edit func(m *ocispec.Manifest)) {
	l := goodLayer(w.Store)
	img := w.Image(graphtest.Image{Layers: []graphtest.Layer{l}})
	var m ocispec.Manifest
	w.must(json.Unmarshal(w.Get(img.Digest), &m))
	edit(&m)
	w.root = w.PutJSON(m.MediaType, m)
}

// short is a digest as graphs' paths have it. It is also the beginning of the whole one.
func short(d digest.Digest) string { return d.String()[:len("sha256:")+12] }

// graphs are the cases of descriptor graphs.
var graphs = []bad{
	{"an index that lists itself", func(w *world) {
		w.root = w.Cycle()
		w.fails(abi.ErrDigest, short(w.root.Digest))
	}},
	{"indexes in indexes, 20 deep", func(w *world) {
		w.root = w.Nested(20, w.Image(graphtest.Image{Layers: []graphtest.Layer{goodLayer(w.Store)}}))
		w.fails(abi.ErrLimit, "nested more than 8 deep")
	}},
	{"100 000 references in one index", func(w *world) {
		w.root = w.Wide(100_000)
		w.fails(abi.ErrLimit, short(w.root.Digest), "the limit is 4194304")
	}},
	{"20 000 references in one index", func(w *world) {
		w.root = w.Wide(20_000)
		w.fails(abi.ErrLimit, short(w.root.Digest), "20000")
	}},
	{"280 000 references: 7 indexes, each of which lists the next one 6 times", func(w *world) {
		d := w.Image(graphtest.Image{Layers: []graphtest.Layer{goodLayer(w.Store)}})
		for range 7 {
			d = w.Index(d, d, d, d, d, d)
		}
		w.root = d
		w.fails(abi.ErrLimit, "more than 10000 references")
	}},
	{"a manifest that has another digest", func(w *world) {
		w.manifest(func(*ocispec.Manifest) {})
		w.Flip(w.root.Digest)
		w.fails(abi.ErrDigest, short(w.root.Digest))
	}},
	{"a config that has another digest", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) {
			w.Flip(m.Config.Digest)
			w.fails(abi.ErrDigest, short(m.Config.Digest))
		})
	}},
	{"a layer that has another digest", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) {
			old := m.Layers[0].Digest
			m.Layers[0].Digest = notSuch
			w.PutAs(notSuch, w.Get(old))
			w.fails(abi.ErrDigest, short(old), short(notSuch))
		})
	}},
	{"a manifest that is shorter than its descriptor says", func(w *world) {
		w.manifest(func(*ocispec.Manifest) {})
		w.Cut(w.root.Digest)
		w.fails(abi.ErrDigest, short(w.root.Digest), strconv.FormatInt(w.root.Size, 10))
	}},
	{"a manifest that is longer than its descriptor says", func(w *world) {
		w.manifest(func(*ocispec.Manifest) {})
		w.root.Size--
		w.fails(abi.ErrDigest, short(w.root.Digest), strconv.FormatInt(w.root.Size, 10))
	}},
	{"a layer that is shorter than its descriptor says", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) {
			m.Layers[0].Size += 10
			w.fails(abi.ErrDigest, short(m.Layers[0].Digest), strconv.FormatInt(m.Layers[0].Size, 10))
		})
	}},
	{"a layer that is longer than its descriptor says", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) {
			m.Layers[0].Size -= 10
			w.fails(abi.ErrDigest, short(m.Layers[0].Digest), strconv.FormatInt(m.Layers[0].Size, 10))
		})
	}},
	{"a size below zero", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) {
			m.Layers[0].Size = -1
			w.fails(abi.ErrCorrupt, short(m.Layers[0].Digest), "-1")
		})
	}},
	{"a layer of 8 EiB, it says", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) {
			m.Layers[0].Size = 1<<63 - 1
			w.fails(abi.ErrLimit, short(m.Layers[0].Digest))
		})
	}},
	{"a digest that is none", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../../etc/passwd" })
		w.fails(abi.ErrCorrupt, short(w.root.Digest))
	}},
	{"an index whose manifest is missing", func(w *world) {
		w.root = w.Index(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: notSuch, Size: 500})
		w.fails(abi.ErrNotFound, short(notSuch))
	}},
	{"a missing config", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) {
			w.Delete(m.Config.Digest)
			w.fails(abi.ErrNotFound, short(m.Config.Digest))
		})
	}},
	{"a missing layer", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) {
			w.Delete(m.Layers[0].Digest)
			w.fails(abi.ErrNotFound, short(m.Layers[0].Digest))
		})
	}},
	{"an index entry of an unknown media type beside an image (kept as it is)", func(w *world) {
		img := w.Image(graphtest.Image{Layers: []graphtest.Layer{goodLayer(w.Store)}})
		w.root = w.Index(img, w.Put("application/x-future", []byte("future")))
		w.names = []string{"etc/motd"}
	}},
	{"an index of nothing but unknown media types", func(w *world) {
		w.root = w.Index(w.Put("application/x-future", []byte("future")))
		w.fails(abi.ErrUnsupported, short(w.root.Digest))
	}},
	{"a root of an unknown media type", func(w *world) {
		w.root = w.Put("application/x-future", []byte("future"))
		w.fails(abi.ErrInvalid, "application/x-future")
	}},
	{"a layer of an unknown media type", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) { m.Layers[0].MediaType = "application/x-future" })
		w.fails(abi.ErrUnsupported, short(w.root.Digest), "application/x-future")
	}},
	{"a config of an unknown media type", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) { m.Config.MediaType = "application/x-future" })
		w.fails(abi.ErrUnsupported, short(w.root.Digest), "application/x-future")
	}},
	{"an image of Docker's schema 1", func(w *world) {
		w.root = w.Put(graph.DockerSchema1Signed, []byte(`{"schemaVersion":1}`))
		w.fails(abi.ErrUnsupported, short(w.root.Digest), "schema 1")
	}},
	{"`data` in a descriptor that is not its content", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) {
			m.Config.Data = []byte(strings.ReplaceAll(string(w.Get(m.Config.Digest)), "lab", "bad"))
			w.fails(abi.ErrDigest, short(m.Config.Digest))
		})
	}},
	{"`data` in a descriptor that has another size", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) {
			m.Config.Data = []byte("{}")
			w.fails(abi.ErrDigest, short(m.Config.Digest))
		})
	}},
	{"a manifest that is no JSON", func(w *world) {
		w.root = w.Put(ocispec.MediaTypeImageManifest, []byte("<html>502 Bad Gateway</html>"))
		w.fails(abi.ErrCorrupt, short(w.root.Digest))
	}},
	{"a manifest with the same field twice", func(w *world) {
		w.manifest(func(*ocispec.Manifest) {})
		b := w.Get(w.root.Digest)
		w.root = w.Put(w.root.MediaType, append([]byte(`{"layers":[],`), b[1:]...))
		w.fails(abi.ErrCorrupt, short(w.root.Digest), `"layers"`)
	}},
	{"a manifest that can also be read as an index", func(w *world) {
		w.manifest(func(*ocispec.Manifest) {})
		b := w.Get(w.root.Digest)
		w.root = w.Put(w.root.MediaType, append([]byte(`{"manifests":[],`), b[1:]...))
		w.fails(abi.ErrCorrupt, short(w.root.Digest), `"manifests"`)
	}},
	{"a config with fewer diff IDs than the manifest has layers", func(w *world) {
		w.manifest(func(m *ocispec.Manifest) {
			m.Layers = append(m.Layers, m.Layers[0])
			w.fails(abi.ErrCorrupt, short(m.Config.Digest), "1 diff_ids", "2 layers")
		})
	}},
	{"a digest with two sizes", func(w *world) {
		l := goodLayer(w.Store)
		longer := l
		longer.Desc.Size++
		w.image(l, longer)
		w.fails(abi.ErrCorrupt, short(l.Desc.Digest))
	}},
}
