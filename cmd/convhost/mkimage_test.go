package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/convhost/convhost/host/graph/graphtest"
)

// mkimage writes an OCI layout: mkimage DIR KIND… adds an image of each kind, with the kind as its tag.
func mkimage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: mkimage DIR KIND…")
	}
	ts.Check(writeLayout(ts.MkAbs(args[0]), args[1:]...))
}

// writeLayout makes a layout with an image of each kind.
func writeLayout(dir string, names ...string) error {
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, name := range names {
		build, ok := kinds[name]
		if !ok {
			return fmt.Errorf("there is no kind %s", name)
		}
		store := graphtest.NewStore()
		root := build(store)
		if err := writeBlobs(dir, store, root); err != nil {
			return err
		}
		idx.Manifests = append(idx.Manifests, ocispec.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size,
			Annotations: map[string]string{ocispec.AnnotationRefName: name}})
	}
	b, err := json.Marshal(idx)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "index.json"), b, 0o644),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

// writeBlobs stores what is reachable from desc; what the store does not have is left out.
func writeBlobs(dir string, store *graphtest.Store, desc ocispec.Descriptor) error {
	b := store.Get(desc.Digest)
	if b == nil {
		return nil
	}
	name := filepath.Join(dir, "blobs", desc.Digest.Algorithm().String(), desc.Digest.Encoded())
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		return err
	}
	if !strings.HasSuffix(desc.MediaType, "json") {
		return nil
	}
	var doc struct {
		Config    json.RawMessage      `json:"config"`
		Manifests []ocispec.Descriptor `json:"manifests"`
		Layers    []ocispec.Descriptor `json:"layers"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil // a hostile document has no children
	}
	children := append(doc.Manifests, doc.Layers...)
	var config ocispec.Descriptor
	if json.Unmarshal(doc.Config, &config) == nil && config.Digest != "" {
		children = append(children, config)
	}
	for _, c := range children {
		if err := writeBlobs(dir, store, c); err != nil {
			return err
		}
	}
	return nil
}

var files = map[string]string{"etc/motd": "hello\n", "usr/bin/tool": strings.Repeat("tool ", 5000)}

var kinds = map[string]func(*graphtest.Store) ocispec.Descriptor{
	"plain": plain,
	"other": func(s *graphtest.Store) ocispec.Descriptor { // as plain, one file is different
		return s.Image(graphtest.Image{Layers: []graphtest.Layer{s.Layer(map[string]string{"etc/motd": "hullo\n", "usr/bin/tool": files["usr/bin/tool"]})}})
	},
	"large": func(s *graphtest.Store) ocispec.Descriptor { // more than a pipe holds
		return s.Image(graphtest.Image{Layers: []graphtest.Layer{s.Layer(map[string]string{"large": strings.Repeat("0123456789", 1<<18)})}})
	},
	"two": func(s *graphtest.Store) ocispec.Descriptor { // two layers
		return s.Image(graphtest.Image{Layers: []graphtest.Layer{s.Layer(files), s.Layer(map[string]string{"etc/arm": "v8\n"})}})
	},
	"index": func(s *graphtest.Store) ocispec.Descriptor {
		amd := plain(s)
		arm := s.Image(graphtest.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"},
			Layers: []graphtest.Layer{s.Layer(files), s.Layer(map[string]string{"etc/arm": "v8\n"})}})
		return s.Index(amd, arm, s.Attestation(amd))
	},
	"missing": func(s *graphtest.Store) ocispec.Descriptor { // no layer blob
		l := s.Layer(files)
		s.Delete(l.Desc.Digest)
		return s.Image(graphtest.Image{Layers: []graphtest.Layer{l}})
	},
	"cut": func(s *graphtest.Store) ocispec.Descriptor { // the gzip stream ends early, digest and size are right
		l := s.Layer(files)
		b := s.Get(l.Desc.Digest)
		return s.Image(graphtest.Image{Layers: []graphtest.Layer{{Desc: s.Put(l.Desc.MediaType, b[:len(b)/2]), DiffID: l.DiffID}}})
	},
	"swapped": func(s *graphtest.Store) ocispec.Descriptor { // right size, wrong bytes
		l := s.Layer(files)
		b := s.Get(l.Desc.Digest)
		b[9] ^= 1 // the system that gzip ran on: nobody reads it
		s.PutAs(l.Desc.Digest, b)
		return s.Image(graphtest.Image{Layers: []graphtest.Layer{l}})
	},
	"bomb": func(s *graphtest.Store) ocispec.Descriptor { // 100 MB of zeros
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Write(tarHeader("zeros", 100_000_000))
		for range 100 {
			w.Write(make([]byte, 1_000_000))
		}
		w.Write(make([]byte, 512-100_000_000%512+1024))
		w.Close()
		l := graphtest.Layer{Desc: s.Put(ocispec.MediaTypeImageLayerGzip, z.Bytes()), DiffID: digest.FromString("not compared")}
		return s.Image(graphtest.Image{Layers: []graphtest.Layer{l}})
	},
	"escape": func(s *graphtest.Store) ocispec.Descriptor { // a platform that talks to the terminal
		return s.Index(s.Image(graphtest.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "\x1b[31mred"}, Layers: []graphtest.Layer{s.Layer(files)}}))
	},
}

func plain(s *graphtest.Store) ocispec.Descriptor {
	return s.Image(graphtest.Image{Layers: []graphtest.Layer{s.Layer(files)}, History: true})
}

// tarHeader makes the header of a regular file.
func tarHeader(name string, size int64) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		panic(err)
	}
	return b.Bytes()
}
