package graphtest_test

import (
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestStoreHoldsWritersToTheContract(t *testing.T) {
	s := graphtest.NewStore()
	img := s.Image(graphtest.Image{Layers: []graphtest.Layer{s.Layer(map[string]string{"a": "b"})}})
	raw := s.Get(img.Digest)
	empty := graphtest.NewStore()
	if err := empty.WriteDocument(t.Context(), img, raw); abi.ClassOf(err) != abi.ErrNotFound {
		t.Errorf("manifest before its config: %v", err)
	}
	if err := s.WriteDocument(t.Context(), img, raw[1:]); abi.ClassOf(err) != abi.ErrDigest {
		t.Errorf("other bytes: %v", err)
	}
	if err := s.WriteDocument(t.Context(), img, raw); err != nil || len(s.Written()) != 1 {
		t.Errorf("%v, written %v", err, s.Written())
	}
	if _, err := s.Fetch(t.Context(), ocispec.Descriptor{Digest: digest.FromString("absent")}); abi.ClassOf(err) != abi.ErrNotFound {
		t.Errorf("absent: %v", err)
	}
}

func TestMakersAreDeterministic(t *testing.T) {
	make := func() digest.Digest {
		s := graphtest.NewStore()
		img := s.Image(graphtest.Image{Docker: true, History: true, Layers: []graphtest.Layer{s.Layer(map[string]string{"a": "1", "b": "2"})}})
		return s.Index(img, s.Attestation(img), s.AttestationArtifact(img), s.Artifact(img), s.Cycle(), s.Wide(3), s.Doubling(3, img)).Digest
	}
	if a, b := make(), make(); a != b {
		t.Errorf("%s and %s", a, b)
	}
}
