package graph

import (
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Role says how a parent refers to a node.
type Role string

// The roles.
const (
	RoleRoot   Role = "root"
	RoleEntry  Role = "entry"  // of an index
	RoleConfig Role = "config" // of a manifest
	RoleLayer  Role = "layer"  // of a manifest
)

// Graph is the result of Load. It is not changed afterwards and may be read from many goroutines.
type Graph struct {
	Root       *Node
	Documents  int      // distinct documents that were read
	References int      // descriptors met, shared ones each time
	Bytes      int64    // declared bytes of all distinct blobs
	Warnings   []string // oddities that are not errors, with their path; in walking order
}

// Node is one reference to a blob: a blob that is referred to twice is two nodes, which share what was read.
// The fields belong to the graph: read only.
type Node struct {
	Desc     ocispec.Descriptor // as the parent refers to it
	Kind     Kind
	Role     Role
	Position int // among the siblings of the same role
	Parent   *Node
	Children []*Node // entries of an index; config and then layers of a manifest

	Raw      []byte            // exact bytes of a document or config that was read; nil if it was not
	Index    *ocispec.Index    // typed view, for indexes
	Manifest *ocispec.Manifest // typed view, for manifests
	Config   *ImageConfig      // typed view, for configs that were read

	// For manifests.
	Platform    *ocispec.Platform // the parent's word, else the config's, else nil
	Runnable    bool              // an image that a runtime could start
	Reason      string            // why it is not runnable, or was not read
	Attestation bool              // made by a builder about an image
	Attests     digest.Digest     // the manifest that an attestation, or the subject of an artifact, is about; "" if none
}

// ImageConfig is what this package needs of an image config.
type ImageConfig struct {
	ocispec.Platform
	RootFS  ocispec.RootFS
	History []HistoryItem
}

// HistoryItem is the part of a history entry that keeps it in step with the layers.
type HistoryItem struct {
	CreatedBy  string `json:"created_by"`
	Comment    string `json:"comment"`
	EmptyLayer bool   `json:"empty_layer"`
}

// layerItems returns the positions of the items that stand for a layer.
func (c *ImageConfig) layerItems() (at []int) {
	for i, h := range c.History {
		if !h.EmptyLayer {
			at = append(at, i)
		}
	}
	return at
}

// ConfigNode returns the config of a manifest, nil for other nodes.
func (n *Node) ConfigNode() *Node {
	if n.Manifest == nil {
		return nil
	}
	return n.Children[0]
}

// Layers returns the layers of a manifest, bottom first.
func (n *Node) Layers() []*Node {
	if n.Manifest == nil {
		return nil
	}
	return n.Children[1:]
}

// DiffID returns the digest that the config gives for the uncompressed form of a layer; "" for other nodes and where
// the config was not read.
func (n *Node) DiffID() digest.Digest {
	if n.Role != RoleLayer {
		return ""
	}
	if c := n.Parent.ConfigNode().Config; c != nil && n.Position < len(c.RootFS.DiffIDs) {
		return c.RootFS.DiffIDs[n.Position]
	}
	return ""
}

// Blobs returns each blob at and below the nodes once, children before parents: the order in which to copy them.
func Blobs(nodes ...*Node) (out []ocispec.Descriptor) {
	seen := map[digest.Digest]bool{}
	var visit func(n *Node)
	visit = func(n *Node) {
		for _, c := range n.Children {
			visit(c)
		}
		if !seen[n.Desc.Digest] {
			seen[n.Desc.Digest] = true
			out = append(out, n.Desc)
		}
	}
	for _, n := range nodes {
		visit(n)
	}
	return out
}

// Walk calls fn for n and everything below it, parents first, in document order, until fn returns false.
func (n *Node) Walk(fn func(*Node) bool) bool {
	if !fn(n) {
		return false
	}
	for _, c := range n.Children {
		if !c.Walk(fn) {
			return false
		}
	}
	return true
}

// Manifests returns all manifests at and below n in document order.
func (n *Node) Manifests() (out []*Node) {
	n.Walk(func(c *Node) bool {
		if c.Kind == KindManifest {
			out = append(out, c)
		}
		return true
	})
	return out
}

// Depth is the number of references between the root and n.
func (n *Node) Depth() int {
	d := 0
	for p := n.Parent; p != nil; p = p.Parent {
		d++
	}
	return d
}

// Path names n from the root on, for messages:
// "index sha256:0fc0225c0ef6… → manifest 1 (linux/arm64) sha256:1572a5ea9c13… → layer 0 sha256:a2cd1abaff35…".
// Positions count from 0, as everywhere.
func (n *Node) Path() string {
	var parts []string
	for c := n; c != nil; c = c.Parent {
		parts = append([]string{c.label()}, parts...)
	}
	return strings.Join(parts, " → ")
}

// place is Path with the whole digest of n, if it is one.
func (n *Node) place() string {
	return strings.TrimSuffix(n.Path(), short(n.Desc.Digest)) + whole(n.Desc.Digest)
}

// whole is a digest as it is, or cut like a short one if it is none.
func whole(d digest.Digest) string {
	if checkDigest(d) != nil {
		return short(d)
	}
	return d.String()
}

func (n *Node) label() string {
	var b strings.Builder
	switch {
	case n.Role == RoleLayer:
		fmt.Fprintf(&b, "layer %d ", n.Position)
	case n.Role == RoleConfig:
		b.WriteString("config ")
	case n.Role == RoleEntry && n.Kind.Document():
		fmt.Fprintf(&b, "%s %d ", n.Kind, n.Position)
	case n.Role == RoleEntry:
		fmt.Fprintf(&b, "entry %d ", n.Position)
	default:
		fmt.Fprintf(&b, "%s ", n.Kind)
	}
	if n.Platform != nil && n.Kind == KindManifest {
		fmt.Fprintf(&b, "(%s) ", platforms.FormatAll(*n.Platform))
	}
	return b.String() + short(n.Desc.Digest)
}

// short cuts a digest, which may be anything, to what a person compares.
func short(d digest.Digest) string {
	s := string(d)
	if i := strings.IndexByte(s, ':'); i >= 0 && len(s) > i+13 {
		return s[:i+13] + "…"
	}
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return fmt.Sprintf("%q", s)
}
