package host

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/sdk"
)

// TestPluginLies: a plugin that contradicts the bytes, or itself, fails the conversion and leaves nothing.
func TestPluginLies(t *testing.T) {
	sink := func(l abi.Host, i int) error {
		h, err := l.OpenSink(i, abi.FilterNone, 0)
		if err == nil {
			_, err = l.Close(h)
		}
		return err
	}
	wrong := digest.FromString("something else").String()
	change := func(fn func(r *abi.ConvertResponse)) func(*sdk.Layer, *abi.ConvertResponse) error {
		return func(_ *sdk.Layer, r *abi.ConvertResponse) error { fn(r); return nil }
	}
	for name, lie := range map[string]func(l *sdk.Layer, r *abi.ConvertResponse) error{
		"digest":          change(func(r *abi.ConvertResponse) { r.Parts[0].Digest, r.Parts[0].Size = wrong, 1 }),
		"no media type":   change(func(r *abi.ConvertResponse) { r.Parts[0].MediaType = "" }),
		"diff ID":         change(func(r *abi.ConvertResponse) { r.Parts[0].DiffID = wrong }),
		"no diff ID":      change(func(r *abi.ConvertResponse) { r.Parts[0].DiffID = "nonsense" }),
		"unknown output":  change(func(r *abi.ConvertResponse) { r.Parts[0].Sink = 5 }),
		"output twice":    change(func(r *abi.ConvertResponse) { r.Parts = append(r.Parts, r.Parts[0]) }),
		"negative output": change(func(r *abi.ConvertResponse) { r.Parts[0].Sink = -1 }),
		"only aux":        change(func(r *abi.ConvertResponse) { r.Parts[0].Aux = true }),
		"nothing at all":  change(func(r *abi.ConvertResponse) { r.Parts = nil }),
		"unnamed output":  func(l *sdk.Layer, _ *abi.ConvertResponse) error { return sink(l, 1) },
		"open output":     func(l *sdk.Layer, _ *abi.ConvertResponse) error { _, err := l.OpenSink(1, 0, 0); return err },
		"size": func(l *sdk.Layer, r *abi.ConvertResponse) error {
			r.Parts[0].Digest, r.Parts[0].Size = l.Layer.DiffID, 3
			return nil
		},
		"panic":                  func(*sdk.Layer, *abi.ConvertResponse) error { panic("oops") },
		"error without a class":  func(*sdk.Layer, *abi.ConvertResponse) error { return errors.New("oops") },
		"foreign handle, hidden": func(l *sdk.Layer, _ *abi.ConvertResponse) error { _, _ = l.Size(99); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, []sdk.Plugin{&copier{convert: func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
				r, err := copyLayer(l)
				if err == nil {
					err = lie(l, r)
				}
				return r, err
			}}})
			s := graphtest.NewStore()
			err := e.fails(ConvertRequest{Source: e.source(s, s.Image(threeLayers(s)))}, abi.ErrPlugin)
			if !strings.Contains(err.Error(), "copy") || strings.Count(err.Error(), "convert:") > 1 {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("layer not read", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{convert: func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
			return &abi.ConvertResponse{Parts: []abi.Part{{MediaType: copyMedia}}}, sink(l, 0)
		}}})
		s := graphtest.NewStore()
		e.fails(ConvertRequest{Source: e.source(s, s.Image(threeLayers(s)))}, abi.ErrPlugin)
	})
	t.Run("a gigabyte for a small layer", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{convert: func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
			out, err := l.OpenSink(0, abi.FilterNone, 0)
			for i := 0; i < 1024 && err == nil; i++ {
				err = l.Write(out, make([]byte, 1<<20))
			}
			return nil, err
		}}}, WithLimits(Limits{OutputBase: 10 << 20}))
		s := graphtest.NewStore()
		e.fails(ConvertRequest{Source: e.source(s, s.Image(threeLayers(s)))}, abi.ErrLimit)
	})
}

// TestMergeLies: the same for the finishing step.
func TestMergeLies(t *testing.T) {
	all := func(m *sdk.Merge) *abi.MergeResponse {
		r := &abi.MergeResponse{}
		for i, l := range m.Layers {
			r.Layers = append(r.Layers, abi.OutLayer{Part: int(l.Parts[0]), Source: i})
		}
		return r
	}
	for name, lie := range map[string]func(m *sdk.Merge, r *abi.MergeResponse) error{
		"two layers for one source": func(_ *sdk.Merge, r *abi.MergeResponse) error { r.Layers[1].Source = 0; return nil },
		"unknown source":            func(_ *sdk.Merge, r *abi.MergeResponse) error { r.Layers[1].Source = 3; return nil },
		"negative source":           func(_ *sdk.Merge, r *abi.MergeResponse) error { r.Layers[1].Source = -2; return nil },
		"unknown part":              func(_ *sdk.Merge, r *abi.MergeResponse) error { r.Layers[1].Part = 3; return nil },
		"no layers":                 func(_ *sdk.Merge, r *abi.MergeResponse) error { r.Layers = nil; return nil },
		"new one that was not written": func(_ *sdk.Merge, r *abi.MergeResponse) error {
			r.Layers = append(r.Layers, abi.OutLayer{Part: -1, Source: -1, New: abi.Part{MediaType: copyMedia}})
			return nil
		},
		"unnamed output": func(m *sdk.Merge, _ *abi.MergeResponse) error {
			h, err := m.OpenSink(0, abi.FilterNone, 0)
			if err == nil {
				_, err = m.Close(h)
			}
			return err
		},
		"panic": func(*sdk.Merge, *abi.MergeResponse) error { panic("oops") },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, []sdk.Plugin{&merging{merge: func(m *sdk.Merge) (*abi.MergeResponse, error) {
				r := all(m)
				return r, lie(m, r)
			}}})
			s := graphtest.NewStore()
			e.fails(ConvertRequest{Source: e.source(s, s.Image(threeLayers(s)))}, abi.ErrPlugin)
		})
	}
}

// TestRequests: what cannot be meant is refused before anything happens.
func TestRequests(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{
		&copier{options: []abi.OptionSpec{{Name: "level"}, {Name: "mode", Values: []string{"a", "b"}}}}, &copier{name: "zeta"}})
	s := graphtest.NewStore()
	src := e.source(s, s.Image(threeLayers(s)))
	target := func(change func(*Target)) []Target {
		tg := Target{Format: "copy"}
		change(&tg)
		return []Target{tg}
	}
	for name, c := range map[string]struct {
		req   ConvertRequest
		class abi.Class
		says  string
	}{
		"unknown format":     {ConvertRequest{Targets: target(func(g *Target) { g.Format = "zstd" })}, abi.ErrNotFound, "copy, zeta"},
		"bad format":         {ConvertRequest{Targets: target(func(g *Target) { g.Format = "A b" })}, abi.ErrInvalid, "A b"},
		"no format":          {ConvertRequest{Targets: target(func(g *Target) { g.Format = "" })}, abi.ErrInvalid, ""},
		"path":               {ConvertRequest{Targets: target(func(g *Target) { g.Format = "./no/such.wasm" })}, abi.ErrNotFound, "such.wasm"},
		"unknown runtime":    {ConvertRequest{Targets: target(func(g *Target) { g.Runtime = "java" })}, abi.ErrInvalid, "java"},
		"missing runtime":    {ConvertRequest{Targets: target(func(g *Target) { g.Runtime = RuntimeWasm })}, abi.ErrNotFound, "inprocess"},
		"unknown option":     {ConvertRequest{Targets: target(func(g *Target) { g.Options = map[string]string{"lvl": "3"} })}, abi.ErrInvalid, "level, mode"},
		"bad value":          {ConvertRequest{Targets: target(func(g *Target) { g.Options = map[string]string{"mode": "c"} })}, abi.ErrInvalid, "a, b"},
		"attestations":       {ConvertRequest{Attestations: "maybe"}, abi.ErrInvalid, "maybe"},
		"two to one place":   {ConvertRequest{Targets: []Target{{Format: "copy", Dest: e.ref("never")}, {Format: "zeta", Dest: e.ref("never")}}}, abi.ErrInvalid, "never"},
		"bad destination":    {ConvertRequest{Targets: target(func(g *Target) { g.Dest = "nowhere" })}, abi.ErrInvalid, "nowhere"},
		"index as a target":  {ConvertRequest{Targets: target(func(g *Target) { g.Dest = "oci:" + e.dir + "/never:@0" })}, abi.ErrInvalid, ""},
		"bad source":         {ConvertRequest{Source: "ftp:x"}, abi.ErrInvalid, "ftp"},
		"missing source":     {ConvertRequest{Source: "oci:" + e.dir + "/absent:tag"}, abi.ErrNotFound, "absent"},
		"missing tag":        {ConvertRequest{Source: strings.TrimSuffix(src, "tag") + "other"}, abi.ErrNotFound, "other"},
		"not a docker layer": {ConvertRequest{Source: "docker-archive:" + e.dir + "/absent.tar"}, abi.ErrNotFound, "absent"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.req.Source == "" {
				c.req.Source = src
			}
			e.t = t
			if err := e.fails(c.req, c.class); !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v does not mention %q", err, c.says)
			}
		})
	}
	_, err := e.Convert(t.Context(), ConvertRequest{Source: src})
	want(t, err, abi.ErrInvalid)
	_, err = New(WithJobs(-1))
	want(t, err, abi.ErrInvalid)
	t.Run("options that exist", func(t *testing.T) {
		_, err := e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "copy", Dest: e.ref("opts"), Options: map[string]string{"mode": "a", "level": "x"}}}})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestTargetFails: whatever goes wrong at a target, nothing of any target is visible.
func TestTargetFails(t *testing.T) {
	s := graphtest.NewStore()
	root := s.Image(threeLayers(s))
	t.Run("a file where the directory should be", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{}})
		p := filepath.Join(e.dir, "file")
		e.ok(os.WriteFile(p, []byte("x"), 0o644))
		_, err := e.Convert(t.Context(), ConvertRequest{Source: e.source(s, root), Targets: []Target{{Format: "copy", Dest: e.ref("good")}, {Format: "copy", Dest: "oci:" + p + "/sub:tag"}}})
		if err == nil || len(classes(err)) != 1 {
			t.Errorf("error %v wraps %v", err, classes(err))
		}
		e.empty(filepath.Join(e.dir, "good"))
		e.empty(e.work)
	})
	t.Run("unwritable directory", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Skip("root may write everywhere")
		}
		e := newEnv(t, []sdk.Plugin{&copier{}})
		e.ok(os.Mkdir(filepath.Join(e.dir, "ro"), 0o555))
		_, err := e.Convert(t.Context(), ConvertRequest{Source: e.source(s, root), Targets: []Target{{Format: "copy", Dest: e.ref("good")}, {Format: "copy", Dest: e.ref("ro/sub")}}})
		want(t, err, abi.ErrDenied)
		e.empty(filepath.Join(e.dir, "good"))
		e.empty(filepath.Join(e.dir, "ro"))
	})
	t.Run("a registry that refuses the image", func(t *testing.T) {
		t.Setenv("DOCKER_CONFIG", t.TempDir()) // nobody's real credentials
		for method, what := range map[string]string{http.MethodPut: "/manifests/", http.MethodPost: "/blobs/"} {
			e := newEnv(t, []sdk.Plugin{&copier{}})
			real := registryHandler(t)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == method && strings.Contains(r.URL.Path, what) {
					w.WriteHeader(http.StatusInsufficientStorage)
					return
				}
				real.ServeHTTP(w, r)
			}))
			defer srv.Close()
			_, err := e.Convert(t.Context(), ConvertRequest{Source: e.source(s, root), Targets: []Target{
				{Format: "copy", Dest: e.ref("good")}, {Format: "copy", Dest: "docker://" + strings.TrimPrefix(srv.URL, "http://") + "/x:y"}}})
			want(t, err, abi.ErrIO)
			e.empty(filepath.Join(e.dir, "good"))
			e.empty(e.work)
			same(t, "published", e.count(EventPublished), 0)
		}
	})
	t.Run("no working directory", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{}}, WithWorkDir(filepath.Join(t.TempDir(), "absent")))
		e.fails(ConvertRequest{Source: e.source(s, root)}, abi.ErrNotFound)
	})
	t.Run("verification", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{convert: func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
			h, err := l.OpenSink(0, 0, 0)
			if err == nil {
				err = l.Write(h, make([]byte, 1024)) // an empty tar
			}
			if err == nil {
				_, err = l.Open(abi.RoleLayerTar, 0)
			}
			if err == nil {
				_, err = l.Host.Close(h)
			}
			return &abi.ConvertResponse{Parts: []abi.Part{{MediaType: copyMedia, Annotations: map[string]string{copyMarker: ""}}}}, err
		}}})
		e.fails(ConvertRequest{Source: e.source(s, root), Verify: true}, abi.ErrMismatch)
	})
}

// TestCancel: a conversion that is given up returns within a second and leaves nothing.
func TestCancel(t *testing.T) {
	s := graphtest.NewStore()
	root := s.Image(threeLayers(s))
	stages := map[string]*copier{
		"waiting for the context": {convert: func(ctx context.Context, _ *sdk.Layer) (*abi.ConvertResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}},
		"writing": {convert: func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
			h, err := l.OpenSink(0, 0, 0)
			for err == nil {
				err = l.Write(h, make([]byte, 1000))
				time.Sleep(time.Millisecond)
			}
			return nil, err
		}},
		"verifying": {unpack: func(u *sdk.Unpack) error {
			h, err := u.OpenSink(0, 0, 0)
			for err == nil {
				err = u.Write(h, make([]byte, 512))
				time.Sleep(time.Millisecond)
			}
			return err
		}},
	}
	for name, p := range stages {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, []sdk.Plugin{p, &copier{name: "other"}}, WithLimits(Limits{Layers: 1}))
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			at := make(chan time.Time, 1)
			time.AfterFunc(100*time.Millisecond, func() {
				at <- time.Now()
				cancel(fmt.Errorf("enough"))
			})
			_, err := e.Convert(ctx, ConvertRequest{Source: e.source(s, root), Verify: true,
				Targets: []Target{{Format: "copy", Dest: e.ref("never")}, {Format: "other", Dest: e.ref("neither")}}})
			if d := time.Since(<-at); d > time.Second {
				t.Errorf("took %s after the cancellation", d)
			}
			want(t, err, abi.ErrCanceled)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v is not context.Canceled", err)
			}
			e.empty(filepath.Join(e.dir, "never"))
			e.empty(filepath.Join(e.dir, "neither"))
			e.empty(e.work)
		})
	}
}

// TestClose: closing a host ends what it does, and nothing can be done with it afterwards.
func TestClose(t *testing.T) {
	started := make(chan struct{})
	e := newEnv(t, []sdk.Plugin{&copier{convert: func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
		h, err := l.OpenSink(0, 0, 0)
		close(started)
		for err == nil {
			err = l.Write(h, make([]byte, 1000))
		}
		return nil, err
	}}})
	s := graphtest.NewStore()
	src := e.source(s, s.Image(graphtest.Image{Layers: threeLayers(s).Layers[:1]}))
	done := make(chan error, 1)
	go func() {
		_, err := e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "copy", Dest: e.ref("never")}}})
		done <- err
	}()
	<-started
	e.ok(e.Close())
	want(t, <-done, abi.ErrCanceled)
	e.empty(filepath.Join(e.dir, "never"))
	for name, err := range map[string]error{
		"Convert": second(e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "copy", Dest: e.ref("never")}}})),
		"Verify":  second(e.Verify(t.Context(), VerifyRequest{Source: src, Converted: src})),
		"Unpack":  second(e.Unpack(t.Context(), UnpackRequest{Image: src})),
		"Check":   second(e.Check(t.Context(), CheckRequest{Image: src})),
		"Graph":   second(e.Graph(t.Context(), src)),
		"Inspect": second(e.Inspect(t.Context(), src)),
		"Plugin":  second(e.Plugin(t.Context(), "copy", "")),
	} {
		t.Run(name, func(t *testing.T) { want(t, err, abi.ErrInvalid) })
	}
	e.ok(e.Close())
}

func second[T any](_ T, err error) error { return err }

// TestOnce: a layer whose first caller gave up is converted for those who still want it; a real failure is for all.
func TestOnce(t *testing.T) {
	o := once{jobs: map[layerKey]*onceJob{}}
	first, cancel := context.WithCancel(t.Context())
	running, waiting := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := o.do(first, "k", func() (*converted, error) {
			close(running)
			<-first.Done()
			return nil, canceled(first)
		})
		waiting <- err
	}()
	<-running
	got := make(chan *converted, 1)
	go func() {
		res, err := o.do(t.Context(), "k", func() (*converted, error) { return &converted{state: []byte("second")}, nil })
		if err != nil {
			t.Error(err)
		}
		got <- res
	}()
	time.Sleep(20 * time.Millisecond)
	cancel()
	want(t, <-waiting, abi.ErrCanceled)
	same(t, "second caller", string((<-got).state), "second")
	res, err := o.do(t.Context(), "k", func() (*converted, error) { panic("made again") })
	same(t, "third caller", string(res.state), "second")
	same(t, "error", err, nil)
	for range 2 {
		_, err := o.do(t.Context(), "bad", func() (*converted, error) { return nil, abi.Errorf(abi.ErrCorrupt, "broken") })
		want(t, err, abi.ErrCorrupt)
	}
}
