package host

import (
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// EventKind says what an Event tells.
type EventKind string

// Kinds of events. Each layer of each target has one started, any number of progress and one done event, or one reused event; a layer
// that is used several times is converted and reported once. When what was reused turns out to be of no use, a warning says so
// and everything is converted, and reported, anew.
const (
	EventResolved      EventKind = "resolved"       // the source's root is known: Descriptor
	EventLayerStarted  EventKind = "layer-started"  // Descriptor is the source layer, Total its size
	EventLayerProgress EventKind = "layer-progress" // Done of Total stored bytes were read
	EventLayerDone     EventKind = "layer-done"     // Output is the size of what was made
	EventLayerReused   EventKind = "layer-reused"   // instead of the three above: an earlier conversion had made it
	EventManifestDone  EventKind = "manifest-done"  // Descriptor is the converted manifest
	EventPushStarted   EventKind = "push-started"   // Total bytes go to Dest
	EventPushProgress  EventKind = "push-progress"
	EventPublished     EventKind = "published" // Descriptor is the converted root, visible at Dest
	EventDropped       EventKind = "dropped"   // Descriptor is not in the converted graph: Message says why
	EventWorkKept      EventKind = "work-kept" // Message is the directory
	EventWarning       EventKind = "warning"
)

// Event tells an embedder what a conversion does. Events come from several goroutines, one at a time; the function that
// takes them must not block.
type Event struct {
	Kind       EventKind          `json:"kind"`
	Format     string             `json:"format,omitempty"`
	Dest       string             `json:"dest,omitempty"`
	Descriptor ocispec.Descriptor `json:"descriptor,omitzero"`
	Platform   string             `json:"platform,omitempty"`
	Layer      int                `json:"layer,omitempty"`
	Done       int64              `json:"done,omitempty"`
	Total      int64              `json:"total,omitempty"`
	Output     int64              `json:"output,omitempty"`
	Message    string             `json:"message,omitempty"`
}

// Error tells where a conversion failed. The class is in Err.
type Error struct {
	Op       string // convert, verify, unpack, check
	Format   string // plugin's name, if one was involved
	Manifest ocispec.Descriptor
	Platform string
	Layer    int // -1: not at a layer
	Blob     ocispec.Descriptor
	Err      error
}

// Error puts it into one line: `convert: layer 3 (sha256:9f2c…) of linux/amd64 with nydus: …`.
func (e *Error) Error() string {
	s := e.Op
	switch {
	case e.Layer >= 0 && e.Blob.Digest != "":
		s += fmt.Sprintf(": layer %d (%s)", e.Layer, e.Blob.Digest)
	case e.Manifest.Digest != "":
		s += fmt.Sprintf(": manifest %s", e.Manifest.Digest)
	}
	if e.Platform != "" {
		s += " of " + e.Platform
	}
	if e.Format != "" {
		s += " with " + e.Format
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
