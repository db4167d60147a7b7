package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/sdk"
)

// counter counts the operations of a plugin that make something.
type counter struct {
	abi.Guest
	converted, merged atomic.Int64
}

func (c *counter) Call(ctx context.Context, op abi.Op, req []byte, h abi.Host) ([]byte, error) {
	switch op {
	case abi.OpConvertLayer:
		c.converted.Add(1)
	case abi.OpMergeLayers:
		c.merged.Add(1)
	}
	return c.Guest.Call(ctx, op, req, h)
}

// calls returns what was counted since the last time.
func (c *counter) calls() string {
	return fmt.Sprintf("%d converted, %d merged", c.converted.Swap(0), c.merged.Swap(0))
}

// reusing is a host with one plugin, which is counted, and a store.
func reusing(t testing.TB, p sdk.Plugin, store dedup.Store, opts ...Option) (*env, *counter) {
	t.Helper()
	c := &counter{Guest: sdk.InProcess(p)}
	opts = append(opts, WithBuiltin(Builtin{Name: p.Describe().Name, InProcess: c}))
	if store != nil {
		opts = append(opts, WithDedup(store))
	}
	return newEnv(t, nil, opts...), c
}

// formats are all that tests of reuse run with: independent, merging, chained.
func formats() map[string]func() sdk.Plugin {
	return map[string]func() sdk.Plugin{
		"copy":      func() sdk.Plugin { return &copier{} },
		"chain":     func() sdk.Plugin { return chain() },
		"nydus":     nydus.New,
		"overlaybd": overlaybd.New,
		"turboci":   overlaybd.NewTurbo,
	}
}

// chain is a chained format whose layers hold the digests of their parents.
func chain() *copier {
	p := &copier{name: "chain", chained: true}
	p.convert = func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
		for i := range l.Parents { // reads them all
			b, err := sdk.OpenBlob(l, abi.RoleParent, i)
			if err != nil {
				return nil, err
			}
			bytes := make([]byte, b.Size())
			if _, err := b.ReadAt(bytes, 0); err != nil {
				return nil, err
			}
			if d := digest.FromBytes(bytes).String(); d != l.Parents[i].Digest {
				return nil, fmt.Errorf("parent %d is %s, its bytes are %s", i, l.Parents[i].Digest, d)
			}
		}
		return copyLayer(l)
	}
	return p
}

func openStore(t testing.TB) dedup.Store {
	t.Helper()
	s, err := dedup.OpenDir(filepath.Join(t.TempDir(), "dedup"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestReuseImage: a second conversion converts nothing, wherever it goes, and gives the same bytes.
func TestReuseImage(t *testing.T) {
	for format, plugin := range formats() {
		t.Run(format, func(t *testing.T) {
			e, c := reusing(t, plugin(), openStore(t))
			s := graphtest.NewStore()
			im := threeLayers(s)
			other := im
			other.Platform.OS, other.Platform.Architecture = "linux", "arm64"
			src := e.source(s, s.Index(s.Image(im), s.Image(other)))
			first := e.convert(src, format, e.ref("out"))
			if n := e.count(EventLayerReused); n != 0 {
				t.Errorf("%d layers were reused the first time", n)
			}
			c.calls()
			for _, dest := range []string{e.ref("out"), strings.TrimSuffix(e.ref("out"), "tag") + "b", e.ref("elsewhere"),
				"oci-archive:" + filepath.Join(e.dir, "a.tar"), "oci-archive:" + filepath.Join(e.dir, "a.tar")} {
				e.events = nil
				res := e.convert(src, format, dest) // with Verify
				same(t, dest+": calls", c.calls(), "0 converted, 0 merged")
				same(t, dest+": root", res.Root, first.Root)
				same(t, dest+": started, reused, done", []int{e.count(EventLayerStarted), e.count(EventLayerReused), e.count(EventManifestDone)}, "[0 3 2]")
				for _, m := range res.Manifests {
					for _, l := range m.Layers {
						if !l.Reused {
							t.Errorf("%s: layer %s is not reused", dest, l.Converted.Digest)
						}
					}
				}
				same(t, dest+": what is there", e.image(dest).Root.Desc.Digest, first.Root.Digest)
			}
			e.ok(os.RemoveAll(filepath.Join(e.dir, "out"))) // elsewhere still has it
			e.convert(src, format, e.ref("third"))
			same(t, "calls", c.calls(), "0 converted, 0 merged")
			e.empty(e.work)
		})
	}
}

// TestReuseLayers: an image that shares layers with an earlier one gets the bytes that it would get without.
func TestReuseLayers(t *testing.T) {
	for format, plugin := range formats() {
		t.Run(format, func(t *testing.T) {
			e, c := reusing(t, plugin(), openStore(t))
			s := graphtest.NewStore()
			im := threeLayers(s)
			e.convert(e.source(s, s.Image(im)), format, e.ref("out"))
			im.Layers = append(slices.Clone(im.Layers), s.Layer(map[string]string{"top": "x"}))
			src := e.source(s, s.Image(im))
			c.calls()
			e.events = nil
			res := e.convert(src, format, e.ref("more"))
			if n := c.converted.Load(); n != 1 {
				t.Errorf("%d layers were converted, want 1", n)
			}
			same(t, "started, reused, done", []int{e.count(EventLayerStarted), e.count(EventLayerReused), e.count(EventLayerDone)}, "[1 3 1]")
			for i, l := range res.Manifests[0].Layers {
				if l.Source != nil && l.Reused != (l.Source.Digest != im.Layers[3].Desc.Digest) {
					t.Errorf("layer %d: reused is %v", i, l.Reused)
				}
			}
			plain, _ := reusing(t, plugin(), nil)
			same(t, "root", plain.convert(src, format, plain.ref("out")).Root, res.Root)
		})
	}
}

// TestReuseWrongParent: a layer is not taken for the same layer on another base, nor on a base that became other bytes.
func TestReuseWrongParent(t *testing.T) {
	for _, format := range []string{"chain", "overlaybd"} {
		e, c := reusing(t, formats()[format](), openStore(t))
		s := graphtest.NewStore()
		im := threeLayers(s)
		e.convert(e.source(s, s.Image(im)), format, e.ref("out"))
		im.Layers = append([]graphtest.Layer{s.Layer(map[string]string{"a": "another base"})}, im.Layers[1:]...)
		src := e.source(s, s.Image(im))
		c.calls()
		res := e.convert(src, format, e.ref("more"))
		if n := c.converted.Load(); n != 3 {
			t.Errorf("%s: %d layers were converted on another base, want 3", format, n)
		}
		plain, _ := reusing(t, formats()[format](), nil)
		same(t, "root", plain.convert(src, format, plain.ref("out")).Root, res.Root)
	}
	t.Run("of another digest", func(t *testing.T) { // what upstream gets wrong
		store := openStore(t)
		p := chain()
		n := 0
		p.convert = func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
			n++ // not deterministic
			resp, err := copyLayer(l)
			if err == nil && l.Layer.Index == 0 {
				var out abi.Handle
				if out, err = l.OpenSink(1, abi.FilterNone, 0); err == nil {
					err = l.Write(out, fmt.Append(nil, n))
				}
				if err == nil {
					_, err = l.Host.Close(out)
				}
				resp.Parts = append(resp.Parts, abi.Part{Sink: 1, MediaType: "x/y"})
			}
			return resp, err
		}
		e, c := reusing(t, p, store)
		s := graphtest.NewStore()
		src := e.source(s, s.Image(threeLayers(s)))
		convert := func(dest string) {
			_, err := e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "chain", Dest: dest}}})
			e.ok(err)
		}
		convert(e.ref("out"))
		e.ok(store.List(t.Context(), func(en dedup.Entry) error {
			if en.Record.Manifest != nil || len(en.Record.Layer.Parts) == 2 { // the image and the base
				return store.Drop(t.Context(), en.Record.Key)
			}
			return nil
		}))
		c.calls()
		convert(e.ref("more"))
		same(t, "calls", c.calls(), "3 converted, 0 merged")
	})
}

// renewed is a plugin of another version.
type renewed struct {
	*copier
	version string
}

func (r renewed) Describe() abi.Description {
	d := r.copier.Describe()
	d.Version = r.version
	d.Options = []abi.OptionSpec{{Name: "a", Default: "1"}, {Name: "b"}}
	return d
}

// TestReuseAnotherConversion: other options, another version or other code are another conversion; a default that is
// named is not.
func TestReuseAnotherConversion(t *testing.T) {
	store := openStore(t)
	s := graphtest.NewStore()
	root := s.Image(threeLayers(s))
	dest := "oci:" + filepath.Join(t.TempDir(), "out")
	for _, step := range []struct {
		name, version, code string
		options             map[string]string
		calls               string
	}{
		{"first", "1", "", nil, "3 converted"},
		{"again", "1", "", nil, "0 converted"},
		{"default", "1", "", map[string]string{"a": "1"}, "0 converted"},
		{"option", "1", "", map[string]string{"a": "2"}, "3 converted"},
		{"another option", "1", "", map[string]string{"b": "1"}, "3 converted"},
		{"version", "2", "", nil, "3 converted"},
		{"code", "1", "other code", nil, "3 converted"},
		{"all the same", "1", "", map[string]string{}, "0 converted"},
	} {
		e, c := reusing(t, renewed{&copier{}, step.version}, store)
		if step.code != "" {
			p, err := e.plugins.get(t.Context(), "copy", "")
			e.ok(err)
			p.info.Digest = step.code
		}
		_, err := e.Convert(t.Context(), ConvertRequest{Source: e.source(s, root), Targets: []Target{{Format: "copy", Dest: dest, Options: step.options}}})
		e.ok(err)
		same(t, step.name, c.calls(), step.calls+", 0 merged")
	}
}

// TestReuseStale: blobs that are gone or damaged are noticed, and made again.
func TestReuseStale(t *testing.T) {
	for format, plugin := range formats() {
		t.Run(format, func(t *testing.T) {
			store := openStore(t)
			e, c := reusing(t, plugin(), store)
			s := graphtest.NewStore()
			src := e.source(s, s.Image(threeLayers(s)))
			first := e.convert(src, format, e.ref("out"))
			dir := filepath.Join(e.dir, "out")
			blob := func(i int) string {
				d := first.Manifests[0].Layers[i].Converted.Digest
				return filepath.Join(dir, "blobs", "sha256", d.Encoded())
			}
			check := func(what string, most int64) {
				t.Helper()
				res := e.convert(src, format, e.ref("out"))
				if n := c.converted.Swap(0); n != most {
					t.Errorf("%s: %d layers were converted, want %d", what, n, most)
				}
				same(t, what+": root", res.Root, first.Root)
				_, err := e.Check(t.Context(), CheckRequest{Image: e.ref("out"), Deep: true})
				if err != nil && !errors.Is(err, abi.ErrUnsupported) {
					t.Errorf("%s: %v", what, err)
				}
			}
			c.calls()
			e.ok(os.Remove(blob(1)))
			check("one blob gone", 1)
			b, err := os.ReadFile(blob(2))
			e.ok(err)
			b[len(b)/2] ^= 1
			e.ok(os.Chmod(blob(2), 0o600))
			e.ok(os.WriteFile(blob(2), b, 0o600))
			check("one blob damaged", 1)
			e.ok(os.RemoveAll(dir))
			check("all gone", 3)
			check("again", 0)
			e.ok(os.RemoveAll(dir))
			e.ok(os.WriteFile(dir, []byte("in its place"), 0o600))
			e.convert(src, format, e.ref("elsewhere"))
			same(t, "converted", c.converted.Swap(0), 3)
		})
	}
}

// liar changes records on their way out.
type liar struct {
	dedup.Store
	change func(*dedup.Record)
}

func (l *liar) Get(ctx context.Context, key dedup.Key) (*dedup.Record, error) {
	r, err := l.Store.Get(ctx, key)
	if err == nil && l.change != nil {
		l.change(r)
	}
	return r, err
}

// TestReuseLies: a record that does not say the truth costs time, and a warning, but never gives a wrong image that was
// asked to be verified.
func TestReuseLies(t *testing.T) {
	for name, change := range map[string]func(*dedup.Record){
		"parts of another layer": func(r *dedup.Record) {
			if r.Layer != nil && r.Layer.Parts[0].Size > 3000 {
				r.Layer.Parts = nil
			}
		},
		"layers in another order": func(r *dedup.Record) {
			if r.Manifest != nil {
				slices.Reverse(r.Manifest.Layers)
			}
		},
		"another manifest": func(r *dedup.Record) {
			if r.Manifest != nil {
				r.Manifest.Converted.Digest = digest.FromString("made by another version")
			}
		},
		"no layer": func(r *dedup.Record) {
			if r.Manifest != nil {
				r.Manifest.Layers = r.Manifest.Layers[:1]
			}
		},
		"a layer twice": func(r *dedup.Record) {
			if r.Manifest != nil {
				r.Manifest.Layers[1] = r.Manifest.Layers[0]
			}
		},
		"source layer 9": func(r *dedup.Record) {
			if r.Manifest != nil {
				r.Manifest.Layers[1].Source = 9
			}
		},
		"size": func(r *dedup.Record) {
			if r.Manifest != nil {
				r.Manifest.Layers[1].Size++
			}
		},
		"diff ID": func(r *dedup.Record) {
			if r.Manifest != nil {
				r.Manifest.Layers[1].DiffID = digest.FromString("x")
			}
		},
		"state": func(r *dedup.Record) {
			if r.Layer != nil {
				r.Layer.State = []byte("nonsense")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := &liar{Store: openStore(t)}
			e, _ := reusing(t, nydus.New(), l)
			s := graphtest.NewStore()
			im := threeLayers(s)
			src := e.source(s, s.Image(im))
			first := e.convert(src, "nydus", e.ref("out"))
			l.change = change
			e.events = nil
			same(t, "root", e.convert(src, "nydus", e.ref("again")).Root, first.Root)
			if n := e.count(EventLayerStarted); name == "another manifest" && n > 0 { // its layers are good
				t.Errorf("%d layers were converted", n)
			}
			im.Layers = append(slices.Clone(im.Layers), s.Layer(map[string]string{"top": "x"}))
			src = e.source(s, s.Image(im))
			more := e.convert(src, "nydus", e.ref("more"))
			plain, _ := reusing(t, nydus.New(), nil)
			same(t, "root", more.Root, plain.convert(src, "nydus", plain.ref("out")).Root)
		})
	}
}

// TestReuseSwapped: records that give every layer the blob of the first one are found out by Verify.
func TestReuseSwapped(t *testing.T) {
	for _, format := range []string{"copy", "chain", "nydus", "overlaybd", "turboci"} {
		l := &liar{Store: openStore(t)}
		e, c := reusing(t, formats()[format](), l)
		s := graphtest.NewStore()
		im := threeLayers(s)
		e.convert(e.source(s, s.Image(im)), format, e.ref("out"))
		im.Layers = append(slices.Clone(im.Layers), s.Layer(map[string]string{"top": "x"}))
		src := e.source(s, s.Image(im))
		var mu sync.Mutex
		var first *dedup.Layer
		l.change = func(r *dedup.Record) {
			mu.Lock()
			defer mu.Unlock()
			if r.Layer != nil && first == nil {
				first = r.Layer
			}
			if r.Layer != nil {
				r.Layer = first
			}
		}
		c.calls()
		res := e.convert(src, format, e.ref("more"))
		if n := c.converted.Load(); n < 4 || e.count(EventWarning) == 0 {
			t.Errorf("%s: %d layers were converted, %d warnings", format, n, e.count(EventWarning))
		}
		plain, _ := reusing(t, formats()[format](), nil)
		same(t, format+": root", res.Root, plain.convert(src, format, plain.ref("out")).Root)
	}
}

// broken is a store that fails.
type broken struct {
	dedup.Store
	err   error // of everything
	hang  bool
	calls atomic.Int64
}

func (b *broken) fail(ctx context.Context) error {
	b.calls.Add(1)
	if b.hang {
		<-ctx.Done()
		return abi.Errorf(abi.ErrTimeout, "%w", ctx.Err())
	}
	return b.err
}

func (b *broken) Get(ctx context.Context, _ dedup.Key) (*dedup.Record, error) {
	return nil, b.fail(ctx)
}
func (b *broken) Put(ctx context.Context, _ *dedup.Record) error { return b.fail(ctx) }
func (b *broken) Drop(ctx context.Context, _ dedup.Key) error    { return b.fail(ctx) }
func (b *broken) Places(ctx context.Context, _ digest.Digest) ([]dedup.Place, error) {
	return nil, b.fail(ctx)
}
func (b *broken) AddPlace(ctx context.Context, _ dedup.Place, _ ...digest.Digest) error {
	return b.fail(ctx)
}

// TestReuseStoreFails: a store that fails makes no conversion fail, is asked no more, and that is told once.
func TestReuseStoreFails(t *testing.T) {
	old := storeTime
	storeTime = 50 * time.Millisecond
	t.Cleanup(func() { storeTime = old })
	for name, b := range map[string]*broken{
		"down":  {err: abi.Errorf(abi.ErrIO, "connection refused")},
		"hangs": {hang: true},
		"panic": {err: errors.New("no class")},
	} {
		e, c := reusing(t, &copier{}, b)
		s := graphtest.NewStore()
		e.convert(e.source(s, s.Image(threeLayers(s))), "copy", e.ref("out"))
		same(t, name+": calls", c.calls(), "3 converted, 0 merged")
		same(t, name+": warnings, questions", []int64{int64(e.count(EventWarning)), b.calls.Load()}, "[1 1]")
	}
	t.Run("corrupt", func(t *testing.T) { // a record, not the store
		b := &broken{Store: dedup.NewMemory(), err: abi.Errorf(abi.ErrCorrupt, "bits")}
		e, c := reusing(t, &copier{}, b)
		s := graphtest.NewStore()
		e.convert(e.source(s, s.Image(threeLayers(s))), "copy", e.ref("out"))
		same(t, "calls", c.calls(), "3 converted, 0 merged")
		same(t, "warnings", e.count(EventWarning), 4)
	})
}

// TestReuseTwoProcesses: conversions that share a store at the same time give what they give alone.
func TestReuseTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dedup")
	s := graphtest.NewStore()
	root := s.Image(threeLayers(s))
	plain, _ := reusing(t, overlaybd.New(), nil)
	want := plain.convert(plain.source(s, root), "overlaybd", plain.ref("out")).Root
	dest := "oci:" + filepath.Join(t.TempDir(), "shared")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			store, err := dedup.OpenDir(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer store.Close()
			e, _ := reusing(t, overlaybd.New(), store)
			for j := range 3 {
				rs, err := e.Convert(t.Context(), ConvertRequest{Source: e.source(s, root), Verify: j == 2,
					Targets: []Target{{Format: "overlaybd", Dest: fmt.Sprintf("%s:%d-%d", dest, i, j)}}})
				if err != nil || rs[0].Root.Digest != want.Digest {
					t.Errorf("%v, %v", err, rs)
				}
			}
		})
	}
	wg.Wait()
}

// TestReuseFailedConversion: what was not published is not remembered.
func TestReuseFailedConversion(t *testing.T) {
	store := openStore(t)
	e, c := reusing(t, &copier{lie: nil, unpack: func(*sdk.Unpack) error { return errors.New("no") }}, store)
	s := graphtest.NewStore()
	src := e.source(s, s.Image(threeLayers(s)))
	e.fails(ConvertRequest{Source: src, Verify: true}, abi.ErrPlugin)
	same(t, "calls", c.calls(), "3 converted, 0 merged")
	e.ok(store.List(t.Context(), func(en dedup.Entry) error {
		t.Errorf("%s was recorded", en.Record.Key)
		return nil
	}))
}

// TestReuseOtherDocuments: other media types are another image of the same layers.
func TestReuseOtherDocuments(t *testing.T) {
	e, c := reusing(t, &copier{}, openStore(t))
	plain, _ := reusing(t, &copier{}, nil)
	s := graphtest.NewStore()
	im := threeLayers(s)
	im.Docker = true
	src := e.source(s, s.Image(im))
	for i, types := range []MediaTypes{MediaTypesSource, MediaTypesOCI, MediaTypesDocker, MediaTypesOCI} {
		convert := func(e *env) Result {
			rs, err := e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "copy", Dest: e.ref("out"), MediaTypes: types}}})
			e.ok(err)
			return rs[0]
		}
		want, got := convert(plain), convert(e)
		same(t, string(types)+": root", got.Root, want.Root)
		same(t, string(types)+": warnings", e.count(EventWarning), 0)
		same(t, string(types)+": calls", c.calls(), []string{"3 converted, 0 merged", "0 converted, 0 merged"}[min(i, 1)])
		for j, l := range got.Manifests[0].Layers {
			same(t, "layer", l.Converted, want.Manifests[0].Layers[j].Converted)
		}
	}
}
