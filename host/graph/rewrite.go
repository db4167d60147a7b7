package graph

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/convhost/convhost/abi"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Writer takes new documents. Rewrite calls it from one goroutine, children before parents, in an order that depends
// on the graph only; the same document may come twice. A document that exists already is not an error. desc has media type,
// digest and size. An error ends the rewriting.
type Writer interface {
	WriteDocument(ctx context.Context, desc ocispec.Descriptor, raw []byte) error
}

// Conversion is what became of one manifest.
type Conversion struct {
	// Manifest says what changes in the manifest: usually the layers. Its Config is made from the field below; set it only
	// if the config was written by the caller. MediaType is changed to OCI by itself where Docker's types do not do.
	Manifest ManifestChange
	// Config says what changes in the image config: diff_ids and history of the new layers.
	Config ConfigChange
	// ConfigMediaType gives the config another media type; "" keeps it.
	ConfigMediaType string
	// OSFeatures are added to the platform of every index entry that points to the manifest.
	OSFeatures []string
	// EntryAnnotations are set on every index entry that points to the manifest.
	EntryAnnotations map[string]string
}

// ConvertFunc converts the layers of one image and says what changes; nil means that nothing does. It is called once
// per digest, for different manifests from different goroutines at the same time, with a context that is canceled
// when another one failed. A panic becomes an abi.ErrInternal. All blobs that the change refers to must be stored when it returns.
type ConvertFunc func(ctx context.Context, m *Node) (*Conversion, error)

// RewriteOptions steer Rewrite.
type RewriteOptions struct {
	// Parallel is the number of manifests converted at the same time; default GOMAXPROCS.
	Parallel int
	// OCI makes OCI documents of all that change, also where Docker's types would do.
	OCI bool
	// Docker makes Docker's documents of all that change, annotations notwithstanding: many registries and runtimes
	// take them there. ErrUnsupported for layers of types that Docker has no name for. Not together with OCI.
	Docker bool
	// ArtifactType, if set, makes every manifest and index that changes a referrer of what it was made of: it gets this
	// type, unless its conversion gives another one, and the source document as its subject. Implies OCI.
	ArtifactType string
	// KeepSubject leaves the subject of a converted manifest or index as it is. Without it the subject is removed,
	// and noted: what it refers to is another graph, which usually does not come along.
	KeepSubject bool
	// Collapse lets a root index that is left with one manifest give way to that manifest.
	Collapse bool
}

// Document is a new document.
type Document struct {
	Desc ocispec.Descriptor
	Raw  []byte
}

// Mapped is a manifest and what it became.
type Mapped struct {
	Source *Node
	Target ocispec.Descriptor // equal to Source.Desc if nothing changed
}

// Rewritten is the result of Rewrite.
type Rewritten struct {
	Root      ocispec.Descriptor
	Changed   bool
	Documents []Document // new ones, children before parents, each once
	Converted []Mapped   // in the order of Selection.Convert
	// Kept are the parts of the source graph that the result refers to unchanged, with everything below them: the
	// target needs their blobs. Each digest once.
	Kept    []*Node
	Dropped []Decision // entries of the source that the result does not have
	Notes   []string   // what else a user should know, with paths
}

// Rewrite converts what was selected and makes the new graph: configs, manifests, then the indexes above them, every
// distinct document once. Documents that do not change keep their bytes and are not written. Nothing is published:
// the caller does that with Root, last.
//
// Errors name the path. ErrInvalid if a Conversion contradicts itself (layers, diff_ids and history out of step);
// else those of convert and w.
func Rewrite(ctx context.Context, g *Graph, sel *Selection, convert ConvertFunc, w Writer, opts RewriteOptions) (*Rewritten, error) {
	if opts.ArtifactType != "" {
		opts.OCI = true
	}
	if opts.Docker && opts.OCI {
		return nil, abi.Errorf(abi.ErrInvalid, "docker media types: neither OCI's nor a subject go with them")
	}
	r := &rewriter{sel: sel, w: w, opts: opts, out: &Rewritten{}, memo: map[memoKey]result{}, kept: map[digest.Digest]bool{},
		written: map[digest.Digest]bool{}, conversions: map[digest.Digest]*Conversion{}}
	if err := r.convertAll(ctx, convert); err != nil {
		return nil, err
	}
	for _, n := range sel.Convert { // first of all, because attestations are judged by what became of their images
		res, err := r.visit(ctx, n)
		if err != nil {
			return nil, err
		}
		r.out.Converted = append(r.out.Converted, Mapped{Source: n, Target: res.desc})
	}
	res, err := r.visit(ctx, g.Root)
	if err != nil {
		return nil, err
	}
	if res.drop {
		return nil, abi.Errorf(abi.ErrInvalid, "%s: no entry remains", g.Root.Path())
	}
	r.out.Root, r.out.Changed = res.desc, res.changed
	if !res.changed {
		r.keep(g.Root)
	}
	return r.out, nil
}

type memoKey struct {
	digest    digest.Digest
	mediaType string
	action    Action
}

// result is what became of a reference.
type result struct {
	desc    ocispec.Descriptor // media type, digest, size
	changed bool
	drop    bool
}

type rewriter struct {
	sel         *Selection
	w           Writer
	opts        RewriteOptions
	out         *Rewritten
	memo        map[memoKey]result
	kept        map[digest.Digest]bool
	written     map[digest.Digest]bool
	conversions map[digest.Digest]*Conversion
}

// convertAll calls convert for the selected manifests, opts.Parallel at a time. Of several errors the first in
// document order counts that was not caused by the cancellation. It comes back as convert made it: who converts a
// manifest says which.
func (r *rewriter) convertAll(ctx context.Context, convert ConvertFunc) error {
	n := r.opts.Parallel
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	cctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	results := make([]*Conversion, len(r.sel.Convert))
	errs := make([]error, len(r.sel.Convert))
	slots := make(chan struct{}, n)
	for i, m := range r.sel.Convert {
		slots <- struct{}{}
		if errs[i] = cctx.Err(); errs[i] != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if results[i], errs[i] = guard(cctx, convert, m); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	var first error
	for i, err := range errs {
		if err != nil && (first == nil || errors.Is(first, context.Canceled) && !errors.Is(err, context.Canceled)) {
			first = err
		}
		r.conversions[r.sel.Convert[i].Desc.Digest] = results[i]
	}
	if err := ctx.Err(); err != nil && (first == nil || errors.Is(first, context.Canceled)) {
		return err
	}
	return first
}

// guard makes an error of a panic in convert: nobody else could catch it in this goroutine.
func guard(ctx context.Context, convert ConvertFunc, m *Node) (c *Conversion, err error) {
	defer func() {
		if p := recover(); p != nil {
			c, err = nil, abi.Errorf(abi.ErrInternal, "%s: conversion panicked: %v\n%s", m.Path(), p, debug.Stack())
		}
	}()
	return convert(ctx, m)
}

// visit rewrites what n refers to, children first, each document once.
func (r *rewriter) visit(ctx context.Context, n *Node) (result, error) {
	d, _ := r.sel.Of(n)
	key := memoKey{n.Desc.Digest, n.Desc.MediaType, d.Action}
	if res, ok := r.memo[key]; ok {
		return res, nil
	}
	res := result{desc: bare(n.Desc)}
	var err error
	switch {
	case n.Kind == KindIndex && n.Index != nil:
		res, err = r.index(ctx, n)
	case d.Action == Convert:
		res, err = r.manifest(ctx, n)
	case d.Action == Drop && !r.valid(d):
		res.drop = true
	}
	if err != nil {
		return res, err
	}
	r.memo[key] = res
	return res, nil
}

// valid tells that a stale attestation is none, because conversion left its image as it was.
func (r *rewriter) valid(d Decision) bool {
	if !d.stale {
		return false
	}
	for _, m := range r.out.Converted {
		if m.Source.Desc.Digest == d.Node.Attests {
			return m.Target.Digest == d.Node.Attests
		}
	}
	return false
}

func (r *rewriter) manifest(ctx context.Context, n *Node) (result, error) {
	same := result{desc: bare(n.Desc)}
	conv := r.conversions[n.Desc.Digest]
	if conv == nil {
		return same, nil
	}
	config, err := r.config(n, conv)
	if err != nil {
		return same, fmt.Errorf("%s: %w", n.ConfigNode().Path(), err)
	}
	ch := conv.Manifest
	if ch.Config == nil && (config.Desc.Digest != n.Manifest.Config.Digest || config.Desc.MediaType != n.Manifest.Config.MediaType) {
		ch.Config = &config.Desc
	}
	if ch, err = r.family(n, ch); err != nil {
		return same, fmt.Errorf("%s: %w", n.Path(), err)
	}
	raw, err := EditManifest(n.Raw, ch)
	if err != nil {
		return same, fmt.Errorf("%s: %w", n.Path(), err)
	}
	mediaType := n.Desc.MediaType
	if ch.MediaType != "" {
		mediaType = ch.MediaType
	}
	desc := DocumentDescriptor(mediaType, raw)
	if desc.Digest == n.Desc.Digest && mediaType == n.Desc.MediaType {
		return same, nil
	}
	if err := checkConverted(raw, mediaType, config.Raw); err != nil {
		return same, fmt.Errorf("%s: %w", n.Path(), err)
	}
	r.lost(n, n.Manifest.Subject, ch.Subject, ch.RemoveSubject)
	if config.Raw != nil && config.Desc.Digest != n.Manifest.Config.Digest {
		if err := r.write(ctx, n.ConfigNode(), config); err != nil {
			return same, err
		}
	}
	return result{desc: desc, changed: true}, r.finish(ctx, n, Document{Desc: desc, Raw: raw})
}

// family completes a change by what the options say of all documents: media types, artifact type and subject.
func (r *rewriter) family(n *Node, ch ManifestChange) (ManifestChange, error) {
	if r.opts.ArtifactType != "" {
		source := bare(n.Desc)
		ch.ArtifactType, ch.Subject = cmp.Or(ch.ArtifactType, r.opts.ArtifactType), &source
	}
	if n.Manifest.Subject != nil && ch.Subject == nil && !r.opts.KeepSubject {
		ch.RemoveSubject = true
	}
	switch {
	case r.opts.Docker:
		return ch.ToDocker(n.Manifest)
	case r.opts.OCI, ch.NeedsOCI(n.Desc.MediaType):
		ch = ch.ToOCI(n.Manifest)
	}
	return ch, nil
}

// lost notes a subject that the new document does not have.
func (r *rewriter) lost(n *Node, old, now *ocispec.Descriptor, removed bool) {
	switch {
	case old == nil:
	case now != nil && now.Digest != old.Digest:
		r.note(n, "subject %s gave way to the source of the conversion", short(old.Digest))
	case removed:
		r.note(n, "subject %s was removed", short(old.Digest))
	}
}

// config edits the config of a manifest. The document has no Raw if the caller wrote the config.
func (r *rewriter) config(n *Node, conv *Conversion) (Document, error) {
	if conv.Manifest.Config != nil {
		return Document{Desc: *conv.Manifest.Config}, nil
	}
	c := n.ConfigNode()
	raw, err := EditConfig(c.Raw, conv.Config)
	if err != nil {
		return Document{}, err
	}
	mediaType := n.Manifest.Config.MediaType
	if conv.ConfigMediaType != "" {
		mediaType = conv.ConfigMediaType
	}
	if digest.FromBytes(raw) == n.Manifest.Config.Digest || string(raw) == string(c.Raw) {
		d := n.Manifest.Config
		d.MediaType = mediaType
		return Document{Desc: d, Raw: raw}, nil
	}
	dd := DocumentDescriptor(mediaType, raw)
	return Document{Desc: NewDescriptor(n.Manifest.Config, mediaType, dd.Digest, dd.Size), Raw: raw}, nil
}

// checkConverted reads a new manifest and its config back.
func checkConverted(raw []byte, mediaType string, config []byte) error {
	m, err := parseManifest(raw, mediaType, Limits{}.withDefaults())
	if err != nil {
		return fmt.Errorf("converted manifest: %w", err)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := checkDescriptor(d, Limits{}.withDefaults()); err != nil {
			return abi.Errorf(abi.ErrInvalid, "converted manifest: %w", err)
		}
	}
	if config == nil {
		return nil
	}
	cfg, err := parseConfig(config)
	if err != nil {
		return fmt.Errorf("converted config: %w", err)
	}
	if a, b := len(m.Layers), len(cfg.RootFS.DiffIDs); a != b {
		return abi.Errorf(abi.ErrInvalid, "conversion gives %d layers and %d diff_ids", a, b)
	}
	return nil
}

// bare is a descriptor without anything that belongs to one reference only.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// finish writes a document and keeps those of n's children that it still refers to.
func (r *rewriter) finish(ctx context.Context, n *Node, d Document) error {
	children, err := Children(d.Desc.MediaType, d.Raw)
	if err != nil {
		return fmt.Errorf("%s: converted %s: %w", n.Path(), n.Kind, err)
	}
	still := map[digest.Digest]bool{}
	for _, c := range children {
		still[c.Digest] = true
	}
	for _, c := range n.Children {
		if still[c.Desc.Digest] {
			r.keep(c)
		}
	}
	return r.write(ctx, n, d)
}

func (r *rewriter) keep(n *Node) {
	if !r.kept[n.Desc.Digest] {
		r.kept[n.Desc.Digest] = true
		r.out.Kept = append(r.out.Kept, n)
	}
}

func (r *rewriter) write(ctx context.Context, n *Node, d Document) error {
	if r.written[d.Desc.Digest] {
		return nil
	}
	if err := r.w.WriteDocument(ctx, bare(d.Desc), d.Raw); err != nil {
		return fmt.Errorf("%s: write the converted %s: %w", n.Path(), n.Kind, err)
	}
	r.written[d.Desc.Digest] = true
	r.out.Documents = append(r.out.Documents, Document{Desc: bare(d.Desc), Raw: d.Raw})
	return nil
}

func (r *rewriter) note(n *Node, format string, args ...any) {
	r.out.Notes = append(r.out.Notes, n.Path()+": "+fmt.Sprintf(format, args...))
}
