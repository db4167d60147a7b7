package graph

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// index rewrites an index after its entries.
func (r *rewriter) index(ctx context.Context, n *Node) (result, error) {
	same := result{desc: bare(n.Desc)}
	ch := IndexChange{Entries: map[int]EntryChange{}}
	var left []result
	needOCI := r.opts.OCI
	for i, c := range n.Children {
		res, err := r.visit(ctx, c)
		if err != nil {
			return same, err
		}
		if res.drop {
			ch.Entries[i] = EntryChange{Drop: true}
			r.dropped(c)
			continue
		}
		left = append(left, res)
		if res.changed {
			e := r.entry(c, res)
			ch.Entries[i] = e
			needOCI = needOCI || !IsDocker(res.desc.MediaType) || len(e.Annotations) > 0 || e.ArtifactType != ""
		}
	}
	switch {
	case len(ch.Entries) == 0 && !(r.opts.Collapse && n.Parent == nil && len(left) == 1):
		return same, nil
	case len(left) == 0:
		same.drop = true
		return same, nil
	case r.opts.Collapse && n.Parent == nil && len(left) == 1:
		for i, c := range n.Children {
			if e := ch.Entries[i]; !e.Drop && e.Desc == nil {
				r.keep(c)
			}
		}
		r.note(n, "one entry is left, it takes the place of the index")
		return result{desc: left[0].desc, changed: true}, nil
	}
	return r.changedIndex(ctx, n, ch, needOCI)
}

// entry says what changes in the entry of c, whose document changed.
func (r *rewriter) entry(c *Node, res result) EntryChange {
	e := EntryChange{Desc: &res.desc}
	conv := r.conversions[c.Desc.Digest]
	if d, _ := r.sel.Of(c); d.Action != Convert || conv == nil {
		return e
	}
	e.OSFeatures, e.Annotations, e.ArtifactType = conv.OSFeatures, conv.EntryAnnotations, conv.Manifest.ArtifactType
	if len(e.OSFeatures) > 0 && c.Desc.Platform == nil {
		e.Platform = c.Platform
	}
	return e
}

func (r *rewriter) changedIndex(ctx context.Context, n *Node, ch IndexChange, needOCI bool) (result, error) {
	mediaType := n.Desc.MediaType
	if IsDocker(mediaType) && needOCI {
		mediaType = ocispec.MediaTypeImageIndex
		ch.MediaType = mediaType
	}
	if n.Index.Subject != nil && !r.opts.KeepSubject {
		ch.RemoveSubject = true
		r.note(n, "subject %s was removed", short(n.Index.Subject.Digest))
	}
	raw, err := EditIndex(n.Raw, ch)
	if err != nil {
		return result{}, fmt.Errorf("%s: %w", n.Path(), err)
	}
	desc := DocumentDescriptor(mediaType, raw)
	return result{desc: desc, changed: true}, r.finish(ctx, n, Document{Desc: desc, Raw: raw})
}

// dropped records an entry that the result does not have.
func (r *rewriter) dropped(c *Node) {
	d, ok := r.sel.Of(c)
	if !ok {
		d = Decision{Node: c, Action: Drop, Reason: "no entry of it remains"}
	}
	r.out.Dropped = append(r.out.Dropped, d)
}
