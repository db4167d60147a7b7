package transport_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/transport"
)

// sample is an image in memory: an index of two platforms with two layers each, one of them shared.
type sample struct {
	root  ocispec.Descriptor
	order []ocispec.Descriptor // blobs before documents, root last
	blobs map[digest.Digest][]byte
}

func (s *sample) add(mediaType string, b []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if s.blobs[d.Digest] == nil {
		s.blobs[d.Digest] = b
		s.order = append(s.order, d)
	}
	return d
}

func (s *sample) addJSON(mediaType string, v any) ocispec.Descriptor {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return s.add(mediaType, b)
}

// layerTar is a tar of one file with n bytes that do not compress to nothing.
func layerTar(name string, n int) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(n)})
	sum := []byte(name)
	for n > 0 {
		sum = []byte(digest.FromBytes(sum).Encoded())
		k := min(n, len(sum))
		w.Write(sum[:k])
		n -= k
	}
	w.Close()
	return buf.Bytes()
}

func gzipped(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

func newSample(size int) *sample {
	s := &sample{blobs: map[digest.Digest][]byte{}}
	shared := layerTar("shared", size)
	var manifests []ocispec.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		own := layerTar("own-"+arch, 100)
		layers := []ocispec.Descriptor{
			s.add(ocispec.MediaTypeImageLayerGzip, gzipped(shared)), s.add(ocispec.MediaTypeImageLayer, own)}
		m := s.addManifest(arch, layers, shared, own)
		m.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		manifests = append(manifests, m)
	}
	s.root = s.addJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
	return s
}

func (s *sample) addManifest(arch string, layers []ocispec.Descriptor, raw ...[]byte) ocispec.Descriptor {
	img := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}}
	img.RootFS.Type = "layers"
	for _, b := range raw {
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(b))
	}
	config := s.addJSON(ocispec.MediaTypeImageConfig, img)
	return s.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers})
}

// single is one plain manifest, as docker archives hold.
func newSingle(size int) *sample {
	s := &sample{blobs: map[digest.Digest][]byte{}}
	a, b := layerTar("a", size), layerTar("b", 100)
	s.root = s.addManifest("amd64", []ocispec.Descriptor{
		s.add(ocispec.MediaTypeImageLayerGzip, gzipped(a)), s.add(ocispec.MediaTypeImageLayer, b)}, a, b)
	return s
}

func (s *sample) opener(d ocispec.Descriptor) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(s.blobs[d.Digest])), nil }
}

// push pushes everything but does not publish.
func (s *sample) push(t *testing.T, dst transport.Target) {
	t.Helper()
	for _, d := range s.order {
		if err := dst.Push(t.Context(), d, s.opener(d)); err != nil {
			t.Fatalf("push %s: %v", d.MediaType, err)
		}
		if ok, err := dst.Has(t.Context(), d); !ok || err != nil {
			t.Fatalf("has after push: %v, %v", ok, err)
		}
	}
}

func (s *sample) write(t *testing.T, ref string, opts transport.Options) {
	t.Helper()
	dst := openTarget(t, ref, opts)
	s.push(t, dst)
	if err := dst.Publish(t.Context(), s.root); err != nil {
		t.Fatalf("publish %s: %v", ref, err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
}

// check reads everything back through the transport under test and compares with what is in memory.
func (s *sample) check(t *testing.T, ref string, opts transport.Options) {
	t.Helper()
	src := openSource(t, ref, opts)
	defer src.Close()
	root, err := src.Resolve(t.Context())
	if err != nil {
		t.Fatalf("resolve %s: %v", ref, err)
	}
	if root.Digest != s.root.Digest || root.Size != s.root.Size || root.MediaType != s.root.MediaType {
		t.Fatalf("%s resolves to %+v, want %+v", ref, root, s.root)
	}
	for _, d := range s.order {
		got, err := fetch(t.Context(), src, d)
		if err != nil || !bytes.Equal(got, s.blobs[d.Digest]) {
			t.Errorf("fetch %s %s: %d bytes, %v", d.MediaType, d.Digest, len(got), err)
		}
		if n, err := transport.BlobSize(t.Context(), src, d.Digest); (err != nil || n != d.Size) && !strings.Contains(d.MediaType, "manifest") && !strings.Contains(d.MediaType, "index") {
			t.Errorf("%s: blob of type %s has %d bytes, want %d; %v", ref, d.MediaType, n, d.Size, err)
		}
		ra, err := src.ReaderAt(t.Context(), d)
		if errors.Is(err, abi.ErrUnsupported) {
			continue
		}
		if err != nil {
			t.Errorf("reader at: %v", err)
			continue
		}
		if got, err := io.ReadAll(io.NewSectionReader(ra, 0, ra.Size())); err != nil || !bytes.Equal(got, s.blobs[d.Digest]) {
			t.Errorf("reader at %s: %d bytes, %v", d.Digest, len(got), err)
		}
		ra.Close()
	}
}

func fetch(ctx context.Context, src transport.Source, d ocispec.Descriptor) ([]byte, error) {
	rc, err := src.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

func parse(t *testing.T, s string) transport.Reference {
	t.Helper()
	ref, err := transport.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func openSource(t *testing.T, ref string, opts transport.Options) transport.Source {
	t.Helper()
	src, err := transport.OpenSource(t.Context(), parse(t, ref), opts)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func openTarget(t *testing.T, ref string, opts transport.Options) transport.Target {
	t.Helper()
	dst, err := transport.OpenTarget(t.Context(), parse(t, ref), opts)
	if err != nil {
		t.Fatal(err)
	}
	return dst
}

func wantClass(t *testing.T, what string, err error, class abi.Class) {
	t.Helper()
	if err == nil || !errors.Is(err, class) {
		t.Errorf("%s: error %v of class %q, want %q", what, err, abi.ClassOf(err).Error(), class.Error())
	}
}

// tree lists every file below dir.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
		if e.IsDir() {
			for _, sub := range tree(t, dir+"/"+e.Name()) {
				out = append(out, fmt.Sprint(e.Name(), "/", sub))
			}
		}
	}
	return out
}
