package graph

import (
	"maps"
	"slices"

	"github.com/convhost/convhost/abi"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// IndexChange says what changes in an index. The zero value changes nothing.
type IndexChange struct {
	MediaType         string               // written where the document names its type; "" keeps it
	Entries           map[int]EntryChange  // by position in the old document, from 0
	Append            []ocispec.Descriptor // new entries behind the old ones
	ArtifactType      string               // "" keeps it
	Subject           *ocispec.Descriptor  // nil keeps it
	RemoveSubject     bool
	Annotations       map[string]string // set
	RemoveAnnotations []string
}

// EntryChange says what changes in one entry of an index.
type EntryChange struct {
	Drop         bool
	Desc         *ocispec.Descriptor // media type, digest and size are taken; nil keeps them
	Platform     *ocispec.Platform   // for an entry that has none; others keep theirs
	OSFeatures   []string            // added to the platform's os.features
	Annotations  map[string]string   // set on the entry
	ArtifactType string              // "" keeps it
}

// EditIndex applies a change to the text of an index. Order, platform objects and unknown fields stay. An entry that
// points to other bytes than before loses data, urls and the annotations that described the old bytes. A list that
// becomes empty is [], never null. Without a change raw itself comes back.
func EditIndex(raw []byte, ch IndexChange) ([]byte, error) {
	c, err := parseDocument(raw, indexFields...)
	if err != nil {
		return nil, err
	}
	old := c.get("manifests")
	if isNull(old) {
		old = []byte("[]")
	}
	list, err := parseContainer(old, '[')
	if err != nil {
		return nil, err
	}
	for _, i := range slices.Backward(slices.Sorted(maps.Keys(ch.Entries))) {
		e := ch.Entries[i]
		if i < 0 || i >= len(list.items) {
			return nil, abi.Errorf(abi.ErrInvalid, "index has %d entries, there is no entry %d to change", len(list.items), i)
		}
		if e.Drop {
			list.removeAt(i)
			continue
		}
		text, err := editEntry(list.items[i].value, e)
		if err != nil {
			return nil, err
		}
		list.setAt(i, text)
	}
	for _, d := range ch.Append {
		text, err := encodeDescriptor(d, 0, nil)
		if err != nil {
			return nil, err
		}
		list.insertValue(len(list.items), text)
	}
	if list.changed {
		c.set("manifests", list.bytes())
	}
	common := commonChange{ch.MediaType, ch.ArtifactType, ch.Subject, ch.RemoveSubject, ch.Annotations, ch.RemoveAnnotations}
	if err := common.apply(c); err != nil {
		return nil, err
	}
	if !c.changed {
		return raw, nil
	}
	if isNull(c.get("manifests")) {
		c.set("manifests", []byte("[]"))
	}
	return c.bytes(), nil
}

func editEntry(raw []byte, e EntryChange) ([]byte, error) {
	c, err := parseObject(raw, descriptorFields...)
	if err != nil {
		return nil, err
	}
	if e.Desc != nil {
		if err := pointTo(c, *e.Desc); err != nil {
			return nil, err
		}
	}
	if err := editAnnotations(c, e.Annotations, nil); err != nil {
		return nil, err
	}
	if e.ArtifactType != "" {
		if err := c.setJSON("artifactType", e.ArtifactType); err != nil {
			return nil, err
		}
	}
	if err := editPlatform(c, e); err != nil {
		return nil, err
	}
	return c.bytes(), nil
}

// pointTo makes a descriptor's text point to other bytes.
func pointTo(c *container, d ocispec.Descriptor) error {
	var have ocispec.Descriptor
	if err := decodeAll(c, map[string]any{"digest": &have.Digest, "size": &have.Size, "annotations": &have.Annotations}); err != nil {
		return err
	}
	if err := c.setJSON("mediaType", d.MediaType); err != nil {
		return err
	}
	if have.Digest == d.Digest && have.Size == d.Size {
		return nil
	}
	if err := c.setJSON("digest", string(d.Digest)); err != nil {
		return err
	}
	if have.Size != d.Size {
		if err := c.setJSON("size", d.Size); err != nil {
			return err
		}
	}
	c.remove("data")
	c.remove("urls")
	var stale []string
	for k := range have.Annotations {
		if IsStaleAnnotation(k) {
			stale = append(stale, k)
		}
	}
	slices.Sort(stale)
	return editAnnotations(c, nil, stale)
}

func editPlatform(c *container, e EntryChange) error {
	raw := c.get("platform")
	if isNull(raw) {
		if e.Platform == nil {
			return nil
		}
		var err error
		if raw, err = marshalJSON(e.Platform); err != nil {
			return err
		}
		c.set("platform", raw)
	}
	p, err := parseObject(raw, platformFields...)
	if err != nil {
		return err
	}
	if err := addStrings(p, "os.features", e.OSFeatures); err != nil {
		return err
	}
	if p.changed {
		c.set("platform", p.bytes())
	}
	return nil
}
