package host

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/host/transport"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/sdk"
)

func TestMain(m *testing.M) {
	if os.Getenv("CONVHOST_PLUGIN") != "" { // a host has started us as a plugin
		if len(os.Args) > 1 && os.Args[1] == "nydus" {
			sdk.Main(nydus.New())
		}
		if len(os.Args) > 1 && os.Args[1] == "shelf" {
			sdk.Main(newShelf())
		}
		if len(os.Args) > 1 && os.Args[1] == "dict" {
			sdk.Main(dictionaryReader())
		}
		sdk.Main(&copier{})
	}
	goleak.VerifyTestMain(m)
}

const (
	copyMedia  = ocispec.MediaTypeImageLayer
	copyMarker = "test.convhost/copy"
)

// copier is a format for tests: a converted layer is the tar of the source, marked by an annotation. Its fields change
// what it does.
type copier struct {
	name    string
	input   abi.Role
	chained bool
	options []abi.OptionSpec
	say     func(*abi.Description)                                                // changes the description
	convert func(ctx context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) // nil: copy
	lie     func(h *tar.Header, body *[]byte) bool                                // changes what Unpack gives; false drops the member
	unpack  func(u *sdk.Unpack) error                                             // instead of it
}

func (c *copier) Describe() abi.Description {
	d := abi.Description{Name: cmp.Or(c.name, "copy"), Version: "1", Summary: "copies tars", Input: cmp.Or(c.input, abi.RoleLayerTar),
		Chained: c.chained, Options: c.options, Markers: []abi.Marker{{Annotation: copyMarker}}}
	if c.say != nil {
		c.say(&d)
	}
	return d
}

func (c *copier) ConvertLayer(ctx context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	if c.convert != nil {
		return c.convert(ctx, l)
	}
	return copyLayer(l)
}

// copyLayer copies the layer in the form that was granted to output 0.
func copyLayer(l *sdk.Layer) (*abi.ConvertResponse, error) {
	src, err := l.Open(abi.RoleLayerTar, 0)
	if err != nil {
		return nil, err
	}
	out, err := l.OpenSink(0, abi.FilterNone, 0)
	if err != nil {
		return nil, err
	}
	if _, err := l.Copy(out, src, -1, -1); err != nil {
		return nil, err
	}
	if _, err := l.Host.Close(out); err != nil {
		return nil, err
	}
	return &abi.ConvertResponse{Parts: []abi.Part{{MediaType: copyMedia, Annotations: map[string]string{copyMarker: "1"}}}}, nil
}

// Unpack gives back one layer, or flattens all of them with the standard library: an implementation that shares nothing
// with the host's.
func (c *copier) Unpack(_ context.Context, u *sdk.Unpack) (*abi.UnpackResponse, error) {
	if c.unpack != nil {
		return &abi.UnpackResponse{}, c.unpack(u)
	}
	sink, err := sdk.OpenSink(u, 0)
	if err != nil {
		return nil, err
	}
	var f flat
	for i := range u.Parts {
		if u.Layer >= 0 && i != u.Layer {
			continue
		}
		b, err := sdk.OpenBlob(u, abi.RolePart, i)
		if err != nil {
			return nil, err
		}
		if err := f.add(io.NewSectionReader(b, 0, b.Size()), u.Layer < 0); err != nil {
			return nil, err
		}
	}
	if err := f.write(sink, c.lie); err != nil {
		return nil, err
	}
	_, err = sink.Close()
	return &abi.UnpackResponse{Entries: int64(len(f.members))}, err
}

// Check finds one problem for each layer whose tar is empty.
func (c *copier) Check(_ context.Context, q *sdk.Check) (*abi.CheckResponse, error) {
	resp := &abi.CheckResponse{Facts: map[string]string{"layers": fmt.Sprint(len(q.Parts)), "deep": fmt.Sprint(q.Deep)}}
	for i, p := range q.Parts {
		if p.Size <= 1024 {
			resp.Problems = append(resp.Problems, abi.ErrorDetail{Class: abi.ErrCorrupt, Message: fmt.Sprintf("layer %d is empty", i)})
		}
	}
	return resp, nil
}

type flatMember struct {
	h    *tar.Header
	body []byte
}

// flat is a file system as a list of tar members.
type flat struct{ members []flatMember }

func (f *flat) add(r io.Reader, whiteouts bool) error {
	var fresh []flatMember
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		fresh = append(fresh, flatMember{&tar.Header{Typeflag: h.Typeflag, Name: h.Name, Linkname: h.Linkname, Mode: h.Mode, Uid: h.Uid, Gid: h.Gid,
			ModTime: h.ModTime, Devmajor: h.Devmajor, Devminor: h.Devminor, PAXRecords: xattrsOf(h)}, body})
	}
	for _, m := range fresh {
		name := path.Clean(m.h.Name)
		if base := path.Base(name); whiteouts && strings.HasPrefix(base, ".wh.") {
			gone := path.Join(path.Dir(name), strings.TrimPrefix(base, ".wh."))
			f.members = slices.DeleteFunc(f.members, func(o flatMember) bool {
				n := path.Clean(o.h.Name)
				return n == gone || strings.HasPrefix(n, gone+"/")
			})
		}
	}
	for _, m := range fresh {
		name := path.Clean(m.h.Name)
		if whiteouts && strings.HasPrefix(path.Base(name), ".wh.") {
			continue
		}
		f.members = slices.DeleteFunc(f.members, func(o flatMember) bool { return path.Clean(o.h.Name) == name })
		f.members = append(f.members, m)
	}
	return nil
}

func xattrsOf(h *tar.Header) map[string]string {
	out := map[string]string{}
	for k, v := range h.PAXRecords {
		if strings.HasPrefix(k, "SCHILY.xattr.") {
			out[k] = v
		}
	}
	return out
}

func (f *flat) write(w io.Writer, lie func(*tar.Header, *[]byte) bool) error {
	tw := tar.NewWriter(w)
	for _, m := range f.members {
		if lie != nil && !lie(m.h, &m.body) {
			continue
		}
		if m.h.Typeflag == tar.TypeReg {
			m.h.Size = int64(len(m.body))
		}
		m.h.Format = tar.FormatPAX
		if err := tw.WriteHeader(m.h); err != nil {
			return err
		}
		if _, err := tw.Write(m.body); err != nil {
			return err
		}
	}
	return tw.Close()
}

// merging is a copier with a finishing step.
type merging struct {
	copier
	merge func(m *sdk.Merge) (*abi.MergeResponse, error)
}

func (m *merging) MergeLayers(_ context.Context, q *sdk.Merge) (*abi.MergeResponse, error) {
	return m.merge(q)
}

func builtin(p sdk.Plugin) Builtin {
	return Builtin{Name: p.Describe().Name, InProcess: sdk.InProcess(p)}
}

// env is a host with a private working directory.
type env struct {
	*Host
	t    testing.TB
	work string
	dir  string // for images

	mu     sync.Mutex
	events []Event
}

func newEnv(t testing.TB, plugins []sdk.Plugin, opts ...Option) *env {
	t.Helper()
	e := &env{t: t, work: t.TempDir(), dir: t.TempDir()}
	all := []Option{WithWorkDir(e.work), WithJobs(2), WithEvents(e.take), WithTransport(transport.Options{TempDir: e.work, Retries: -1})}
	for _, p := range plugins {
		all = append(all, WithBuiltin(builtin(p)))
	}
	h, err := New(append(all, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	e.Host = h
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		e.empty(e.work)
	})
	return e
}

// take holds the host to "one at a time".
func (e *env) take(ev Event) {
	if !e.mu.TryLock() {
		e.t.Error("two events at the same time")
		return
	}
	defer e.mu.Unlock()
	e.events = append(e.events, ev)
}

func (e *env) count(kind EventKind) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.events {
		if ev.Kind == kind {
			n++
		}
	}
	return n
}

// empty checks that nothing is left in a directory.
func (e *env) empty(dir string) {
	e.t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		e.t.Error(err)
	}
	for _, f := range files {
		e.t.Errorf("%s is left in %s", f.Name(), dir)
	}
}

// ref names an image in e's directory.
func (e *env) ref(name string) string { return "oci:" + filepath.Join(e.dir, name) + ":tag" }

// source writes what a store holds as an OCI layout, and returns the reference of root.
func (e *env) source(s *graphtest.Store, root ocispec.Descriptor) string {
	e.t.Helper()
	dir := filepath.Join(e.t.TempDir(), "src")
	for _, d := range s.Digests() {
		p := filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded())
		e.ok(os.MkdirAll(filepath.Dir(p), 0o755))
		e.ok(os.WriteFile(p, s.Get(d), 0o644))
	}
	root.Platform = nil
	root.Annotations = map[string]string{ocispec.AnnotationRefName: "tag"}
	ix, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []ocispec.Descriptor{root}})
	e.ok(err)
	e.ok(os.WriteFile(filepath.Join(dir, "index.json"), ix, 0o644))
	e.ok(os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	return "oci:" + dir + ":tag"
}

func (e *env) ok(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// convert converts to one target, which must succeed.
func (e *env) convert(src, format, dest string) Result {
	e.t.Helper()
	rs, err := e.Convert(e.t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: format, Dest: dest}}, Verify: true})
	e.ok(err)
	if len(rs) != 1 {
		e.t.Fatalf("%d results", len(rs))
	}
	return rs[0]
}

// fails converts to one target, which must fail with class c and leave nothing.
func (e *env) fails(req ConvertRequest, c abi.Class) error {
	e.t.Helper()
	dest := e.ref("never")
	if len(req.Targets) == 0 {
		req.Targets = []Target{{Format: "copy", Dest: dest}}
	} else if req.Targets[0].Dest == "" {
		req.Targets[0].Dest = dest
	}
	rs, err := e.Convert(e.t.Context(), req)
	want(e.t, err, c)
	if len(rs) > 0 {
		e.t.Errorf("%d results beside the error", len(rs))
	}
	e.empty(filepath.Join(e.dir, "never"))
	e.empty(e.work)
	if e.count(EventPublished) > 0 {
		e.t.Error("something was published")
	}
	return err
}

// want checks the class of an error, and that it wraps no other one.
func want(t testing.TB, err error, c abi.Class) {
	t.Helper()
	if got := abi.ClassOf(err); got != c {
		t.Fatalf("error %v has class %q, want %q", err, got, c)
	}
	if got := classes(err); len(got) > 1 {
		t.Errorf("error %v wraps the classes %v", err, got)
	}
}

func classes(err error) (out []abi.Class) {
	if c, is := err.(abi.Class); is {
		return []abi.Class{c}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return classes(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, x := range e.Unwrap() {
			for _, c := range classes(x) {
				if !slices.Contains(out, c) {
					out = append(out, c)
				}
			}
		}
	}
	return out
}

// image is the graph behind a reference, opened again.
func (e *env) image(ref string) *image {
	e.t.Helper()
	r, err := transport.ParseReference(ref)
	e.ok(err)
	src, err := transport.OpenSource(e.t.Context(), r, transport.Options{})
	e.ok(err)
	e.t.Cleanup(func() { src.Close() })
	root, err := src.Resolve(e.t.Context())
	e.ok(err)
	g, err := graph.Load(e.t.Context(), src, root, graph.LoadOptions{})
	e.ok(err)
	return &image{e, src, g}
}

type image struct {
	e   *env
	src transport.Source
	*graph.Graph
}

// blob returns the bytes of a descriptor, verified by the transport.
func (i *image) blob(d ocispec.Descriptor) []byte {
	i.e.t.Helper()
	r, err := i.src.Fetch(i.e.t.Context(), d)
	i.e.ok(err)
	defer r.Close()
	b, err := io.ReadAll(r)
	i.e.ok(err)
	return b
}

func makeTar(t testing.TB, hs ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		body := h.Uname // the body hides in a field that layers do not have
		h.Uname, h.Format = "", tar.FormatPAX
		if h.Size = int64(len(body)); h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// threeLayers is an image whose layers add, replace and remove.
func threeLayers(s *graphtest.Store) graphtest.Image {
	return graphtest.Image{History: true, Layers: []graphtest.Layer{
		s.Layer(map[string]string{"a": "one", "b": "two", "d/e": "deep"}),
		s.Layer(map[string]string{"b": "changed", "c": "three"}),
		s.Layer(map[string]string{".wh.a": "", "f": "four"}),
	}}
}

func digests(ls []LayerResult) (out []digest.Digest) {
	for _, l := range ls {
		out = append(out, l.Converted.Digest)
	}
	return out
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: %s, want %s", what, g, w)
	}
}
