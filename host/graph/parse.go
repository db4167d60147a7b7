package graph

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/convhost/convhost/abi"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// parseIndex reads an index that was referred to as mediaType.
func parseIndex(raw []byte, mediaType string, lim Limits) (*ocispec.Index, error) {
	c, err := parseDocument(raw, indexFields...)
	if err != nil {
		return nil, err
	}
	if err := checkShape(c, mediaType, "manifests", "config", "layers", "fsLayers"); err != nil {
		return nil, err
	}
	ix := &ocispec.Index{}
	if err := decodeAll(c, map[string]any{"schemaVersion": &ix.SchemaVersion, "mediaType": &ix.MediaType,
		"artifactType": &ix.ArtifactType, "annotations": &ix.Annotations}); err != nil {
		return nil, err
	}
	if ix.Manifests, err = parseDescriptors(c, "manifests", lim.References); err != nil {
		return nil, err
	}
	if ix.Subject, err = parseSubject(c, lim); err != nil {
		return nil, err
	}
	return ix, checkAnnotations(ix.Annotations, lim)
}

// parseManifest reads a manifest that was referred to as mediaType.
func parseManifest(raw []byte, mediaType string, lim Limits) (*ocispec.Manifest, error) {
	c, err := parseDocument(raw, manifestFields...)
	if err != nil {
		return nil, err
	}
	if err := checkShape(c, mediaType, "layers", "manifests", "fsLayers"); err != nil {
		return nil, err
	}
	m := &ocispec.Manifest{}
	if err := decodeAll(c, map[string]any{"schemaVersion": &m.SchemaVersion, "mediaType": &m.MediaType,
		"artifactType": &m.ArtifactType, "annotations": &m.Annotations}); err != nil {
		return nil, err
	}
	if err := checkPlain("artifact type", m.ArtifactType); err != nil {
		return nil, err
	}
	if isNull(c.get("config")) {
		return nil, abi.Errorf(abi.ErrCorrupt, "manifest has no config")
	}
	if m.Config, err = parseDescriptor(c.get("config")); err != nil {
		return nil, fmt.Errorf("field \"config\": %w", err)
	}
	if m.Layers, err = parseDescriptors(c, "layers", lim.References); err != nil {
		return nil, err
	}
	if m.Subject, err = parseSubject(c, lim); err != nil {
		return nil, err
	}
	return m, checkAnnotations(m.Annotations, lim)
}

// checkShape refuses a document that is not what its descriptor says, or that could be read as two things.
func checkShape(c *container, mediaType, list string, foreign ...string) error {
	var version int
	var inner string
	if err := decodeAll(c, map[string]any{"schemaVersion": &version, "mediaType": &inner}); err != nil {
		return err
	}
	switch {
	case version == 1 || c.find("fsLayers") >= 0:
		return abi.Errorf(abi.ErrUnsupported, "docker schema 1 documents are not supported")
	case c.find("schemaVersion") >= 0 && version != 2:
		return abi.Errorf(abi.ErrCorrupt, "schemaVersion is %d, want 2", version)
	case inner != "" && inner != mediaType:
		return abi.Errorf(abi.ErrCorrupt, "document says it is %.100q, its descriptor says %q", inner, mediaType)
	}
	for _, f := range foreign {
		if c.find(f) >= 0 {
			return abi.Errorf(abi.ErrCorrupt, "%s has a field %q: it could be read as two kinds of document", KindOf(mediaType), f)
		}
	}
	if c.find(list) < 0 {
		return abi.Errorf(abi.ErrCorrupt, "%s has no field %q", KindOf(mediaType), list)
	}
	return nil
}

func decodeAll(c *container, fields map[string]any) error {
	for _, it := range c.items { // in document order, so that the first fault is always the same
		if v, ok := fields[it.key]; ok {
			if err := c.decode(it.key, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseDescriptors reads a list of descriptors; more than limit of them are not even read.
func parseDescriptors(c *container, field string, limit int) ([]ocispec.Descriptor, error) {
	raw := c.get(field)
	if isNull(raw) {
		return nil, nil
	}
	list, err := parseContainer(raw, '[')
	if err != nil {
		return nil, fmt.Errorf("field %q: %w", field, err)
	}
	if len(list.items) > limit {
		return nil, abi.Errorf(abi.ErrLimit, "field %q has %d descriptors, the limit is %d", field, len(list.items), limit)
	}
	var out []ocispec.Descriptor
	for i, it := range list.items {
		d, err := parseDescriptor(it.value)
		if err != nil {
			return nil, fmt.Errorf("field %q, item %d: %w", field, i, err)
		}
		out = append(out, d)
	}
	return out, nil
}

func parseDescriptor(raw []byte) (d ocispec.Descriptor, err error) {
	c, err := parseObject(raw, descriptorFields...)
	if err != nil {
		return d, err
	}
	if p := c.get("platform"); !isNull(p) {
		if _, err := parseObject(p, platformFields...); err != nil {
			return d, fmt.Errorf("platform: %w", err)
		}
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return d, abi.Errorf(abi.ErrCorrupt, "descriptor: %w", err)
	}
	return d, nil
}

// parseSubject reads the subject, which is not part of the tree: it names another graph.
func parseSubject(c *container, lim Limits) (*ocispec.Descriptor, error) {
	if isNull(c.get("subject")) {
		return nil, nil
	}
	d, err := parseDescriptor(c.get("subject"))
	if err == nil {
		err = checkDescriptor(d, lim)
	}
	if err != nil {
		return nil, fmt.Errorf("field \"subject\": %w", err)
	}
	return &d, nil
}

// parseConfig reads an image config.
func parseConfig(raw []byte) (*ImageConfig, error) {
	c, err := parseDocument(raw, configFields...)
	if err != nil {
		return nil, err
	}
	cfg := &ImageConfig{}
	if err := decodeAll(c, map[string]any{"architecture": &cfg.Architecture, "os": &cfg.OS, "os.version": &cfg.OSVersion,
		"os.features": &cfg.OSFeatures, "variant": &cfg.Variant, "history": &cfg.History}); err != nil {
		return nil, err
	}
	if err := checkPlain("platform", cfg.OS, cfg.Architecture, cfg.Variant, cfg.OSVersion, strings.Join(cfg.OSFeatures, "")); err != nil {
		return nil, err
	}
	if isNull(c.get("rootfs")) {
		return cfg, nil
	}
	fs, err := parseObject(c.get("rootfs"), rootFSFields...)
	if err != nil {
		return nil, fmt.Errorf("field \"rootfs\": %w", err)
	}
	if err := decodeAll(fs, map[string]any{"type": &cfg.RootFS.Type, "diff_ids": &cfg.RootFS.DiffIDs}); err != nil {
		return nil, fmt.Errorf("field \"rootfs\": %w", err)
	}
	for i, d := range cfg.RootFS.DiffIDs {
		if err := checkDigest(d); err != nil {
			return nil, fmt.Errorf("diff_id %d: %w", i, err)
		}
	}
	return cfg, nil
}
