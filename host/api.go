package host

import (
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/internal/layer/flatten"
)

// Target is one format that a source is converted to, and where the result goes.
type Target struct {
	Format  string            // a plugin's name, or the path of its file
	Dest    string            // reference of the result, in skopeo's syntax
	Options map[string]string // of the plugin; see PluginInfo.Description.Options
	Runtime Runtime

	MediaTypes MediaTypes // default MediaTypesSource
	// Referrers makes every manifest and index of the result name the one it was made of as its subject, with the
	// format's artifact type: a registry then lists the result among the source's referrers, if both are in one
	// repository. The documents become OCI's. ErrUnsupported for formats without an artifact type.
	Referrers bool
	// Dicts are files that the plugin may read, in this order: a base layer, a dictionary of chunks. Results depend on
	// their bytes, not on their names. ErrUnsupported for plugins that take none.
	Dicts []string
}

// Selection says which images of an index are meant. The zero value is all of them; where only one can be meant, as in
// Unpack, it is the one for this machine.
type Selection struct {
	Platforms []string // os/architecture[/variant]
	All       bool
}

// Attestations says what becomes of attestation manifests when their image is converted.
type Attestations string

// Policies for attestations.
const (
	AttestationsDrop Attestations = "drop" // default: they speak of other bytes; EventDropped tells
	AttestationsKeep Attestations = "keep" // stay in the index as they are, and speak of the source
)

// ConvertRequest asks to convert one source to one or more targets.
type ConvertRequest struct {
	Source       string
	Targets      []Target
	Select       Selection
	Attestations Attestations
	Verify       bool // compare every converted image with its source before it is published

	DryRun   bool   // do everything but publish: targets are not opened, their Dest may be empty
	DumpDir  string // if set, a directory that appears with all documents of the results once they are published; must be new or empty
	KeepWork bool   // leave the working directory of the conversion behind: EventWorkKept says where it is
}

// Result is one converted target.
type Result struct {
	Format    string             `json:"format"`
	Dest      string             `json:"dest"`
	Source    ocispec.Descriptor `json:"source"`
	Root      ocispec.Descriptor `json:"root"`
	Manifests []ManifestResult   `json:"manifests"`
	Dropped   []Dropped          `json:"dropped,omitempty"`
	DryRun    bool               `json:"dryRun,omitempty"` // nothing was published
	Plugin    PluginInfo         `json:"-"`
}

// ManifestResult is one converted image of a Result.
type ManifestResult struct {
	Platform  string             `json:"platform,omitempty"`
	Source    ocispec.Descriptor `json:"source"`
	Converted ocispec.Descriptor `json:"converted"`
	Already   bool               `json:"already,omitempty"` // it was of the format, and is passed on as it is: Layers is empty
	Layers    []LayerResult      `json:"layers"`
	Warnings  []string           `json:"warnings,omitempty"`
}

// LayerResult pairs a layer of the converted image with the source layer it was made of.
type LayerResult struct {
	Source    *ocispec.Descriptor `json:"source,omitempty"` // nil: a layer of the format's own
	Converted ocispec.Descriptor  `json:"converted"`
	Reused    bool                `json:"reused,omitempty"` // an earlier conversion made it; see WithDedup
}

// Dropped is a descriptor of the source graph that is not in the converted one.
type Dropped struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Reason     string             `json:"reason"`
}

// VerifyRequest asks to compare two images file by file. Each may be an ordinary image or a converted one.
type VerifyRequest struct {
	Source, Converted string
	Select            Selection
	Format            string // plugin for converted images; "" finds it by the image
	Runtime           Runtime
	Max               int // differences to report for each image; default 100
}

// VerifyResult is the comparison of one pair of images.
type VerifyResult struct {
	Platform    string               `json:"platform,omitempty"`
	Source      ocispec.Descriptor   `json:"source"`
	Converted   ocispec.Descriptor   `json:"converted"`
	Files       int64                `json:"files"`
	Bytes       int64                `json:"bytes"`
	Differences []flatten.Difference `json:"differences"`
	More        int64                `json:"more,omitempty"` // differences that are not listed
}

// UnpackRequest asks for a tar of an image.
type UnpackRequest struct {
	Image   string
	Select  Selection // must name one image
	Layer   int       // of the converted image, from 0; -1: the whole file system, flattened
	Format  string
	Runtime Runtime
	Out     io.Writer
}

// UnpackResult ends an unpack.
type UnpackResult struct {
	Manifest ocispec.Descriptor `json:"manifest"`
	Platform string             `json:"platform,omitempty"`
	Entries  int64              `json:"entries"`
	Bytes    int64              `json:"bytes"`
}

// CheckRequest asks a plugin to examine a converted image.
type CheckRequest struct {
	Image   string
	Select  Selection
	Format  string
	Runtime Runtime
	Deep    bool // also every file body
}

// CheckResult is what a plugin found in one image.
type CheckResult struct {
	Format   string             `json:"format"`
	Manifest ocispec.Descriptor `json:"manifest"`
	Platform string             `json:"platform,omitempty"`
	Problems []abi.ErrorDetail  `json:"problems"`
	Facts    map[string]string  `json:"facts,omitempty"`
}

// GraphResult is the descriptor graph behind a reference.
type GraphResult struct {
	Root ocispec.Descriptor `json:"root"`
	Rows []graph.Row        `json:"rows"`
}

// InspectResult is what can be told of a reference without reading layers.
type InspectResult struct {
	Reference string             `json:"reference"`
	Root      ocispec.Descriptor `json:"root"`
	Images    []ImageInfo        `json:"images"`
}

// ImageInfo tells about one image. Format is the plugin whose marker its layers carry, or "oci" for an ordinary one.
type ImageInfo struct {
	Manifest ocispec.Descriptor   `json:"manifest"`
	Platform string               `json:"platform,omitempty"`
	Format   string               `json:"format"`
	Config   ocispec.Descriptor   `json:"config"`
	Layers   []ocispec.Descriptor `json:"layers"`
	DiffIDs  []string             `json:"diffIDs,omitempty"`
	Created  string               `json:"created,omitempty"`
	Command  []string             `json:"command,omitempty"`
	Size     int64                `json:"size"`             // of all layers as stored
	Reason   string               `json:"reason,omitempty"` // why it cannot be converted, if so

	ArtifactType string              `json:"artifactType,omitempty"`
	Subject      *ocispec.Descriptor `json:"subject,omitempty"` // what it refers to: for a converted image usually its source
}
