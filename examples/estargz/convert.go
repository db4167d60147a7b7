package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"time"
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
	head   []byte // tar bytes since the last body
	toc    []tocEntry
	names  map[string]int // path → index into toc
	buf    []byte         // for completions
	bodies int
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
	w := &writer{host: h, sink: sink, plan: plan, sum: sum, set: set, names: map[string]int{}, buf: make([]byte, 1024*abi.CompletionSize)}
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
		if !ok || w.toc[i].Type == "dir" {
			return refuse("hard link to " + strconv.Quote(e.Link) + ", which is no earlier file of this layer")
		}
		w.toc[i].linked = true
	}
	if i, ok := w.names[e.Path]; ok {
		old := &w.toc[i]
		if old.linked || (old.Type == "dir") != (e.Kind == abi.KindDir) {
			return refuse("it replaces an earlier entry of this layer that others depend on")
		}
		for old.Type = ""; i+1 < len(w.toc) && w.toc[i+1].Type == "chunk"; i++ {
			w.toc[i+1].Type = ""
		}
	}
	w.names[e.Path] = len(w.toc)
	return nil
}

// append writes the tar entry, and starts a member for each chunk of its body.
func (w *writer) append(e *abi.Entry, body func(tag uint64) (int, error)) error {
	t, err := newTOCEntry(e)
	if err != nil {
		return err
	}
	if w.head, err = sdk.AppendTarHeader(w.head, e); err != nil {
		return err
	}
	tag := len(w.toc)
	w.toc = append(w.toc, t)
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
	for i := 1; i < n; i++ {
		w.toc[len(w.toc)-1].ChunkSize = int64(w.set.chunk)
		w.toc = append(w.toc, tocEntry{Name: t.Name, Type: "chunk", ChunkOffset: int64(i) * int64(w.set.chunk)})
	}
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
	t.Offset, t.ChunkDigest = c.Offset, sha256Digest(c.Digest)
	if int64(c.Raw) == t.Size {
		t.Digest = t.ChunkDigest // the whole file; the host does not sum files of several chunks
	}
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
	toc, err := w.marshalTOC()
	if err != nil {
		return part, err
	}
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
func (w *writer) marshalTOC() ([]byte, error) {
	raw := []byte(`{"version":1,"entries":[`)
	for i := range w.toc {
		t := &w.toc[i]
		if t.Type == "" {
			continue
		}
		b, err := json.Marshal(t)
		if err != nil {
			return nil, abi.Errorf(abi.ErrInternal, "TOC entry %q: %w", t.Name, err)
		}
		raw = append(append(raw, b...), ',')
		*t = tocEntry{} // its strings are not needed any more
	}
	raw[len(raw)-1] = ']' // there is at least the landmark
	return append(raw, '}'), nil
}

func newTOCEntry(e *abi.Entry) (tocEntry, error) {
	t := tocEntry{
		Name: e.Path, Type: typeNames[e.Kind], Size: e.Size, LinkName: e.Link, Mode: e.Mode, UID: e.UID, GID: e.GID,
		DevMajor: e.DevMajor, DevMinor: e.DevMinor,
	}
	if e.Kind == abi.KindDir {
		t.Name = strings.TrimPrefix(e.Path+"/", "/") // as in the tar
		if e.Path == "" {
			t.Name = "./"
		}
	}
	if e.MtimeSec != 0 || e.MtimeNs != 0 {
		m := time.Unix(e.MtimeSec, int64(e.MtimeNs)).UTC()
		if m.Year() < 0 || m.Year() > 9999 {
			return t, abi.Errorf(abi.ErrUnsupported, "entry %q: a TOC cannot say the year %d", e.Path, m.Year())
		}
		t.ModTime = m.Format(time.RFC3339Nano)
	}
	for _, x := range e.Xattrs {
		if !utf8.ValidString(x.Key) {
			return t, abi.Errorf(abi.ErrUnsupported, "entry %q: attribute %q is not UTF-8, a TOC cannot name it", e.Path, x.Key)
		}
		if t.Xattrs == nil {
			t.Xattrs = map[string][]byte{}
		}
		t.Xattrs[x.Key] = x.Value
	}
	return t, nil
}
