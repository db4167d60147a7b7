package graphtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types, as graph has them.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Layer is a stored layer and the digest of its tar.
type Layer struct {
	Desc   ocispec.Descriptor
	DiffID digest.Digest
}

// Layer stores a tar+gzip of regular files, sorted by name, all times zero.
func (s *Store) Layer(files map[string]string) Layer {
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Format: tar.FormatPAX}))
		_, err := w.Write([]byte(files[name]))
		must(err)
	}
	must(w.Close())
	return s.TarLayer(raw.Bytes())
}

// TarLayer stores a tar as tar+gzip.
func (s *Store) TarLayer(raw []byte) Layer {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := w.Write(raw)
	must(err)
	must(w.Close())
	return Layer{Desc: s.Put(ocispec.MediaTypeImageLayerGzip, z.Bytes()), DiffID: digest.FromBytes(raw)}
}

// Image describes an image to make. The zero value is linux/amd64, OCI, without layers.
type Image struct {
	Platform     ocispec.Platform
	Layers       []Layer
	Docker       bool // schema 2, with Docker's media types and a config.Image
	History      bool // one item a layer, and an empty one in front
	NoMediaType  bool // the manifest does not name its type
	Annotations  map[string]string
	ArtifactType string
	Subject      *ocispec.Descriptor
	ConfigJSON   string // the whole config, instead of one made from the fields above
}

// Image stores config and manifest and returns the manifest's descriptor, with its platform.
func (s *Store) Image(im Image) ocispec.Descriptor {
	if im.Platform.OS == "" {
		im.Platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	}
	types := []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig}
	if im.Docker {
		types = []string{dockerManifest, dockerConfig}
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: types[0], Annotations: im.Annotations,
		ArtifactType: im.ArtifactType, Subject: im.Subject, Config: s.config(im, types[1]), Layers: []ocispec.Descriptor{}}
	if im.NoMediaType {
		m.MediaType = ""
	}
	for _, l := range im.Layers {
		if d := l.Desc; im.Docker && d.MediaType == ocispec.MediaTypeImageLayerGzip {
			l.Desc.MediaType = dockerLayer
		}
		m.Layers = append(m.Layers, l.Desc)
	}
	d := s.PutJSON(types[0], m)
	d.Platform = &im.Platform
	return d
}

func (s *Store) config(im Image, mediaType string) ocispec.Descriptor {
	if im.ConfigJSON != "" {
		return s.Put(mediaType, []byte(im.ConfigJSON))
	}
	ids := []digest.Digest{}
	for _, l := range im.Layers {
		ids = append(ids, l.DiffID)
	}
	cfg := map[string]any{"architecture": im.Platform.Architecture, "os": im.Platform.OS,
		"config": map[string]any{"Env": []string{"APP=lab"}}, "rootfs": ocispec.RootFS{Type: "layers", DiffIDs: ids}}
	if im.Platform.Variant != "" {
		cfg["variant"] = im.Platform.Variant
	}
	if im.Docker {
		cfg["config"] = map[string]any{"Env": []string{"APP=lab"}, "Image": digest.FromString("parent")}
		cfg["container_config"] = map[string]any{"Image": digest.FromString("parent"), "Tty": false}
	}
	if im.History {
		h := []map[string]any{{"created_by": "ENV APP=lab", "empty_layer": true}}
		for i := range im.Layers {
			h = append(h, map[string]any{"created_by": fmt.Sprintf("layer %d", i)})
		}
		cfg["history"] = h
	}
	return s.PutJSON(mediaType, cfg)
}

// Index stores an OCI index with these entries.
func (s *Store) Index(entries ...ocispec.Descriptor) ocispec.Descriptor {
	return s.PutJSON(ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: entries})
}

// List stores a Docker manifest list with these entries.
func (s *Store) List(entries ...ocispec.Descriptor) ocispec.Descriptor {
	return s.PutJSON(dockerList, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: dockerList, Manifests: entries})
}

// Attestation stores BuildKit's older form of an attestation of an image: an image manifest for unknown/unknown that
// the index entry's annotations tie to the image.
func (s *Store) Attestation(of ocispec.Descriptor) ocispec.Descriptor {
	st := s.statement(of)
	d := s.Image(Image{Platform: ocispec.Platform{OS: "unknown", Architecture: "unknown"},
		Layers: []Layer{{Desc: st, DiffID: st.Digest}}})
	d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of.Digest.String()}
	return d
}

// AttestationArtifact stores BuildKit's newer form: an artifact with an empty config and a subject.
func (s *Store) AttestationArtifact(of ocispec.Descriptor) ocispec.Descriptor {
	d := s.artifact("application/vnd.docker.attestation.manifest.v1+json", s.statement(of), of)
	d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	return d
}

// Artifact stores an SBOM-like artifact whose subject is another manifest.
func (s *Store) Artifact(of ocispec.Descriptor) ocispec.Descriptor {
	return s.artifact("application/spdx+json", s.Put("application/spdx+json", []byte(`{"spdxVersion":"SPDX-2.3"}`)), of)
}

func (s *Store) artifact(artifactType string, blob, of ocispec.Descriptor) ocispec.Descriptor {
	empty := s.Put(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	empty.Data = []byte("{}")
	subject := ocispec.Descriptor{MediaType: of.MediaType, Digest: of.Digest, Size: of.Size}
	d := s.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType, Config: empty,
		Layers: []ocispec.Descriptor{blob}, Subject: &subject})
	d.ArtifactType = artifactType
	return d
}

func (s *Store) statement(of ocispec.Descriptor) ocispec.Descriptor {
	return s.PutJSON("application/vnd.in-toto+json", json.RawMessage(
		`{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"name":"_","digest":{"sha256":"`+of.Digest.Encoded()+`"}}]}`))
}

func must(err error) {
	if err != nil {
		panic("graphtest: " + err.Error())
	}
}
