package graphtest

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Cycle stores an index that lists itself. No digest can promise that, so the bytes are not what the digest says:
// only a reader that does not verify runs in circles.
func (s *Store) Cycle() ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("cycle")}
	b := func() []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
			d.MediaType, d.MediaType, d.Digest, d.Size)
	}
	for d.Size != int64(len(b())) {
		d.Size = int64(len(b()))
	}
	s.PutAs(d.Digest, b())
	return d
}

// Doubling stores a tower of indexes, each of which lists the next one twice: 2^levels ways to the manifest of leaf.
func (s *Store) Doubling(levels int, leaf ocispec.Descriptor) ocispec.Descriptor {
	for range levels {
		leaf = s.Index(leaf, leaf)
	}
	return leaf
}

// Nested stores a tower of indexes with one entry each.
func (s *Store) Nested(levels int, leaf ocispec.Descriptor) ocispec.Descriptor {
	for range levels {
		leaf = s.Index(leaf)
	}
	return leaf
}

// Wide stores an index with n small entries that do not exist, all different.
func (s *Store) Wide(n int) ocispec.Descriptor {
	entries := make([]ocispec.Descriptor, n)
	for i := range entries {
		entries[i] = ocispec.Descriptor{MediaType: "a/b", Digest: digest.FromString(fmt.Sprint(i)), Size: 1}
	}
	return s.Index(entries...)
}

// Flip stores blob d with its last byte changed under the old digest.
func (s *Store) Flip(d digest.Digest) {
	b := s.Get(d)
	b[len(b)-1] ^= 1
	s.PutAs(d, b)
}

// Cut stores blob d without its last byte under the old digest.
func (s *Store) Cut(d digest.Digest) {
	b := s.Get(d)
	s.PutAs(d, b[:len(b)-1])
}
