// Package ocidir writes and reads OCI image layouts for tests, with nothing of the host's code.
//
//	d := ocidir.New(t)
//	d.Image("app", nil, ocidir.Gzip(tar1), ocidir.Gzip(tar2))
//	img := ocidir.Open(t, dir).Manifest("app", "linux/amd64")
//	blob := img.Read(img.Layers[0])
package ocidir

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Dir is a layout.
type Dir struct {
	t    testing.TB
	Path string
}

// Layer is a layer to store: its bytes, its type, and the digest of its tar.
type Layer struct {
	Bytes       []byte
	MediaType   string
	DiffID      digest.Digest
	Annotations map[string]string
}

// Gzip makes a gzip layer of a tar.
func Gzip(tar []byte) Layer {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(tar); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return Layer{Bytes: z.Bytes(), MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: digest.FromBytes(tar)}
}

// Plain makes an uncompressed layer of a tar.
func Plain(tar []byte) Layer {
	return Layer{Bytes: tar, MediaType: ocispec.MediaTypeImageLayer, DiffID: digest.FromBytes(tar)}
}

// New makes an empty layout that is removed with the test.
func New(t testing.TB) *Dir {
	t.Helper()
	d := &Dir{t, t.TempDir()}
	d.check(os.MkdirAll(filepath.Join(d.Path, "blobs", "sha256"), 0o755))
	d.check(os.WriteFile(filepath.Join(d.Path, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	d.writeIndex(&ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}})
	return d
}

// Open reads an existing layout.
func Open(t testing.TB, path string) *Dir { return &Dir{t, path} }

func (d *Dir) check(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// Blob returns the path of a blob.
func (d *Dir) Blob(dg digest.Digest) string {
	return filepath.Join(d.Path, "blobs", dg.Algorithm().String(), dg.Encoded())
}

// Put stores a blob.
func (d *Dir) Put(mediaType string, b []byte) ocispec.Descriptor {
	d.t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	d.check(os.WriteFile(d.Blob(desc.Digest), b, 0o644))
	return desc
}

func (d *Dir) json(mediaType string, v any) ocispec.Descriptor {
	d.t.Helper()
	b, err := json.Marshal(v)
	d.check(err)
	return d.Put(mediaType, b)
}

// Image stores an image for linux/amd64 and gives it a tag.
func (d *Dir) Image(tag string, layers ...Layer) ocispec.Descriptor {
	d.t.Helper()
	var descs []ocispec.Descriptor
	var diffIDs []digest.Digest
	for _, l := range layers {
		desc := d.Put(l.MediaType, l.Bytes)
		desc.Annotations = l.Annotations
		descs, diffIDs = append(descs, desc), append(diffIDs, l.DiffID)
	}
	return d.ImageOf(tag, descs, diffIDs)
}

// ImageOf is Image for layers that are stored already.
func (d *Dir) ImageOf(tag string, layers []ocispec.Descriptor, diffIDs []digest.Digest) ocispec.Descriptor {
	d.t.Helper()
	desc := d.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: layers,
		Config: d.json(ocispec.MediaTypeImageConfig, ocispec.Image{
			Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: diffIDs}}),
	})
	idx := d.Index()
	tagged := desc
	tagged.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	idx.Manifests = append(idx.Manifests, tagged)
	d.writeIndex(idx)
	return desc
}

func (d *Dir) writeIndex(idx *ocispec.Index) {
	d.t.Helper()
	b, err := json.Marshal(idx)
	d.check(err)
	d.check(os.WriteFile(filepath.Join(d.Path, "index.json"), b, 0o644))
}

// Index reads index.json.
func (d *Dir) Index() *ocispec.Index {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join(d.Path, "index.json"))
	d.check(err)
	idx := &ocispec.Index{}
	d.check(json.Unmarshal(b, idx))
	return idx
}

// Read returns a blob and fails the test if it is not what desc says.
func (d *Dir) Read(desc ocispec.Descriptor) []byte {
	d.t.Helper()
	b, err := os.ReadFile(d.Blob(desc.Digest))
	d.check(err)
	if got := fmt.Sprintf("sha256:%x", sha256.Sum256(b)); got != desc.Digest.String() || int64(len(b)) != desc.Size {
		d.t.Fatalf("blob %s (%d bytes) is %s (%d bytes)", desc.Digest, desc.Size, got, len(b))
	}
	return b
}

// Root returns the descriptor that tag names.
func (d *Dir) Root(tag string) ocispec.Descriptor {
	d.t.Helper()
	for _, m := range d.Index().Manifests {
		if m.Annotations[ocispec.AnnotationRefName] == tag {
			return m
		}
	}
	d.t.Fatalf("%s has no tag %s", d.Path, tag)
	return ocispec.Descriptor{}
}

// Manifest returns the image that tag names; platform, "os/arch", chooses one of an index.
func (d *Dir) Manifest(tag, platform string) *ocispec.Manifest {
	d.t.Helper()
	desc := d.Root(tag)
	for range 8 {
		raw := d.Read(desc)
		var doc struct {
			Manifests []ocispec.Descriptor
			Config    *ocispec.Descriptor
		}
		d.check(json.Unmarshal(raw, &doc))
		if doc.Config != nil {
			m := &ocispec.Manifest{}
			d.check(json.Unmarshal(raw, m))
			return m
		}
		found := false
		for _, c := range doc.Manifests {
			if c.Platform == nil || platform == "" || c.Platform.OS+"/"+c.Platform.Architecture == platform {
				desc, found = c, true
				break
			}
		}
		if !found {
			break
		}
	}
	d.t.Fatalf("%s:%s has no image for %s", d.Path, tag, platform)
	return nil
}
