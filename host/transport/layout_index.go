package transport

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
)

// Annotations of index.json entries that name an image.
const (
	annRefName = ocispec.AnnotationRefName  // tag, sometimes a whole reference
	annImage   = "io.containerd.image.name" // whole reference, written by containerd and BuildKit
	layoutJSON = `{"imageLayoutVersion":"1.0.0"}`
)

// layoutIndex is the index.json of an OCI layout, in a directory or an archive.
type layoutIndex struct {
	name    string // of the place, for messages
	entries []ocispec.Descriptor
}

func parseLayoutIndex(name string, b []byte) (*layoutIndex, error) {
	var idx struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(b, &idx); err != nil {
		var syntax *json.SyntaxError
		off := int64(-1)
		if errors.As(err, &syntax) {
			off = syntax.Offset
		}
		return nil, &abi.FormatError{Class: abi.ErrCorrupt, Format: name + ": index.json", Field: err.Error(), Off: off}
	}
	for i, d := range idx.Manifests {
		if err := d.Digest.Validate(); err != nil || d.Size < 0 {
			return nil, &abi.FormatError{Class: abi.ErrCorrupt, Format: name + ": index.json", Off: -1, Entry: fmt.Sprint("manifests[", i, "]"),
				Field: "descriptor", Got: fmt.Sprintf("digest %q, size %d", string(d.Digest), d.Size), Want: "a valid digest and size"}
		}
	}
	return &layoutIndex{name: name, entries: idx.Manifests}, nil
}

func (x *layoutIndex) tags() ([]string, error) {
	var out []string
	for _, d := range x.entries {
		if t := d.Annotations[annRefName]; t != "" {
			out = append(out, t)
		} else if t := d.Annotations[annImage]; t != "" {
			out = append(out, t)
		}
	}
	return out, nil
}

// names tells whether an entry has the tag: as its reference name, as its containerd name, or as the latter's tag.
func names(d ocispec.Descriptor, tag string) bool {
	if d.Annotations[annRefName] == tag {
		return true
	}
	image := d.Annotations[annImage]
	if image == "" {
		return false
	}
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image == tag
	}
	t, ok := named.(reference.Tagged)
	return image == tag || d.Annotations[annRefName] == "" && ok && t.Tag() == tag
}

// find returns the entry that ref means. open gives a blob, for roots that only a digest names.
func (x *layoutIndex) find(ref Reference, open func(digest.Digest) (cas.ReaderAt, error)) (ocispec.Descriptor, error) {
	var hits []ocispec.Descriptor
	switch {
	case ref.Index >= len(x.entries):
		return ocispec.Descriptor{}, abi.Errorf(abi.ErrNotFound, "%s: the index has %d entries", ref, len(x.entries))
	case ref.Index >= 0:
		hits = x.entries[ref.Index : ref.Index+1]
	default:
		for _, d := range x.entries {
			if (ref.Tag == "" || names(d, ref.Tag)) && (ref.Digest == "" || d.Digest == ref.Digest) {
				hits = append(hits, d)
			}
		}
	}
	switch {
	case len(hits) == 0 && ref.Digest != "" && ref.Tag == "":
		return rootByDigest(ref.Digest, open)
	case len(hits) == 0:
		return ocispec.Descriptor{}, abi.Errorf(abi.ErrNotFound, "%s: no such image; %s", ref, x.hint())
	}
	for _, d := range hits[1:] {
		if d.Digest != hits[0].Digest {
			return ocispec.Descriptor{}, abi.Errorf(abi.ErrInvalid, "%s: the reference fits several images; %s", ref, x.hint())
		}
	}
	return plainRoot(hits[0], open)
}

func (x *layoutIndex) hint() string {
	tags, _ := x.tags()
	switch {
	case len(x.entries) == 0:
		return "it has none at all"
	case len(tags) == 0:
		return fmt.Sprintf("it has %d without a tag: use :@0 to :@%d", len(x.entries), len(x.entries)-1)
	case len(tags) > 20:
		return fmt.Sprintf("it has the tags %s and %d more", strings.Join(tags[:20], ", "), len(tags)-20)
	}
	return "it has the tags " + strings.Join(tags, ", ")
}

// plainRoot reduces an index entry to what identifies the document, and finds a missing media type.
func plainRoot(d ocispec.Descriptor, open func(digest.Digest) (cas.ReaderAt, error)) (ocispec.Descriptor, error) {
	if d.MediaType == "" {
		sniffed, err := rootByDigest(d.Digest, open)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		d.MediaType = sniffed.MediaType
	}
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, nil
}

// rootByDigest describes a document that no index entry describes, by reading it.
func rootByDigest(dgst digest.Digest, open func(digest.Digest) (cas.ReaderAt, error)) (ocispec.Descriptor, error) {
	ra, err := open(dgst)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer ra.Close()
	desc := ocispec.Descriptor{Digest: dgst, Size: ra.Size()}
	b, err := readAll(Verify(BlobReader(ra), desc), "document "+dgst.String())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc.MediaType = sniffMediaType(b)
	if desc.MediaType == "" {
		return ocispec.Descriptor{}, abi.Errorf(abi.ErrUnsupported, "blob %s is neither a manifest nor an index", dgst)
	}
	return desc, nil
}

// sniffMediaType tells what a root document is; "" if it is not one.
func sniffMediaType(b []byte) string {
	var doc struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
	}
	if json.Unmarshal(b, &doc) != nil {
		return ""
	}
	isIndex, isManifest := len(doc.Manifests) > 0, len(doc.Config) > 0 && len(doc.Layers) > 0
	switch {
	case isIndex == isManifest:
		return ""
	case doc.MediaType != "":
		return doc.MediaType
	case isIndex:
		return ocispec.MediaTypeImageIndex
	}
	return ocispec.MediaTypeImageManifest
}
