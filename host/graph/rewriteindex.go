package graph

import (
	"cmp"
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// index rewrites an index after its entries.
func (r *rewriter) index(ctx context.Context, n *Node) (result, error) {
	same := result{desc: bare(n.Desc)}
	ch := IndexChange{Entries: map[int]EntryChange{}}
	var left []result
	needOCI, docker := r.opts.OCI, r.opts.Docker
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
		docker = docker && IsDocker(res.desc.MediaType)
		if res.changed {
			e := r.entry(c, res)
			ch.Entries[i] = e
			needOCI = needOCI || !IsDocker(res.desc.MediaType) || !r.opts.Docker && (len(e.Annotations) > 0 || e.ArtifactType != "")
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
	if docker {
		ch.MediaType = DockerList
	} else if needOCI {
		ch.MediaType = ocispec.MediaTypeImageIndex
	}
	return r.changedIndex(ctx, n, ch)
}

// entry says what changes in the entry of c, whose document changed.
func (r *rewriter) entry(c *Node, res result) EntryChange {
	e := EntryChange{Desc: &res.desc}
	conv := r.conversions[c.Desc.Digest]
	if d, _ := r.sel.Of(c); d.Action != Convert || conv == nil {
		return e
	}
	e.OSFeatures, e.Annotations = conv.OSFeatures, conv.EntryAnnotations
	e.ArtifactType = cmp.Or(conv.Manifest.ArtifactType, r.opts.ArtifactType)
	if len(e.OSFeatures) > 0 && c.Desc.Platform == nil {
		e.Platform = c.Platform
	}
	return e
}

func (r *rewriter) changedIndex(ctx context.Context, n *Node, ch IndexChange) (result, error) {
	mediaType := cmp.Or(ch.MediaType, n.Desc.MediaType)
	if r.opts.ArtifactType != "" {
		source := bare(n.Desc)
		ch.ArtifactType, ch.Subject = r.opts.ArtifactType, &source
	} else if n.Index.Subject != nil && (!r.opts.KeepSubject || IsDocker(mediaType)) {
		ch.RemoveSubject = true
	}
	r.lost(n, n.Index.Subject, ch.Subject, ch.RemoveSubject)
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
