package nydus

import (
	"context"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/nydus/rafs6"
	"github.com/convhost/convhost/sdk"
)

// Unpack implements sdk.Unpacker.
func (plugin) Unpack(_ context.Context, u *sdk.Unpack) (*abi.UnpackResponse, error) {
	tree, blobs, err := openTree(u, u.Parts, u.Layer)
	if err != nil {
		return nil, err
	}
	sink, err := sdk.OpenSink(u, 0)
	if err != nil {
		return nil, err
	}
	w := &unpacker{host: u, sink: sink, blobs: blobs, plans: map[planKey]abi.Handle{}}
	if err := tree.Walk(w.entry); err != nil {
		return nil, err
	}
	if err := w.finish(); err != nil {
		return nil, err
	}
	_, err = sink.Close()
	return &abi.UnpackResponse{Entries: w.entries}, err
}

// openTree reads the tree of one layer, or of the image (layer -1), and opens the blobs that it names, in its order.
func openTree(h abi.Host, parts []abi.PartInfo, layer int) (*rafs6.Tree, []openedBlob, error) {
	if layer >= 0 {
		if _, ok := parts[layer].Annotations[annotationBoot]; ok {
			return nil, nil, abi.Errorf(abi.ErrInvalid, "layer %d is the bootstrap layer: it has no files of its own", layer)
		}
		b, err := openBlob(h, parts, layer)
		if err != nil {
			return nil, nil, err
		}
		tree, err := b.tree()
		if err != nil {
			return nil, nil, err
		}
		var blobs []openedBlob
		for _, info := range tree.Blobs() {
			blobs = append(blobs, openedBlob{handle: b.Handle, Blob: info})
		}
		if len(blobs) > 1 {
			return nil, nil, abi.Errorf(abi.ErrUnsupported, "not supported yet: layer with a chunk dictionary")
		}
		return tree, blobs, nil
	}
	boot, err := readBootstrap(h, parts)
	if err != nil {
		return nil, nil, err
	}
	tree, err := rafs6.Open(boot)
	if err != nil {
		return nil, nil, err
	}
	blobs, err := openBlobs(h, parts, tree)
	return tree, blobs, err
}

// openedBlob is a blob of a tree with the stream that holds its bytes.
type openedBlob struct {
	rafs6.Blob
	handle abi.Handle
	part   int
}

// openBlobs finds the blobs of a merged tree among the layers.
func openBlobs(h abi.Host, parts []abi.PartInfo, tree *rafs6.Tree) ([]openedBlob, error) {
	var out []openedBlob
	for _, info := range tree.Blobs() {
		found := -1
		for i, p := range parts {
			if hexPart(p.Digest) == info.ID {
				found = i
				break
			}
		}
		if found < 0 {
			return nil, abi.Errorf(abi.ErrNotFound, "the bootstrap names blob %s, which is not a layer of the image", info.ID)
		}
		handle, err := h.Open(abi.RolePart, found)
		if err != nil {
			return nil, err
		}
		out = append(out, openedBlob{Blob: info, handle: handle, part: found})
	}
	return out, nil
}

type planKey struct {
	codec  abi.Codec
	digest abi.Digest
}

// unpacker writes a tree as a tar: headers are jobs of bytes, bodies jobs of ranges, all in one order.
type unpacker struct {
	host    abi.Host
	sink    *sdk.Sink // nil: only read and verify
	blobs   []openedBlob
	plans   map[planKey]abi.Handle
	buf     []byte
	entries int64
	scratch []byte
}

// plan returns the decoding plan for a blob.
func (w *unpacker) plan(b *openedBlob) (abi.Handle, error) {
	k := planKey{b.Codec, b.Digest}
	if h, ok := w.plans[k]; ok {
		return h, nil
	}
	spec := &abi.PlanSpec{Codec: k.codec, Digest: k.digest, Decode: true}
	if w.sink != nil {
		spec.Sink = w.sink.Handle
	}
	h, err := w.host.NewPlan(spec)
	w.plans[k] = h
	return h, err
}

func (w *unpacker) entry(e *abi.Entry, f rafs6.File) (err error) {
	w.entries++
	if w.buf, err = sdk.AppendTarHeader(w.buf, e); err != nil {
		return err
	}
	if f.Len() == 0 && len(w.buf) < 64<<10 {
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	left := e.Size
	for k := range f.Len() {
		c := f.At(k)
		n := min(left, int64(c.Raw))
		if err := w.chunk(e, &c, int(n)); err != nil {
			return err
		}
		left -= n
	}
	if left != 0 {
		return &abi.FormatError{Class: abi.ErrCorrupt, Format: "rafs v6 tree", Entry: e.Path, Off: -1, Field: "size", Want: "the bytes of its chunks"}
	}
	w.buf = sdk.AppendTarPadding(w.buf, e.Size)
	return w.drain()
}

func (w *unpacker) chunk(e *abi.Entry, c *rafs6.Chunk, n int) error {
	if c.Blob < 0 || c.Blob >= len(w.blobs) {
		return &abi.FormatError{Class: abi.ErrCorrupt, Format: "rafs v6 tree", Entry: e.Path, Off: -1, Field: "blob of a chunk", Want: "one of the image"}
	}
	b := &w.blobs[c.Blob]
	plan, err := w.plan(b)
	if err != nil {
		return err
	}
	want := c.Digest
	return w.host.JobRange(plan, b.handle, abi.Range{
		Off: c.Offset, CLen: int(c.Stored), ULen: int(c.Raw), Raw: !c.Compressed, Want: &want, CRC: c.CRC32C, HasCRC: c.HasCRC, N: n,
	}, 0)
}

func (w *unpacker) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if w.sink != nil {
		if _, err := w.sink.Write(w.buf); err != nil {
			return err
		}
	}
	w.buf = w.buf[:0]
	return nil
}

// drain takes completions, which nobody needs, out of the host's memory.
func (w *unpacker) drain() error {
	if w.scratch == nil {
		w.scratch = make([]byte, 256*abi.CompletionSize)
	}
	_, err := w.host.Collect(w.scratch, 0)
	return err
}

func (w *unpacker) finish() error {
	w.buf = sdk.AppendTarEnd(w.buf)
	if err := w.flush(); err != nil {
		return err
	}
	if w.scratch == nil {
		return nil
	}
	return sdk.Completions(w.host, w.scratch, true, func(*abi.Completion) error { return nil })
}

// sliceReader is a bytes.Reader without the rest of that package.
type sliceReader struct{ p []byte }

// Read implements io.Reader.
func (s *sliceReader) Read(b []byte) (int, error) {
	if len(s.p) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.p)
	s.p = s.p[n:]
	return n, nil
}
