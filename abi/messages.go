package abi

// Version of this contract. A host refuses a plugin of another major version; within one, peers ignore what they do
// not know.
const (
	Major = 1
	Minor = 0
)

// Description says what a plugin is and what it needs. It is the answer to OpDescribe, whose request is empty.
type Description struct {
	Name    string // short and unique: the --format of the command line; [a-z0-9][a-z0-9-]*
	Version string // of the plugin; part of every cache key, so bytes must not change without it
	Summary string // one line for people
	Major   uint32 // abi.Major the plugin was made for
	Minor   uint32
	Ops     []Op // what it can do, besides Describe
	Input   Role // how ConvertLayer wants the layer: RoleLayerEntries, RoleLayerTar or RoleLayerStored
	Chained bool // ConvertLayer needs the artifacts of all lower layers (Parents), so layers go one after the other
	Options []OptionSpec
	Markers []Marker // how the host recognises an image of this format
	Needs   []string // features without which the plugin cannot work
	Uses    []string // features that it uses when they are there
	Memory  int64    // bytes of memory that a usual layer takes in the sandbox; 0: unknown

	// ArtifactType is what manifests and indexes of this format are called where they refer to their source (referrers
	// of the registry): a media type. Empty: the format has none, and cannot be asked for referrers.
	ArtifactType string
	Dicts        bool // ConvertLayer and MergeLayers take dictionaries (RoleDict); a host gives them to no other plugin

	// Refs are annotations of converted layers whose value is the digest of a blob that the layer needs and that is no
	// layer of its image: one of the source's. The host brings it to where the image goes, and grants it beside the
	// image's layers (PartInfo.Ref).
	Refs []string
	Unknown
}

// OptionSpec describes one option that a user may set with --option name=value.
type OptionSpec struct {
	Name    string
	Help    string
	Default string   // what leaving it out means, if that is a value: naming it changes nothing
	Values  []string // the legal values, if they can be listed
	Unknown
}

// Marker recognises a converted image: one of its layers has this media type (if set) and this annotation key (if set).
type Marker struct {
	MediaType  string
	Annotation string
	Unknown
}

// LayerInfo describes one layer of the source image.
type LayerInfo struct {
	Index       int // from 0, the base
	Count       int // layers in this image
	MediaType   string
	Digest      string // of the stored bytes
	Size        int64  // of the stored bytes
	DiffID      string // of the tar; "" if the config does not say
	ChainID     string // of the layers up to this one
	Annotations map[string]string
	Unknown
}

// PartInfo describes a stream that the plugin may open with RolePart, RoleParent or RoleDict: one artifact, or one
// layer of a converted image.
type PartInfo struct {
	Name        string
	Layer       int // index of the layer it belongs to
	MediaType   string
	Digest      string
	Size        int64
	Annotations map[string]string
	Ref         string // of a blob that layer Layer refers to: the annotation that names it (Description.Refs); else ""
	Unknown
}

// ConvertRequest asks for the artifacts of one layer. It holds nothing of the image that the layer is in (platform, config):
// equal layers are converted once, whichever image comes first. What depends on the image belongs into MergeLayers.
type ConvertRequest struct {
	Layer    LayerInfo
	Options  map[string]string
	Parents  []PartInfo // artifacts of lower layers, lowest first; only for chained formats
	Dicts    []PartInfo // files that the user names, in his order: size and digest, no name and no media type
	Features []string   // what this host can do
	Unknown
}

// Part is one artifact that an operation wrote. Size and Digest are the plugin's claim of what it wrote into the sink;
// the host compares them with the bytes. Leave Digest empty to claim nothing.
type Part struct {
	Sink        int // index given to OpenSink
	Name        string
	MediaType   string
	Digest      string // sha256:…
	Size        int64
	DiffID      string // "": the part's own digest
	Annotations map[string]string
	Aux         bool // only for merge, parents or later use: not a layer of the image
	Unknown
}

// ConvertResponse lists what ConvertLayer made. State goes to MergeLayers of the same conversion unchanged.
type ConvertResponse struct {
	Parts    []Part
	State    []byte
	Warnings []string
	Unknown
}

// MergeLayer is one converted layer in a MergeRequest.
type MergeLayer struct {
	Layer LayerInfo
	Parts []int32 // indexes into MergeRequest.Parts
	State []byte
	Unknown
}

// MergeRequest asks to finish an image from its converted layers.
type MergeRequest struct {
	Layers            []MergeLayer
	Parts             []PartInfo // open with RolePart
	Platform          string
	Options           map[string]string
	ManifestMediaType string // of the manifest that will be written
	Config            []byte
	Dicts             []PartInfo // the same as in each ConvertRequest
	Features          []string
	Unknown
}

// OutLayer is one layer of the converted manifest: a part of the request (Part ≥ 0), or a new artifact (Part -1, New).
type OutLayer struct {
	Part        int // index into MergeRequest.Parts, or -1
	New         Part
	Source      int    // index of the source layer whose history item it keeps, or -1
	CreatedBy   string // history item, if Source is -1
	Comment     string
	Annotations map[string]string // replace those of the part, if not nil
	Unknown
}

// MergeResponse says what the image consists of.
type MergeResponse struct {
	Layers          []OutLayer
	Annotations     map[string]string // added to the manifest
	OSFeatures      []string          // added to the platform in the index
	ConfigMediaType string            // replaces the config's, if set
	ArtifactType    string            // of the manifest, if set
	Warnings        []string
	Unknown
}

// UnpackRequest asks for a tar in sink 0. With Layer ≥ 0 it is the tar of that layer, whiteouts as in OCI layers;
// with Layer -1 the whole image's file system, flattened.
type UnpackRequest struct {
	Layer    int
	Parts    []PartInfo // all layers of the converted manifest, in order, then what they refer to; open with RolePart
	Options  map[string]string
	Config   []byte
	Features []string
	Unknown
}

// UnpackResponse ends an unpack.
type UnpackResponse struct {
	Entries  int64
	Warnings []string
	Unknown
}

// CheckRequest asks to examine converted data: every structure, and every body with Deep.
type CheckRequest struct {
	Parts   []PartInfo // as in UnpackRequest
	Options map[string]string
	Deep    bool
	Config  []byte
	Unknown
}

// CheckResponse reports all violations found; none means the data is right.
type CheckResponse struct {
	Problems []ErrorDetail
	Facts    map[string]string // what a user may want to know: format version, chunk count, compressor …
	Unknown
}

// AttachRequest asks a native plugin to present an image as a device or a mount.
type AttachRequest struct {
	Parts    []PartInfo
	Options  map[string]string
	Target   string // mount point, an absolute path, or "" for a device only
	Config   []byte
	ID       string // of the attachment, chosen by the host: letters, digits and dashes
	StateDir string // a directory of the attachment's own, where the plugin keeps what Detach needs; an absolute path
	// Locations tell where the bytes of each part are, for other runtimes of the format: a URL (file:///…, https://…), or ""
	// if there is none.
	Locations []string
	Features  []string // what this host can do
	Unknown
}

// AttachResponse names what was attached, in Host.Ready and at the end of the operation. An empty ID says that nothing
// was, because the request did not ask for it.
type AttachResponse struct {
	ID      string // the request's
	Device  string
	Runtime []byte // what another runtime of the format needs to attach the image itself, in that runtime's form; nil if there is none
	Unknown
}

// DetachRequest ends an attachment and cleans up, also after a crash, and again: what is not there is no error.
type DetachRequest struct {
	ID       string
	StateDir string // that of the AttachRequest
	Force    bool   // also when it is in use: users see errors from then on
	Unknown
}

// DetachResponse ends a detach.
type DetachResponse struct{ Unknown }

// ErrorDetail carries an error across the ABI.
type ErrorDetail struct {
	Class   Class
	Message string
	Format  string // the fields of FormatError, if the error was one
	Entry   string
	Field   string
	Off     int64
	Got     string
	Want    string
	Limit   string // LimitOf the error
	Unknown
}

// CallRequest carries one operation to a native plugin.
type CallRequest struct {
	Op      Op
	Request []byte // the operation's request message
	ID      uint64 // names the operation on the data socket
	Grants  Grants // what may be opened
	Unknown
}

// CallResponse carries an answer, or an error if Failed.
type CallResponse struct {
	Response []byte
	Failed   bool
	Error    ErrorDetail
	Unknown
}
