package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

// ConvertLayer implements sdk.Plugin: output 0 is the layer as eStargz.
func (plugin) ConvertLayer(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	set, err := parseOptions(l.Options)
	if err != nil {
		return nil, err
	}
	w, err := newWriter(l, set)
	if err != nil {
		return nil, err
	}
	stream, err := l.Open(abi.RoleLayerEntries, 0)
	if err != nil {
		return nil, err
	}
	for e, err := range sdk.Entries(l, stream, 0) {
		if err != nil {
			return nil, err
		}
		if err := w.add(e, func(tag uint64) (int, error) { return l.JobStream(w.plan, stream, -1, tag) }); err != nil {
			return nil, err
		}
	}
	part, err := w.finish()
	if err != nil {
		return nil, err
	}
	part.MediaType = mediaTypeOCI
	if strings.HasPrefix(l.Layer.MediaType, "application/vnd.docker.") {
		part.MediaType = mediaTypeDocker
	}
	return &abi.ConvertResponse{Parts: []abi.Part{part}}, nil
}

const (
	notABody = 1 << 63   // tag of jobs that hold tar headers; other tags are indexes into the TOC
	maxHead  = 256 << 10 // tar bytes that wait for a body
)

// writer makes one layer. The plan stores; sum only sums what it is given. Together they see the bytes of the tar in
// order, so the sum that they share is the layer's diff ID.
type writer struct {
	host   abi.Host
	sink   *sdk.Sink
	plan   abi.Handle
	sum    abi.Handle
	set    settings
	head   []byte           // tar bytes since the last body
	text   []byte           // JSON of the TOC's entries, without their chunks
	toc    []tocItem        // each entry and each further chunk
	names  map[string]int32 // path → index into toc
	buf    []byte           // for completions
	bodies int
}

// tocItem is what the TOC will say of an entry, or of a further chunk of its body. It holds no pointers, so that a million
// of them cost the garbage collector nothing.
type tocItem struct {
	text, end int    // where in writer.text the entry is, or for a further chunk only its name
	chunk     uint32 // number in its body
	more      bool   // another chunk follows
	dead      bool   // replaced by a later entry of the same path
	linked    bool   // a hard link to it was made
	dir       bool
	stored    bool // offset and digest are known: it has bytes
	whole     bool // the chunk is the whole body
	offset    int64
	digest    [32]byte
}

// newWriter opens output 0 and writes the landmark.
func newWriter(h abi.Host, set settings) (*writer, error) {
	sink, err := sdk.OpenSink(h, 0)
	if err != nil {
		return nil, err
	}
	plan, err := h.NewPlan(&abi.PlanSpec{
		ChunkSize: set.chunk, Codec: abi.CodecGzip, Level: set.level, Digest: abi.DigestSHA256, SharedSum: true, Sink: sink.Handle,
	})
	if err != nil {
		return nil, err
	}
	sum, err := h.NewPlan(&abi.PlanSpec{ChunkSize: 1 << 20, SharedSum: true})
	if err != nil {
		return nil, err
	}
	w := &writer{host: h, sink: sink, plan: plan, sum: sum, set: set, names: map[string]int32{}, buf: make([]byte, 1024*abi.CompletionSize)}
	mark := abi.Entry{Kind: abi.KindRegular, Path: noPrefetch, Mode: 0o644, Size: int64(len(landmarkBody))}
	return w, w.append(&mark, func(tag uint64) (int, error) { return h.JobBytes(plan, []byte(landmarkBody), tag) })
}

// add writes an entry of the layer. body submits its content.
func (w *writer) add(e *abi.Entry, body func(tag uint64) (int, error)) error {
	if reserved(e.Path) {
		return nil // the source was eStargz already: we make our own
	}
	if err := w.name(e); err != nil {
		return err
	}
	return w.append(e, body)
}

// name enters the entry's path, and refuses what a TOC cannot say: it has one entry for a path.
func (w *writer) name(e *abi.Entry) error {
	refuse := func(why string) error { return abi.Errorf(abi.ErrUnsupported, "entry %q: %s", e.Path, why) }
	if !utf8.ValidString(e.Path) || !utf8.ValidString(e.Link) {
		return refuse("names that are not UTF-8 cannot stand in a TOC")
	}
	if e.Kind == abi.KindHardlink {
		i, ok := w.names[e.Link]
		if !ok || w.toc[i].dir {
			return refuse("hard link to " + strconv.Quote(e.Link) + ", which is no earlier file of this layer")
		}
		w.toc[i].linked = true
	}
	if i, ok := w.names[e.Path]; ok {
		if old := &w.toc[i]; old.linked || old.dir != (e.Kind == abi.KindDir) {
			return refuse("it replaces an earlier entry of this layer that others depend on")
		}
		w.toc[i].dead = true
		for ; w.toc[i].more; i++ {
			w.toc[i+1].dead = true
		}
	}
	w.names[e.Path] = int32(len(w.toc))
	return nil
}

// append writes the tar entry, and starts a member for each chunk of its body.
func (w *writer) append(e *abi.Entry, body func(tag uint64) (int, error)) error {
	tag := len(w.toc)
	at := len(w.text)
	var err error
	if w.text, err = appendTOCEntry(w.text, e); err != nil {
		return err
	}
	w.toc = append(w.toc, tocItem{text: at, end: len(w.text), dir: e.Kind == abi.KindDir})
	if w.head, err = sdk.AppendTarHeader(w.head, e); err != nil {
		return err
	}
	if e.Size == 0 && len(w.head) < maxHead {
		return nil
	}
	if err := w.flush(); err != nil || e.Size == 0 {
		return err
	}
	n, err := body(uint64(tag))
	if err != nil {
		return err
	}
	nameEnd := at + bytes.Index(w.text[at:], []byte(`,"type":`))
	for i := 1; i < n; i++ {
		w.toc[len(w.toc)-1].more = true
		w.toc = append(w.toc, tocItem{text: at, end: nameEnd, chunk: uint32(i)})
	}
	w.toc[tag].whole = n == 1
	w.head = sdk.AppendTarPadding(w.head, e.Size)
	if w.bodies++; w.bodies%256 == 0 {
		return sdk.Completions(w.host, w.buf, false, w.completed)
	}
	return nil
}

func (w *writer) flush() error {
	_, err := w.host.JobBytes(w.plan, w.head, notABody)
	w.head = w.head[:0]
	return err
}

// completed notes where a chunk came to lie, and its digest.
func (w *writer) completed(c *abi.Completion) error {
	if c.Tag == notABody {
		return nil
	}
	t := &w.toc[int(c.Tag)+int(c.Seq)]
	t.offset, t.digest, t.stored = c.Offset, c.Digest, true
	return nil
}

// finish writes TOC and footer, and describes the layer.
func (w *writer) finish() (part abi.Part, err error) {
	if err := w.flush(); err != nil {
		return part, err
	}
	if err := sdk.Completions(w.host, w.buf, true, w.completed); err != nil {
		return part, err
	}
	toc := w.marshalTOC()
	tocSum, err := w.host.Sum(abi.DigestSHA256, toc)
	if err != nil {
		return part, err
	}
	if err := w.writeTOC(toc); err != nil {
		return part, err
	}
	files, err := w.host.ClosePlan(w.plan)
	if err != nil {
		return part, err
	}
	all, err := w.host.ClosePlan(w.sum)
	if err != nil {
		return part, err
	}
	out, err := w.sink.Close()
	return abi.Part{
		Sink: 0, Name: "layer", Size: out.Size, Digest: sha256Digest(out.SHA256), DiffID: sha256Digest(all.RawSHA256),
		Annotations: map[string]string{
			annotationDigest: sha256Digest(tocSum), annotationSize: strconv.FormatInt(files.RawBytes+all.RawBytes, 10),
		},
	}, err
}

// writeTOC writes the TOC as one gzip member, as readers want it, however long it is: too long for a job, so it is compressed
// at once and its plain bytes go only into the sum. The footer follows.
func (w *writer) writeTOC(toc []byte) error {
	at, err := w.sink.Info()
	if err != nil {
		return err
	}
	tar, err := sdk.AppendTarHeader(nil, &abi.Entry{Kind: abi.KindRegular, Path: tocName, Mode: 0o444, Size: int64(len(toc))})
	if err != nil {
		return err
	}
	tar = sdk.AppendTarEnd(sdk.AppendTarPadding(append(tar, toc...), int64(len(toc))))
	if _, err := w.host.JobBytes(w.sum, tar, notABody); err != nil {
		return err
	}
	member, err := w.host.Encode(abi.CodecGzip, w.set.level, nil, tar)
	if err != nil {
		return err
	}
	_, err = w.sink.Write(appendFooter(member, at.Size))
	return err
}

func sha256Digest(sum [32]byte) string { return "sha256:" + hex.EncodeToString(sum[:]) }

// marshalTOC writes the entries that were not replaced.
func (w *writer) marshalTOC() []byte {
	b := []byte(`{"version":1,"entries":[`)
	for i := range w.toc {
		t := &w.toc[i]
		if t.dead {
			continue
		}
		b = append(b, w.text[t.text:t.end]...)
		if t.chunk > 0 {
			b = append(b, `,"type":"chunk"`...)
		}
		b = append(t.appendChunk(b, int64(w.set.chunk)), '}', ',')
	}
	b[len(b)-1] = ']' // there is at least the landmark
	return append(b, '}')
}

// appendChunk appends where the bytes are. The last chunk of a body goes to its end, without a size.
func (t *tocItem) appendChunk(b []byte, size int64) []byte {
	if !t.stored {
		return b
	}
	b = appendNumber(b, "offset", t.offset)
	b = appendNumber(b, "chunkOffset", int64(t.chunk)*size)
	if t.more {
		b = appendNumber(b, "chunkSize", size)
	}
	if t.whole {
		b = appendDigest(b, "digest", &t.digest) // the host does not sum bodies of several chunks
	}
	return appendDigest(b, "chunkDigest", &t.digest)
}
