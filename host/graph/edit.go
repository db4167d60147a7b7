package graph

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	"github.com/convhost/convhost/abi"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// commonChange is what indexes and manifests have in common.
type commonChange struct {
	mediaType, artifactType string
	subject                 *ocispec.Descriptor
	removeSubject           bool
	set                     map[string]string
	remove                  []string
}

func (ch commonChange) apply(c *container) error {
	if ch.mediaType != "" && (c.get("mediaType") != nil || IsDocker(ch.mediaType)) { // absent is legal in OCI and stays absent
		if err := c.setJSON("mediaType", ch.mediaType); err != nil {
			return err
		}
	}
	if ch.artifactType != "" {
		if err := c.setJSON("artifactType", ch.artifactType); err != nil {
			return err
		}
	}
	if ch.removeSubject {
		c.remove("subject")
	}
	if ch.subject != nil {
		raw, err := encodeDescriptor(*ch.subject, 0, rawDescriptor(c.get("subject")))
		if err != nil {
			return err
		}
		c.set("subject", raw)
	}
	return editAnnotations(c, ch.set, ch.remove)
}

// editAnnotations changes the member "annotations" of a document or descriptor. An object that becomes empty goes.
func editAnnotations(c *container, set map[string]string, remove []string) error {
	raw := c.get("annotations")
	if isNull(raw) {
		if len(set) == 0 {
			return nil
		}
		raw = []byte("{}")
	}
	a, err := parseContainer(raw, '{')
	if err != nil {
		return err
	}
	for _, k := range remove {
		a.remove(k)
	}
	for _, k := range slices.Sorted(maps.Keys(set)) {
		if err := a.setJSON(k, set[k]); err != nil {
			return err
		}
	}
	switch {
	case !a.changed:
	case len(a.items) == 0:
		c.remove("annotations")
	default:
		c.set("annotations", a.bytes())
	}
	return nil
}

// sourceDescriptor is a descriptor of the old document, as text and decoded.
type sourceDescriptor struct {
	raw  []byte
	desc ocispec.Descriptor
}

func rawDescriptor(raws ...[]byte) (out []sourceDescriptor) {
	for _, raw := range raws {
		s := sourceDescriptor{raw: raw}
		if isNull(raw) || json.Unmarshal(raw, &s.desc) != nil {
			s = sourceDescriptor{}
		}
		out = append(out, s)
	}
	return out
}

// encodeDescriptor writes d. A descriptor that stood in the old document, first looked for at position i, keeps its
// text, unknown fields included; one that only changes its media type has that field edited. Descriptors of other
// bytes are written anew, without data and urls.
func encodeDescriptor(d ocispec.Descriptor, i int, old []sourceDescriptor) ([]byte, error) {
	if i < len(old) {
		old = append([]sourceDescriptor{old[i]}, old...)
	}
	for _, s := range old {
		if s.raw != nil && reflect.DeepEqual(s.desc, d) {
			return s.raw, nil
		}
	}
	known := false
	for _, s := range old {
		if s.raw == nil || s.desc.Digest != d.Digest {
			continue
		}
		known = true
		same := s.desc
		if same.MediaType = d.MediaType; !reflect.DeepEqual(same, d) {
			continue
		}
		c, err := parseContainer(s.raw, '{')
		if err != nil {
			return nil, err
		}
		err = c.setJSON("mediaType", d.MediaType)
		return c.bytes(), err
	}
	if !known {
		d.Data, d.URLs = nil, nil
	}
	return marshalJSON(d)
}

// editDescriptors makes the list say want.
func editDescriptors(c *container, field string, want []ocispec.Descriptor) error {
	raw := c.get(field)
	if isNull(raw) {
		if len(want) == 0 {
			return nil
		}
		raw = []byte("[]")
	}
	list, err := parseContainer(raw, '[')
	if err != nil {
		return err
	}
	var raws [][]byte
	for _, it := range list.items {
		raws = append(raws, it.value)
	}
	old := rawDescriptor(raws...)
	for i, d := range want {
		text, err := encodeDescriptor(d, i, old)
		if err != nil {
			return err
		}
		if i < len(raws) {
			list.setAt(i, text)
		} else {
			list.insertValue(i, text)
		}
	}
	for len(list.items) > len(want) {
		list.removeAt(len(list.items) - 1)
	}
	if list.changed {
		c.set(field, list.bytes())
	}
	return nil
}

// setStrings makes a member a list of strings; nothing happens if it says so already.
func setStrings[S ~string](c *container, field string, want []S) error {
	var have []S
	if err := c.decode(field, &have); err != nil {
		return err
	}
	if slices.Equal(have, want) {
		return nil
	}
	if want == nil {
		want = []S{}
	}
	return c.setJSON(field, want)
}

// addStrings appends those of more that a list lacks.
func addStrings(c *container, field string, more []string) error {
	if len(more) == 0 {
		return nil
	}
	raw := c.get(field)
	if isNull(raw) {
		raw = []byte("[]")
	}
	var have []string
	if err := json.Unmarshal(raw, &have); err != nil {
		return abi.Errorf(abi.ErrCorrupt, "field %q: %w", field, err)
	}
	list, err := parseContainer(raw, '[')
	if err != nil {
		return err
	}
	for _, s := range more {
		if slices.Contains(have, s) {
			continue
		}
		text, err := marshalJSON(s)
		if err != nil {
			return err
		}
		have = append(have, s)
		list.insertValue(len(list.items), text)
	}
	if list.changed {
		c.set(field, list.bytes())
	}
	return nil
}
