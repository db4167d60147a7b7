package graph

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/convhost/convhost/abi"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Fetcher opens a blob. Load calls it for documents only, from one goroutine, at most once per digest, and closes what
// it returns. A missing blob is abi.ErrNotFound, errdefs.ErrNotFound or fs.ErrNotExist; errors without a class count
// as abi.ErrIO. The bytes need not be verified: Load does that.
type Fetcher interface {
	Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// LoadOptions steer Load. The zero value reads everything under the default limits.
type LoadOptions struct {
	Limits Limits
	// Only, if set, leaves index entries unread whose platform it does not match: they stay in the graph as nodes that
	// are not runnable. Entries without a platform are read. For stores that hold one platform of an image only.
	Only platforms.Matcher
}

// Load reads the tree of documents below root and checks it. root needs media type, digest and size.
//
// Errors wrap one class: ErrInvalid for a root that is neither index nor manifest, ErrCorrupt and ErrDigest for
// documents that break a rule, ErrLimit, ErrNotFound, ErrUnsupported (schema 1, digest algorithms), or the fetcher's.
func Load(ctx context.Context, f Fetcher, root ocispec.Descriptor, opts LoadOptions) (*Graph, error) {
	l := &loader{f: f, lim: opts.Limits.withDefaults(), only: opts.Only, g: &Graph{},
		seen: map[digest.Digest]ocispec.Descriptor{}, docs: map[digest.Digest]*Node{}}
	if k := KindOf(root.MediaType); k == KindSchema1 {
		return nil, abi.Errorf(abi.ErrUnsupported, "%s: docker schema 1 images are not supported", whole(root.Digest))
	} else if !k.Document() {
		return nil, abi.Errorf(abi.ErrInvalid, "%s: media type %q is neither an index nor a manifest", whole(root.Digest), root.MediaType)
	}
	n, err := l.node(ctx, root, nil, RoleRoot, 0, 0)
	if err != nil {
		return nil, err
	}
	l.g.Root, l.g.References = n, l.references
	return l.g, nil
}

type loader struct {
	f          Fetcher
	lim        Limits
	only       platforms.Matcher
	g          *Graph
	references int
	seen       map[digest.Digest]ocispec.Descriptor // first descriptor of each blob
	docs       map[digest.Digest]*Node              // first node of each document that was read
}

// node makes the node of one reference and everything below it. nesting is the number of indexes above it.
func (l *loader) node(ctx context.Context, d ocispec.Descriptor, parent *Node, role Role, pos, nesting int) (*Node, error) {
	n := &Node{Desc: d, Kind: KindOf(d.MediaType), Role: role, Position: pos, Parent: parent, Platform: knownPlatform(d.Platform)}
	if err := l.admit(n); err != nil {
		return nil, l.at(n, err)
	}
	var err error
	switch {
	case n.Kind == KindSchema1:
		err = abi.Errorf(abi.ErrUnsupported, "docker schema 1 images are not supported")
	case role == RoleConfig || role == RoleLayer: // a manifest among the layers of an artifact is not walked
	case n.Kind.Document() && role == RoleEntry && l.only != nil && n.Platform != nil && !l.only.Match(*n.Platform):
		n.Reason = "platform not selected, not read"
		n.markAttestation()
	case n.Kind == KindIndex && nesting >= l.lim.Nesting:
		err = abi.Errorf(abi.ErrLimit, "indexes are nested more than %d deep", l.lim.Nesting)
	case n.Kind == KindIndex:
		return n, l.index(ctx, n, nesting)
	case n.Kind == KindManifest:
		return n, l.manifest(ctx, n, nesting)
	}
	if err != nil {
		return nil, l.at(n, err)
	}
	return n, nil
}

// admit counts a reference and holds it against the limits and against what is known about its blob.
func (l *loader) admit(n *Node) error {
	if l.references++; l.references > l.lim.References {
		return abi.Errorf(abi.ErrLimit, "graph has more than %d references", l.lim.References)
	}
	if err := checkDescriptor(n.Desc, l.lim); err != nil {
		return err
	}
	if n.Kind.Document() && n.Desc.Size == 0 {
		return abi.Errorf(abi.ErrCorrupt, "size of the %s is 0", n.Kind)
	}
	first, ok := l.seen[n.Desc.Digest]
	if ok {
		return checkSame(first, n.Desc)
	}
	if len(l.seen) >= l.lim.Nodes {
		return abi.Errorf(abi.ErrLimit, "graph has more than %d blobs", l.lim.Nodes)
	}
	l.seen[n.Desc.Digest] = n.Desc
	if n.Desc.Size > l.lim.TotalBytes-l.g.Bytes {
		return abi.Errorf(abi.ErrLimit, "blobs of the graph declare more than %d bytes", l.lim.TotalBytes)
	}
	l.g.Bytes += n.Desc.Size
	return nil
}

// checkSame refuses a digest that is used with two sizes or two meanings: a manifest that somebody else would read as
// an index, a config that is also a layer, a layer in two compressions. OCI and Docker names of one thing are the same.
func checkSame(a, b ocispec.Descriptor) error {
	if a.Size != b.Size {
		return abi.Errorf(abi.ErrCorrupt, "size is %d here and %d elsewhere in the graph", b.Size, a.Size)
	}
	if ToOCI(a.MediaType) == ToOCI(b.MediaType) {
		return nil
	}
	ka, kb := KindOf(a.MediaType), KindOf(b.MediaType)
	ca, _ := CompressionOf(a.MediaType)
	cb, _ := CompressionOf(b.MediaType)
	switch {
	case ka == KindUnknown && !kb.Document(), kb == KindUnknown && !ka.Document():
		return nil // artifacts give the same bytes many names
	case ka == KindEmpty && !kb.Document(), kb == KindEmpty && !ka.Document():
		return nil
	case (ka == KindLayer || ka == KindForeign) && (kb == KindLayer || kb == KindForeign) &&
		(ca == cb || ca == Sniff || cb == Sniff):
		return nil
	}
	return abi.Errorf(abi.ErrCorrupt, "media type is %s here and %s elsewhere in the graph", b.MediaType, a.MediaType)
}

func (l *loader) index(ctx context.Context, n *Node, nesting int) error {
	if err := l.document(ctx, n); err != nil {
		return l.at(n, err)
	}
	for i, d := range n.Index.Manifests {
		c, err := l.node(ctx, d, n, RoleEntry, i, nesting+1)
		if err != nil {
			return err
		}
		n.Children = append(n.Children, c)
	}
	return nil
}

func (l *loader) manifest(ctx context.Context, n *Node, nesting int) error {
	if err := l.document(ctx, n); err != nil {
		return l.at(n, err)
	}
	m := n.Manifest
	if len(m.Layers) > l.lim.Layers {
		return l.at(n, abi.Errorf(abi.ErrLimit, "manifest has %d layers, the limit is %d", len(m.Layers), l.lim.Layers))
	}
	c, err := l.node(ctx, m.Config, n, RoleConfig, 0, nesting)
	if err != nil {
		return err
	}
	n.Children = append(n.Children, c)
	for i, d := range m.Layers {
		if c, err = l.node(ctx, d, n, RoleLayer, i, nesting); err != nil {
			return err
		}
		n.Children = append(n.Children, c)
	}
	return l.judge(ctx, n)
}

// document reads and parses n's bytes, or takes them from the first node of the same digest.
func (l *loader) document(ctx context.Context, n *Node) error {
	first, known := l.docs[n.Desc.Digest]
	if known && first.Desc.MediaType == n.Desc.MediaType {
		n.Raw, n.Index, n.Manifest = first.Raw, first.Index, first.Manifest
		return nil
	}
	var err error
	if known { // by Docker's name and by OCI's: the document has to fit both
		n.Raw = first.Raw
	} else if n.Raw, err = l.read(ctx, n.Desc, l.lim.Document); err != nil {
		return err
	}
	if n.Kind == KindIndex {
		n.Index, err = parseIndex(n.Raw, n.Desc.MediaType, l.lim)
	} else {
		n.Manifest, err = parseManifest(n.Raw, n.Desc.MediaType, l.lim)
	}
	if err != nil || known {
		return err
	}
	l.docs[n.Desc.Digest] = n
	l.g.Documents++
	return nil
}

// read returns the verified bytes of a small blob.
func (l *loader) read(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, abi.Errorf(abi.ErrLimit, "document has %d bytes, the limit is %d", d.Size, limit)
	}
	if d.Data != nil { // verified by checkDescriptor
		return d.Data, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rc, err := l.f.Fetch(ctx, d)
	if err != nil {
		return nil, fetchError(err)
	}
	raw, err := io.ReadAll(io.LimitReader(rc, d.Size+1))
	if cerr := rc.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fetchError(fmt.Errorf("read: %w", err))
	}
	if int64(len(raw)) > d.Size {
		return nil, abi.Errorf(abi.ErrDigest, "document has more than the %d bytes that its descriptor says", d.Size)
	}
	return raw, verify(d, raw, "document")
}

// fetchError gives an error of a store a class.
func fetchError(err error) error {
	var c abi.Class
	switch {
	case errors.As(err, &c), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errdefs.IsNotFound(err), errors.Is(err, fs.ErrNotExist):
		return abi.Errorf(abi.ErrNotFound, "blob is missing: %w", err)
	case errdefs.IsPermissionDenied(err), errdefs.IsUnauthorized(err), errors.Is(err, fs.ErrPermission):
		return abi.Errorf(abi.ErrDenied, "%w", err)
	}
	return abi.Errorf(abi.ErrIO, "%w", err)
}

func (l *loader) at(n *Node, err error) error { return fmt.Errorf("%s: %w", n.place(), err) }

func (l *loader) warn(n *Node, format string, args ...any) {
	l.g.Warnings = append(l.g.Warnings, n.Path()+": "+fmt.Sprintf(format, args...))
}
