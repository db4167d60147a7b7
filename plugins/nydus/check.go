package nydus

import (
	"context"
	"strconv"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/nydus/rafs6"
	"github.com/convhost/convhost/sdk"
)

// maxProblems bounds a report.
const maxProblems = 1000

// report collects what is wrong.
type report struct{ resp abi.CheckResponse }

func (r *report) add(err error) {
	if err != nil && len(r.resp.Problems) < maxProblems {
		r.resp.Problems = append(r.resp.Problems, abi.DetailOf(err))
	}
}

// fatal reports whether the operation itself cannot go on.
func fatal(err error) bool {
	switch abi.ClassOf(err) {
	case abi.ErrCanceled, abi.ErrTimeout, abi.ErrPlugin, abi.ErrInternal, abi.ErrIO, abi.ErrDenied:
		return true
	}
	return false
}

// Check implements sdk.Checker: the merged bootstrap, every blob's own structures and their agreement with it; with Deep
// every chunk.
func (plugin) Check(_ context.Context, c *sdk.Check) (*abi.CheckResponse, error) {
	r := &report{resp: abi.CheckResponse{Facts: map[string]string{"rafs": "6", "layers": strconv.Itoa(len(c.Parts))}}}
	var tree *rafs6.Tree
	boot, err := readBootstrap(c, c.Parts)
	if err != nil && fatal(err) {
		return nil, err
	}
	if r.add(err); err == nil {
		for _, e := range rafs6.Check(boot) {
			r.add(e)
		}
		tree, err = rafs6.Open(boot)
		if len(r.resp.Problems) == 0 {
			r.add(err)
		}
	}
	if tree != nil {
		r.facts(tree, len(boot))
	}
	for i, p := range c.Parts {
		if _, ok := p.Annotations[annotationBoot]; ok {
			continue
		}
		if err := r.checkBlob(c, i, tree); err != nil {
			return nil, err
		}
	}
	if c.Deep && tree != nil && len(r.resp.Problems) == 0 {
		if err := r.checkBodies(c, tree); err != nil {
			return nil, err
		}
	}
	return &r.resp, nil
}

func (r *report) facts(t *rafs6.Tree, boot int) {
	chunks := 0
	for _, b := range t.Blobs() {
		chunks += int(b.ChunkCount)
	}
	f := r.resp.Facts
	f["names"], f["chunks"], f["blobs"] = strconv.Itoa(t.Names()), strconv.Itoa(chunks), strconv.Itoa(len(t.Blobs()))
	f["chunk size"], f["bootstrap bytes"] = strconv.Itoa(t.ChunkSize()), strconv.Itoa(boot)
}

// checkBlob examines one layer blob. An error means that checking cannot go on.
func (r *report) checkBlob(c *sdk.Check, part int, merged *rafs6.Tree) error {
	b, err := openBlob(c, c.Parts, part)
	if err != nil {
		r.add(err)
		return stop(err)
	}
	boot, err := b.member(b.file.Boot)
	if err != nil {
		r.add(err)
		return stop(err)
	}
	if boot != nil { // else it stands apart
		for _, e := range rafs6.Check(boot) {
			r.add(e)
		}
	}
	array, header, err := b.meta()
	if err != nil {
		r.add(err)
		return stop(err)
	}
	digests, err := b.member(b.file.Digest)
	if err != nil {
		r.add(err)
		return stop(err)
	}
	if header != nil {
		r.checkArray(b, array, digests, merged)
	}
	return b.Close()
}

func (r *report) checkArray(b *blob, array, digests []byte, merged *rafs6.Tree) {
	if h := b.file.Header; h.Size != uint64(len(array)) {
		r.add(&abi.FormatError{Class: abi.ErrCorrupt, Format: "nydus blob", Entry: "blob.meta.header", Off: -1, Field: "array size", Got: strconv.FormatUint(b.file.Header.Size, 10), Want: strconv.Itoa(len(array))})
		return
	}
	if merged == nil {
		return
	}
	for i, info := range merged.Blobs() {
		if info.ID == b.id() {
			for _, e := range merged.CheckChunkInfos(i, array, digests) {
				r.add(e)
			}
		}
	}
}

// checkBodies decodes every chunk of every file and compares it with its digest.
func (r *report) checkBodies(c *sdk.Check, tree *rafs6.Tree) error {
	blobs, err := openBlobs(c, c.Parts, tree)
	if err != nil {
		r.add(err)
		return stop(err)
	}
	w := &unpacker{host: c, blobs: blobs, plans: map[planKey]abi.Handle{}}
	if err := tree.Walk(w.entry); err == nil {
		err = w.finish()
		r.add(err)
		return stop(err)
	} else {
		r.add(err)
		return stop(err)
	}
}

func stop(err error) error {
	if err != nil && fatal(err) {
		return err
	}
	return nil
}
