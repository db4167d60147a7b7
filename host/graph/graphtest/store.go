// Package graphtest builds image graphs for tests: a store in memory that serves as graph.Fetcher and graph.Writer, makers of
// layers, images, indexes, attestations and artifacts, and hostile shapes.
//
//	s := graphtest.NewStore()
//	img := s.Image(graphtest.Image{Layers: []graphtest.Layer{s.Layer(map[string]string{"etc/motd": "hello\n"})}})
//	root := s.Index(img, s.Attestation(img))
//
// Everything is deterministic. Makers cannot fail; a fault in a test's use of them panics.
package graphtest

import (
	"bytes"
	"context"
	_ "crypto/sha256" // go-digest panics without it
	_ "crypto/sha512"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/convhost/convhost/abi"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Store keeps blobs in memory. It is safe for use from many goroutines and, like real stores, does not verify on
// read: what PutAs stored under a wrong digest comes out as it is.
type Store struct {
	mu      sync.Mutex
	blobs   map[digest.Digest][]byte
	fetches map[digest.Digest]int
	written []ocispec.Descriptor
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{blobs: map[digest.Digest][]byte{}, fetches: map[digest.Digest]int{}}
}

// Put stores b and returns its descriptor.
func (s *Store) Put(mediaType string, b []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	s.PutAs(d.Digest, b)
	return d
}

// PutAs stores b under any digest, right or wrong.
func (s *Store) PutAs(d digest.Digest, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[d] = slices.Clone(b)
}

// PutJSON stores the JSON form of v, without a line feed at the end, and returns its descriptor.
func (s *Store) PutJSON(mediaType string, v any) ocispec.Descriptor {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("graphtest: encode %T: %v", v, err))
	}
	return s.Put(mediaType, b)
}

// Get returns a copy of a blob, nil if it is not there.
func (s *Store) Get(d digest.Digest) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.blobs[d])
}

// Digests returns the digests under which blobs are stored, sorted.
func (s *Store) Digests() []digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.blobs))
}

// Delete removes a blob.
func (s *Store) Delete(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, d)
}

// Fetches says how often a blob was opened.
func (s *Store) Fetches(d digest.Digest) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetches[d]
}

// Written returns what WriteDocument stored, in order.
func (s *Store) Written() []ocispec.Descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.written)
}

// Fetch implements graph.Fetcher.
func (s *Store) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetches[desc.Digest]++
	b, ok := s.blobs[desc.Digest]
	if !ok {
		return nil, abi.Errorf(abi.ErrNotFound, "blob %s is missing", desc.Digest)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// WriteDocument implements graph.Writer. It insists on the digest, the size and on documents' children coming first:
// every child that is itself a document or a config must be there.
func (s *Store) WriteDocument(ctx context.Context, desc ocispec.Descriptor, raw []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if digest.FromBytes(raw) != desc.Digest || int64(len(raw)) != desc.Size {
		return abi.Errorf(abi.ErrDigest, "document does not fit its descriptor %s", desc.Digest)
	}
	var doc struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Manifests []ocispec.Descriptor `json:"manifests"`
		Layers    []ocispec.Descriptor `json:"layers"`
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := json.Unmarshal(raw, &doc); err == nil { // a config's "config" decodes too and has no digest
		children := doc.Manifests
		if doc.Config != nil && doc.Config.Digest != "" {
			children = append(children, *doc.Config)
		}
		for _, c := range children {
			if _, ok := s.blobs[c.Digest]; !ok {
				return abi.Errorf(abi.ErrNotFound, "document %s is written before its child %s", desc.Digest, c.Digest)
			}
		}
	}
	s.blobs[desc.Digest] = slices.Clone(raw)
	s.written = append(s.written, desc)
	return nil
}
