package dedup

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
)

// MaxRecord is the most bytes that a record may have, encoded. Databases refuse larger values by default, and a larger
// state is cheaper to compute than to keep.
const MaxRecord = 8 << 20

// Record is what a conversion made. Either Layer or Manifest is set, as Key.Kind says. Format, Version, Source and Platform
// are for people: the key stands for them.
type Record struct {
	Key      Key           `json:"key"`
	Format   string        `json:"format"`
	Version  string        `json:"version,omitempty"`
	Source   digest.Digest `json:"source"` // the layer or manifest that was converted
	Platform string        `json:"platform,omitempty"`
	Layer    *Layer        `json:"layer,omitempty"`
	Manifest *Manifest     `json:"manifest,omitempty"`
}

// Layer is what a plugin made of one layer.
type Layer struct {
	Parts    []Part   `json:"parts"`
	State    []byte   `json:"state,omitempty"` // goes to the merge step unchanged
	Warnings []string `json:"warnings,omitempty"`
}

// Part is one artifact. Those that are not Aux can be layers of the converted image.
type Part struct {
	Name        string            `json:"name,omitempty"`
	MediaType   string            `json:"mediaType,omitempty"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	DiffID      digest.Digest     `json:"diffID"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Aux         bool              `json:"aux,omitempty"`
}

// Manifest is what became of one image: what its manifest and config change in. The documents themselves are made anew
// from the source's, which are at hand.
type Manifest struct {
	Converted       Target            `json:"converted"` // the manifest as it was published: what is made anew must be the same
	Layers          []ManifestLayer   `json:"layers"`
	OSFeatures      []string          `json:"osFeatures,omitempty"`
	ConfigMediaType string            `json:"configMediaType,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
	ArtifactType    string            `json:"artifactType,omitempty"`
	Warnings        []string          `json:"warnings,omitempty"`
	LayerWarnings   [][]string        `json:"layerWarnings,omitempty"` // of each source layer; empty if there are none at all
}

// Target is a document.
type Target struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

// ManifestLayer is one layer of a converted manifest.
type ManifestLayer struct {
	MediaType   string            `json:"mediaType"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	DiffID      digest.Digest     `json:"diffID"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Source      int               `json:"source"` // index of the source layer whose history item it keeps, or -1
	CreatedBy   string            `json:"createdBy,omitempty"`
	Comment     string            `json:"comment,omitempty"`
}

// Blobs returns the digests of all blobs that a record speaks of, each once.
func (r *Record) Blobs() []digest.Digest {
	var out []digest.Digest
	seen := map[digest.Digest]bool{}
	add := func(d digest.Digest) {
		if !seen[d] {
			seen[d] = true
			out = append(out, d)
		}
	}
	if r.Layer != nil {
		for _, p := range r.Layer.Parts {
			add(p.Digest)
		}
	}
	if r.Manifest != nil {
		for _, l := range r.Manifest.Layers {
			add(l.Digest)
		}
	}
	return out
}

// Validate returns abi.ErrInvalid for records that cannot be meant.
func (r *Record) Validate() error {
	if err := r.Key.Validate(); err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return abi.Errorf(abi.ErrInvalid, "dedup record "+r.Key.String()+": "+format, args...)
	}
	if r.Format == "" || r.Source.Validate() != nil {
		return bad("format %q, source %q: want a name and a digest", r.Format, string(r.Source))
	}
	if (r.Key.Kind == KindLayer) != (r.Layer != nil) || (r.Key.Kind == KindManifest) != (r.Manifest != nil) {
		return bad("it does not hold what its kind says")
	}
	if r.Layer != nil {
		for i, p := range r.Layer.Parts {
			if p.Digest.Validate() != nil || p.DiffID.Validate() != nil || p.Size < 0 || p.MediaType == "" && !p.Aux {
				return bad("part %d: digest %q, diff ID %q, %d bytes, type %q", i, string(p.Digest), string(p.DiffID), p.Size, p.MediaType)
			}
		}
		return nil
	}
	m := r.Manifest
	if m.Converted.Digest.Validate() != nil || m.Converted.Size < 0 || len(m.Layers) == 0 {
		return bad("converted to %q, %d bytes, %d layers", string(m.Converted.Digest), m.Converted.Size, len(m.Layers))
	}
	for i, l := range m.Layers {
		if l.Digest.Validate() != nil || l.DiffID.Validate() != nil || l.Size < 0 || l.MediaType == "" || l.Source < -1 {
			return bad("layer %d: digest %q, diff ID %q, %d bytes, type %q, source %d",
				i, string(l.Digest), string(l.DiffID), l.Size, l.MediaType, l.Source)
		}
	}
	return nil
}

// Encode returns the bytes that a store keeps: the sha256 of the rest in hexadecimal, a new line, JSON. The same record
// always gives the same bytes. abi.ErrInvalid and abi.ErrLimit as in Store.Put.
func Encode(r *Record) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, abi.Errorf(abi.ErrInvalid, "dedup record %s: %w", r.Key, err)
	}
	out := append([]byte(digest.SHA256.FromBytes(b).Encoded()+"\n"), b...)
	if len(out) > MaxRecord {
		return nil, abi.Errorf(abi.ErrLimit, "dedup record %s has %d bytes, stores take %d", r.Key, len(out), MaxRecord)
	}
	return out, nil
}

// Decode reads what Encode made of the record with that key. abi.ErrCorrupt for anything else.
func Decode(key Key, b []byte) (*Record, error) {
	bad := func(why string, args ...any) error {
		return abi.Errorf(abi.ErrCorrupt, "dedup record "+key.String()+": "+why, args...)
	}
	sum, body, ok := strings.Cut(string(b), "\n")
	switch {
	case len(b) > MaxRecord:
		return nil, bad("%d bytes, want at most %d", len(b), MaxRecord)
	case !ok:
		return nil, bad("%d bytes without a line", len(b))
	case sum != digest.SHA256.FromString(body).Encoded():
		return nil, bad("the bytes were changed: they do not have the sha256 in front of them")
	}
	var r Record
	d := json.NewDecoder(bytes.NewReader([]byte(body)))
	d.DisallowUnknownFields() // the generation in the key says that there are none
	if err := d.Decode(&r); err != nil {
		return nil, bad("%v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, bad("something follows the record")
	}
	if r.Key != key {
		return nil, bad("it is the one of %s", r.Key)
	}
	if err := r.Validate(); err != nil {
		return nil, bad("%v", err)
	}
	return &r, nil
}
