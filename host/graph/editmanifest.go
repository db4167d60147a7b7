package graph

import (
	"fmt"

	"github.com/convhost/convhost/abi"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ManifestChange says what changes in a manifest. The zero value changes nothing.
type ManifestChange struct {
	MediaType         string               // written where the document names its type; "" keeps it
	Config            *ocispec.Descriptor  // nil keeps it
	Layers            []ocispec.Descriptor // the whole new list, bottom first; nil keeps it, empty empties it
	ArtifactType      string               // "" keeps it
	Subject           *ocispec.Descriptor  // nil keeps it
	RemoveSubject     bool
	Annotations       map[string]string // set
	RemoveAnnotations []string
}

// EditManifest applies a change to the text of a manifest. Layers and configs that stood in raw already keep their
// text, wherever they stand now; descriptors of other bytes are written without data and urls (make them with
// NewDescriptor). Everything else stays byte for byte; without a change raw itself comes back.
//
// ErrCorrupt (and what parsing returns) if raw is not a manifest.
func EditManifest(raw []byte, ch ManifestChange) ([]byte, error) {
	c, err := parseDocument(raw, manifestFields...)
	if err != nil {
		return nil, err
	}
	if ch.Config != nil {
		text, err := encodeDescriptor(*ch.Config, 0, rawDescriptor(c.get("config")))
		if err != nil {
			return nil, err
		}
		c.set("config", text)
	}
	if ch.Layers != nil {
		if err := editDescriptors(c, "layers", ch.Layers); err != nil {
			return nil, err
		}
	}
	common := commonChange{ch.MediaType, ch.ArtifactType, ch.Subject, ch.RemoveSubject, ch.Annotations, ch.RemoveAnnotations}
	if err := common.apply(c); err != nil {
		return nil, err
	}
	if !c.changed {
		return raw, nil
	}
	if isNull(c.get("layers")) {
		c.set("layers", []byte("[]"))
	}
	return c.bytes(), nil
}

// NeedsOCI tells whether a Docker manifest cannot hold what a change brings: OCI types, annotations, a subject or an
// artifact type. mediaType is the manifest's own; manifests that are not Docker's need nothing.
func (ch ManifestChange) NeedsOCI(mediaType string) bool {
	if !IsDocker(mediaType) {
		return false
	}
	if len(ch.Annotations) > 0 || ch.Subject != nil || ch.ArtifactType != "" ||
		ch.MediaType != "" && !IsDocker(ch.MediaType) || ch.Config != nil && !IsDocker(ch.Config.MediaType) {
		return true
	}
	for _, d := range ch.Layers {
		if !IsDocker(d.MediaType) || len(d.Annotations) > 0 {
			return true
		}
	}
	return false
}

// ToOCI completes a change so that the Docker manifest m becomes an OCI manifest: its own type and those of config
// and layers, whether they are changed or not. For a manifest that is OCI already only Docker types inside it are mapped.
func (ch ManifestChange) ToOCI(m *ocispec.Manifest) ManifestChange {
	config, layers := m.Config, m.Layers
	if ch.Config != nil {
		config = *ch.Config
	}
	if ch.Layers != nil {
		layers = ch.Layers
	}
	config.MediaType = ToOCI(config.MediaType)
	ch.Config = &config
	ch.Layers = make([]ocispec.Descriptor, 0, len(layers))
	for _, d := range layers {
		d.MediaType = ToOCI(d.MediaType)
		ch.Layers = append(ch.Layers, d)
	}
	ch.MediaType = ocispec.MediaTypeImageManifest
	return ch
}

// ToDocker completes a change so that the manifest m becomes a manifest of Docker's, as ToOCI does for OCI. Annotations
// stay: Docker's documents have no such field, but readers that do not know one skip it.
//
// ErrUnsupported if Docker has no name for the type of the config or of a layer, or where the manifest would have a
// subject or an artifact type.
func (ch ManifestChange) ToDocker(m *ocispec.Manifest) (ManifestChange, error) {
	config, layers := m.Config, m.Layers
	if ch.Config != nil {
		config = *ch.Config
	}
	if ch.Layers != nil {
		layers = ch.Layers
	}
	if ch.ArtifactType != "" || m.ArtifactType != "" || ch.Subject != nil || m.Subject != nil && !ch.RemoveSubject {
		return ch, abi.Errorf(abi.ErrUnsupported, "a docker manifest has no subject and no artifact type: use OCI media types")
	}
	var err error
	if config.MediaType, err = dockerName("config", config.MediaType); err != nil {
		return ch, err
	}
	ch.Config = &config
	ch.Layers = make([]ocispec.Descriptor, 0, len(layers))
	for i, d := range layers {
		if d.MediaType, err = dockerName(fmt.Sprintf("layer %d", i), d.MediaType); err != nil {
			return ch, err
		}
		ch.Layers = append(ch.Layers, d)
	}
	ch.MediaType = DockerManifest
	return ch, nil
}

func dockerName(what, mediaType string) (string, error) {
	name, ok := ToDocker(mediaType)
	if !ok {
		return "", abi.Errorf(abi.ErrUnsupported, "docker media types: %s is of type %s, for which docker has no name: use OCI media types", what, mediaType)
	}
	return name, nil
}
