package host

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup"
)

// record leaves to later conversions what this one made, after it was published. What went before that is not remembered:
// an interrupted conversion leaves no record of blobs that nobody can find.
func (u *reuse) record(ctx context.Context) {
	if u == nil || u.places.own.Validate() != nil {
		return // nothing can be found again there
	}
	there, blobs := u.published()
	if len(blobs) == 0 {
		return
	}
	if ok, err := u.ask(ctx, "note where blobs are", func(ctx context.Context) error { return u.store.AddPlace(ctx, u.places.own, blobs...) }); err != nil || !ok {
		return
	}
	for key, res := range u.layers {
		if rec := u.layerRecord(key, res, there); rec != nil {
			u.put(ctx, rec)
		}
	}
	for _, m := range u.c.rewritten.Converted {
		if made := u.images[m.Source.Desc.Digest]; made != nil {
			u.put(ctx, &dedup.Record{Key: made.key, Format: u.engine.Format, Version: u.engine.Version, Source: m.Source.Desc.Digest,
				Platform: platformOf(m.Source), Manifest: manifestOf(made, m.Target)})
		}
	}
}

// published returns the blobs of converted images, with those of the source that they refer to.
func (u *reuse) published() (there map[digest.Digest]bool, blobs []digest.Digest) {
	there = map[digest.Digest]bool{}
	add := func(d digest.Digest) {
		if !there[d] {
			there[d] = true
			blobs = append(blobs, d)
		}
	}
	for _, m := range u.c.rewritten.Converted {
		r := u.c.manifests[m.Source.Desc.Digest]
		if r == nil {
			continue
		}
		for _, l := range r.Layers {
			add(l.Converted.Digest)
		}
		refs, err := u.c.refsOf(m.Source, r)
		if err != nil {
			continue // push had none
		}
		for _, ref := range refs {
			add(ref.desc.Digest)
		}
	}
	return there, blobs
}

// layerRecord returns nil for layers of which a part was not published: nobody could find it.
func (u *reuse) layerRecord(key dedup.Key, res *converted, there map[digest.Digest]bool) *dedup.Record {
	l := &dedup.Layer{State: res.state, Warnings: res.warnings, Parts: []dedup.Part{}}
	for _, p := range res.parts {
		if !there[p.desc.Digest] {
			return nil
		}
		l.Parts = append(l.Parts, recordOf(p))
	}
	return &dedup.Record{Key: key, Format: u.engine.Format, Version: u.engine.Version, Source: res.source.Digest, Layer: l}
}

func (u *reuse) put(ctx context.Context, rec *dedup.Record) {
	_, err := u.ask(ctx, "record "+rec.Key.String(), func(ctx context.Context) error { return u.store.Put(ctx, rec) })
	if abi.ClassOf(err) == abi.ErrLimit {
		u.c.emit(Event{Kind: EventWarning, Message: fmt.Sprintf("dedup store: %v; it will be converted again", err)})
	}
}
