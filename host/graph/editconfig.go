package graph

import (
	"slices"

	"github.com/convhost/convhost/abi"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ConfigChange says what changes in an image config. The zero value changes nothing.
type ConfigChange struct {
	DiffIDs    []digest.Digest // the whole new list, by position in the manifest; nil keeps it
	History    HistoryChange
	OSFeatures []string // added to os.features
}

// HistoryChange keeps the history in step with the layers. A config without a history stays without one.
type HistoryChange struct {
	Replace []ocispec.History // if not nil, the whole new history; Drop is not used then
	Drop    []int             // layers, counted from 0 without the empty ones, whose items go
	Prepend []ocispec.History
	Append  []ocispec.History
}

// EditConfig applies a change to the text of an image config. If the text changes, Docker's config.Image and
// container_config.Image go too: they name an image that this no longer is. Without a change raw itself comes back.
//
// ErrInvalid if diff_ids and history were in step before and would not be after. A history that was out of step
// already only gets what is prepended and appended.
func EditConfig(raw []byte, ch ConfigChange) ([]byte, error) {
	old, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	c, err := parseDocument(raw, configFields...)
	if err != nil {
		return nil, err
	}
	if ch.DiffIDs != nil && !slices.Equal(ch.DiffIDs, old.RootFS.DiffIDs) {
		if err := editDiffIDs(c, ch.DiffIDs); err != nil {
			return nil, err
		}
	}
	inStep := len(old.layerItems()) == len(old.RootFS.DiffIDs)
	if len(old.History) > 0 {
		if err := ch.History.apply(c, old, inStep); err != nil {
			return nil, err
		}
	}
	if err := addStrings(c, "os.features", ch.OSFeatures); err != nil {
		return nil, err
	}
	if !c.changed {
		return raw, nil
	}
	for _, field := range []string{"config", "container_config"} {
		if err := removeImage(c, field); err != nil {
			return nil, err
		}
	}
	out := c.bytes()
	after, err := parseConfig(out)
	if err != nil {
		return nil, err
	}
	if a, b := len(after.layerItems()), len(after.RootFS.DiffIDs); inStep && len(old.History) > 0 && a != b {
		return nil, abi.Errorf(abi.ErrInvalid, "history names %d layers after the change, diff_ids %d: both have to be changed together", a, b)
	}
	return out, nil
}

func editDiffIDs(c *container, ids []digest.Digest) error {
	for i, d := range ids {
		if err := checkDigest(d); err != nil {
			return abi.Errorf(abi.ErrInvalid, "new diff_id %d: %w", i, err)
		}
	}
	raw := c.get("rootfs")
	if isNull(raw) {
		raw = []byte(`{"type":"layers"}`)
	}
	fs, err := parseObject(raw, rootFSFields...)
	if err != nil {
		return err
	}
	if err := setStrings(fs, "diff_ids", ids); err != nil {
		return err
	}
	c.set("rootfs", fs.bytes())
	return nil
}

func (h HistoryChange) apply(c *container, old *ImageConfig, inStep bool) error {
	list, err := parseContainer(c.get("history"), '[')
	if err != nil {
		return err
	}
	if h.Replace != nil {
		for len(list.items) > 0 {
			list.removeAt(len(list.items) - 1)
		}
		h.Append = append(slices.Clone(h.Replace), h.Append...)
	} else if inStep {
		at := old.layerItems()
		drop := slices.Compact(slices.Sorted(slices.Values(h.Drop)))
		for _, layer := range slices.Backward(drop) {
			if layer < 0 || layer >= len(at) {
				return abi.Errorf(abi.ErrInvalid, "history has no item for layer %d", layer)
			}
			list.removeAt(at[layer])
		}
	}
	for i, item := range append(slices.Clone(h.Prepend), h.Append...) {
		text, err := marshalJSON(item)
		if err != nil {
			return err
		}
		at := len(list.items)
		if i < len(h.Prepend) {
			at = i
		}
		list.insertValue(at, text)
	}
	if list.changed {
		c.set("history", list.bytes())
	}
	return nil
}

// removeImage removes the key Image from an object member.
func removeImage(c *container, field string) error {
	raw := c.get(field)
	if len(raw) == 0 || raw[0] != '{' {
		return nil
	}
	o, err := parseContainer(raw, '{')
	if err != nil {
		return err
	}
	if o.remove("Image"); o.changed {
		c.set(field, o.bytes())
	}
	return nil
}
