package host

import (
	"context"
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
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/sdk"
)

// TestConvertIndependent: every layer becomes what the plugin made of it, in order, with its diff ID and history.
func TestConvertIndependent(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}})
	s := graphtest.NewStore()
	im := threeLayers(s)
	src := e.source(s, s.Image(im))
	res := e.convert(src, "copy", e.ref("out"))
	var diffIDs []digest.Digest
	for _, l := range im.Layers {
		diffIDs = append(diffIDs, l.DiffID)
	}
	m := res.Manifests[0]
	same(t, "layers are the tars", digests(m.Layers), diffIDs)
	for i, l := range m.Layers {
		same(t, "source", l.Source.Digest, im.Layers[i].Desc.Digest)
		same(t, "annotations", l.Converted.Annotations, map[string]string{copyMarker: "1"})
	}
	out := e.image(e.ref("out"))
	same(t, "root", out.Root.Desc.Digest, res.Root.Digest)
	cfg := out.Root.ConfigNode().Config
	same(t, "diff IDs", cfg.RootFS.DiffIDs, diffIDs)
	same(t, "history", len(cfg.History), 4)
	for i, l := range out.Root.Layers() {
		same(t, "blob", digest.FromBytes(out.blob(l.Desc)), diffIDs[i])
	}
	for kind, n := range map[EventKind]int{EventResolved: 1, EventLayerStarted: 3, EventLayerDone: 3, EventManifestDone: 1, EventPushStarted: 1, EventPublished: 1, EventPushProgress: 5} {
		same(t, string(kind), e.count(kind), n)
	}
	last := e.events[len(e.events)-1]
	if last.Kind != EventPublished || last.Descriptor.Digest != res.Root.Digest || last.Dest != e.ref("out") {
		t.Errorf("last event %+v", last)
	}
	rs, err := e.Verify(t.Context(), VerifyRequest{Source: src, Converted: e.ref("out")})
	e.ok(err)
	same(t, "verified", []any{len(rs), len(rs[0].Differences), rs[0].Files}, "[1 0 6]")
}

// TestConvertChained: a layer sees the artifacts of those below, lowest first, with their bytes.
func TestConvertChained(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	p := &copier{chained: true}
	p.convert = func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
		var below []string
		for i, info := range l.Parents {
			b, err := sdk.OpenBlob(l, abi.RoleParent, i)
			if err != nil {
				return nil, err
			}
			p := make([]byte, b.Size())
			if _, err := b.ReadAt(p, 0); err != nil {
				return nil, err
			}
			if d := digest.FromBytes(p).String(); d != info.Digest {
				return nil, fmt.Errorf("parent %d is %s, its bytes are %s", i, info.Digest, d)
			}
			below = append(below, fmt.Sprintf("%s@%d", info.Name, info.Layer))
		}
		mu.Lock()
		seen = append(seen, fmt.Sprintf("%d%v", l.Layer.Index, below))
		mu.Unlock()
		resp, err := copyLayer(l)
		if err != nil {
			return nil, err
		}
		aux, err := l.OpenSink(1, abi.FilterNone, 0)
		if err != nil {
			return nil, err
		}
		if err := l.Write(aux, fmt.Appendf(nil, "index of %d", l.Layer.Index)); err != nil {
			return nil, err
		}
		if _, err := l.Host.Close(aux); err != nil {
			return nil, err
		}
		resp.Parts[0].Name = fmt.Sprintf("data%d", l.Layer.Index)
		resp.Parts = append(resp.Parts, abi.Part{Sink: 1, Name: fmt.Sprintf("aux%d", l.Layer.Index), Aux: true})
		return resp, nil
	}
	e := newEnv(t, []sdk.Plugin{p})
	s := graphtest.NewStore()
	base := threeLayers(s)
	more := base
	more.Platform = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	more.Layers = append(slices.Clone(base.Layers), s.Layer(map[string]string{"top": "x"}))
	res := e.convert(e.source(s, s.Index(s.Image(base), s.Image(more))), "copy", e.ref("out"))
	slices.Sort(seen)
	same(t, "each chain once, with its parents", seen,
		"[0[] 1[data0@0 aux0@0] 2[data0@0 aux0@0 data1@1 aux1@1] 3[data0@0 aux0@0 data1@1 aux1@1 data2@2 aux2@2]]")
	same(t, "layers", []int{len(res.Manifests[0].Layers), len(res.Manifests[1].Layers)}, "[3 4]")
	same(t, "started", e.count(EventLayerStarted), 4)
}

// TestConvertParts: a layer may become several, and auxiliary parts none.
func TestConvertParts(t *testing.T) {
	p := &copier{convert: func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
		resp, err := copyLayer(l)
		if err != nil {
			return nil, err
		}
		for i, part := range []abi.Part{{MediaType: copyMedia}, {Name: "index", Aux: true}} {
			out, err := l.OpenSink(i+1, abi.FilterNone, 0)
			if err != nil {
				return nil, err
			}
			if err := l.Write(out, make([]byte, 1024*(i+1))); err != nil {
				return nil, err
			}
			if _, err := l.Host.Close(out); err != nil {
				return nil, err
			}
			part.Sink = i + 1
			resp.Parts = append(resp.Parts, part)
		}
		resp.Warnings = []string{"strange"}
		return resp, nil
	}}
	e := newEnv(t, []sdk.Plugin{p})
	s := graphtest.NewStore()
	res := e.convert(e.source(s, s.Image(threeLayers(s))), "copy", e.ref("out"))
	m := res.Manifests[0]
	var sources []bool
	for _, l := range m.Layers {
		sources = append(sources, l.Source != nil)
	}
	same(t, "layers with a source", sources, "[true false true false true false]")
	same(t, "warnings", m.Warnings, "[layer 0: strange layer 1: strange layer 2: strange]")
	out := e.image(e.ref("out"))
	same(t, "diff IDs", len(out.Root.ConfigNode().Config.RootFS.DiffIDs), 6)
	same(t, "history", len(out.Root.ConfigNode().Config.History), 7)
	blobs := must(os.ReadDir(filepath.Join(e.dir, "out", "blobs", "sha256")))(t)
	same(t, "blobs: three layers, one that all have, config, manifest", len(blobs), 6)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestConvertMerge: a finishing step orders, drops and adds layers, and decides on annotations, features and types.
func TestConvertMerge(t *testing.T) {
	p := &merging{}
	p.convert = func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
		resp, err := copyLayer(l)
		if err == nil {
			resp.State = []byte("state of " + l.Layer.DiffID)
		}
		return resp, err
	}
	p.merge = func(m *sdk.Merge) (*abi.MergeResponse, error) {
		var about strings.Builder
		resp := &abi.MergeResponse{Annotations: map[string]string{"merged": "yes"}, OSFeatures: []string{"feature"}, Warnings: []string{"merged"}}
		for i, l := range m.Layers {
			fmt.Fprintf(&about, "%d of %d: %s\n", l.Layer.Index, l.Layer.Count, l.State)
			if string(l.State) != "state of "+l.Layer.DiffID || m.Parts[l.Parts[0]].Layer != i {
				return nil, fmt.Errorf("layer %d has state %q and part %+v", i, l.State, m.Parts[l.Parts[0]])
			}
			if i != 1 { // the second one is dropped
				resp.Layers = append(resp.Layers, abi.OutLayer{Part: int(l.Parts[0]), Source: i, Annotations: map[string]string{copyMarker: "m"}})
			}
		}
		out, err := m.OpenSink(0, abi.FilterGzip, 0)
		if err != nil {
			return nil, err
		}
		if err := m.Write(out, []byte(about.String())); err != nil {
			return nil, err
		}
		info, err := m.Close(out)
		if err != nil {
			return nil, err
		}
		resp.Layers = append(resp.Layers, abi.OutLayer{Part: -1, Source: -1, CreatedBy: "merge", Comment: "all",
			New: abi.Part{MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: digest.NewDigestFromBytes(digest.SHA256, info.RawSHA256[:]).String()}})
		return resp, nil
	}
	e := newEnv(t, []sdk.Plugin{p})
	s := graphtest.NewStore()
	src := e.source(s, s.Index(s.Image(threeLayers(s))))
	rs, err := e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "copy", Dest: e.ref("out")}}})
	e.ok(err)
	m := rs[0].Manifests[0]
	same(t, "warnings", m.Warnings, "[merged]")
	out := e.image(e.ref("out"))
	im := out.Root.Manifests()[0]
	same(t, "layers", len(im.Manifest.Layers), 3)
	same(t, "annotation replaced", im.Manifest.Layers[0].Annotations, map[string]string{copyMarker: "m"})
	same(t, "manifest annotations", im.Manifest.Annotations, map[string]string{"merged": "yes"})
	same(t, "features", im.Desc.Platform.OSFeatures, "[feature]")
	var history []string
	for _, h := range im.ConfigNode().Config.History {
		history = append(history, h.CreatedBy)
	}
	same(t, "history", strings.Join(history, ","), "ENV APP=lab,layer 0,layer 2,merge")
}

// TestInputs: the plugin gets the form that it asks for.
func TestInputs(t *testing.T) {
	for _, role := range []abi.Role{abi.RoleLayerStored, abi.RoleLayerTar, abi.RoleLayerEntries} {
		var got int64
		p := &copier{input: role, convert: func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
			h, err := l.Open(role, 0)
			if err != nil {
				return nil, err
			}
			out, err := l.OpenSink(0, abi.FilterNone, 0)
			if err != nil {
				return nil, err
			}
			switch role {
			case abi.RoleLayerEntries:
				for en, err := range sdk.Entries(l, h, 0) {
					if err != nil {
						return nil, err
					}
					if err := l.Write(out, []byte(en.Path+"\n")); err != nil {
						return nil, err
					}
				}
			case abi.RoleLayerStored:
				if n, err := l.Size(h); err != nil || n != l.ConvertRequest.Layer.Size {
					return nil, fmt.Errorf("size %d of the stored layer, %w", n, err)
				}
				fallthrough
			default:
				if got, err = l.Copy(out, h, -1, -1); err != nil {
					return nil, err
				}
			}
			info, err := l.Host.Close(out)
			return &abi.ConvertResponse{Parts: []abi.Part{{MediaType: "application/vnd.oci.image.layer.test", Size: info.Size,
				Digest: digest.NewDigestFromBytes(digest.SHA256, info.SHA256[:]).String()}}}, err
		}}
		e := newEnv(t, []sdk.Plugin{p})
		s := graphtest.NewStore()
		l := s.Layer(map[string]string{"x": "y"})
		rs, err := e.Convert(t.Context(), ConvertRequest{Source: e.source(s, s.Image(graphtest.Image{Layers: []graphtest.Layer{l}})), Targets: []Target{{Format: "copy", Dest: e.ref("out")}}})
		e.ok(err)
		conv := rs[0].Manifests[0].Layers[0].Converted
		switch role {
		case abi.RoleLayerStored:
			same(t, "stored", []any{conv.Digest, got}, []any{l.Desc.Digest, l.Desc.Size})
		case abi.RoleLayerTar:
			same(t, "tar", conv.Digest, l.DiffID)
		default:
			same(t, "entries", conv.Digest, digest.FromString("x\n"))
		}
	}
}

// TestEqualLayers: what is equal is converted once in a target, whichever images share it.
func TestEqualLayers(t *testing.T) {
	var calls atomic.Int32
	p := &copier{convert: func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
		calls.Add(1)
		return copyLayer(l)
	}}
	e := newEnv(t, []sdk.Plugin{p, &copier{name: "other"}}, WithJobs(4))
	s := graphtest.NewStore()
	im := threeLayers(s)
	im.Layers = append(im.Layers, im.Layers[0], s.Layer(map[string]string{"z": "z"}))
	var roots []ocispec.Descriptor
	for i := range 5 {
		im.Platform = ocispec.Platform{OS: "linux", Architecture: "arm", Variant: fmt.Sprintf("v%d", 5+i)}
		roots = append(roots, s.Image(im))
	}
	rs, err := e.Convert(t.Context(), ConvertRequest{Source: e.source(s, s.Index(roots...)),
		Targets: []Target{{Format: "copy", Dest: e.ref("one")}, {Format: "other", Dest: e.ref("two")}}})
	e.ok(err)
	same(t, "calls", calls.Load(), 4)
	same(t, "started and done", []int{e.count(EventLayerStarted), e.count(EventLayerDone)}, "[8 8]")
	same(t, "same bytes of both formats", rs[0].Root.Digest, rs[1].Root.Digest)
	for _, r := range rs {
		same(t, "images", len(r.Manifests), 5)
		for _, m := range r.Manifests {
			same(t, "layers", len(m.Layers), 5)
		}
	}
	perLayer := map[string]int{}
	for _, ev := range e.events {
		if ev.Kind == EventLayerStarted || ev.Kind == EventLayerDone {
			perLayer[fmt.Sprint(ev.Kind, ev.Format, ev.Descriptor.Digest)]++
		}
	}
	for k, n := range perLayer {
		if n != 1 {
			t.Errorf("%s %d times", k, n)
		}
	}
}

// TestEqualLayersThatAreNot: a layer whose reference says something else is another one for the plugin.
func TestEqualLayersThatAreNot(t *testing.T) {
	var mu sync.Mutex
	var got []string
	p := &copier{convert: func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
		mu.Lock()
		got = append(got, l.Layer.Annotations["hint"])
		mu.Unlock()
		return copyLayer(l)
	}}
	e := newEnv(t, []sdk.Plugin{p})
	s := graphtest.NewStore()
	a := s.Layer(map[string]string{"x": "y"})
	b := a
	b.Desc.Annotations = map[string]string{"hint": "b"}
	e.convert(e.source(s, s.Image(graphtest.Image{Layers: []graphtest.Layer{a, b, a, b}})), "copy", e.ref("out"))
	slices.Sort(got)
	same(t, "hints", fmt.Sprintf("%q", got), `["" "b"]`)
	t.Run("a wrong diff ID is found behind a right one", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{p})
		bad := a
		bad.DiffID = digest.FromString("another")
		good, wrong := graphtest.Image{Layers: []graphtest.Layer{a}}, graphtest.Image{Layers: []graphtest.Layer{bad}, Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}}
		e.fails(ConvertRequest{Source: e.source(s, s.Index(s.Image(good), s.Image(wrong)))}, abi.ErrDigest)
	})
}

// TestLayersInParallel: as many layers at a time as Limits.Layers says, over all targets and images.
func TestLayersInParallel(t *testing.T) {
	for _, most := range []int{1, 3} {
		var now, peak atomic.Int32
		work := func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
			peak.Store(max(peak.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(10 * time.Millisecond)
			return copyLayer(l)
		}
		e := newEnv(t, []sdk.Plugin{&copier{convert: work}, &copier{name: "other", convert: work}}, WithLimits(Limits{Layers: most}))
		s := graphtest.NewStore()
		var im graphtest.Image
		for i := range 8 {
			im.Layers = append(im.Layers, s.Layer(map[string]string{fmt.Sprint(i): "x"}))
		}
		_, err := e.Convert(t.Context(), ConvertRequest{Source: e.source(s, s.Image(im)),
			Targets: []Target{{Format: "copy", Dest: e.ref("one")}, {Format: "other", Dest: e.ref("two")}}})
		e.ok(err)
		same(t, "layers at a time", peak.Load(), most)
	}
}

// TestDeterminism: the same digests with any number of jobs, and again.
func TestDeterminism(t *testing.T) {
	s := graphtest.NewStore()
	im := threeLayers(s)
	im.Layers = append(im.Layers, im.Layers...)
	var roots []digest.Digest
	for _, jobs := range []int{1, 4, 4} {
		e := newEnv(t, []sdk.Plugin{&copier{}}, WithJobs(jobs))
		roots = append(roots, e.convert(e.source(s, s.Index(s.Image(im), s.Artifact(s.Image(im)))), "copy", e.ref("out")).Root.Digest)
	}
	if roots[0] != roots[1] || roots[1] != roots[2] {
		t.Errorf("%v", roots)
	}
}

// TestSeveralHosts: hosts in one process share nothing.
func TestSeveralHosts(t *testing.T) {
	s := graphtest.NewStore()
	root := s.Image(threeLayers(s))
	var wg sync.WaitGroup
	for range 4 {
		e := newEnv(t, []sdk.Plugin{&copier{}})
		src := e.source(s, root)
		wg.Go(func() { e.convert(src, "copy", e.ref("out")) })
	}
	wg.Wait()
}

// TestAlreadyConverted: an image of the format stays as it is, bytes and all.
func TestAlreadyConverted(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}})
	s := graphtest.NewStore()
	first := e.convert(e.source(s, s.Index(s.Image(threeLayers(s)))), "copy", e.ref("one"))
	again := e.convert(e.ref("one"), "copy", e.ref("two"))
	same(t, "root", again.Root.Digest, first.Root.Digest)
	same(t, "images", len(again.Manifests), 1)
	same(t, "started", e.count(EventLayerStarted), 3)
	rs, err := e.Verify(t.Context(), VerifyRequest{Source: e.ref("one"), Converted: e.ref("two")})
	e.ok(err)
	same(t, "verified", len(rs), 1)
}

// TestGraphs: shapes of graphs.
func TestGraphs(t *testing.T) {
	t.Run("docker becomes OCI where it must", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{}})
		s := graphtest.NewStore()
		im := threeLayers(s)
		im.Docker = true
		e.convert(e.source(s, s.List(s.Image(im))), "copy", e.ref("out"))
		out := e.image(e.ref("out"))
		m := out.Root.Manifests()[0]
		same(t, "types", []string{m.Desc.MediaType, m.Manifest.Config.MediaType}, []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig})
		same(t, "index", out.Root.Desc.MediaType, ocispec.MediaTypeImageIndex)
	})
	t.Run("nested", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{}})
		s := graphtest.NewStore()
		root := s.Index(s.Index(s.Index(s.Image(threeLayers(s)))))
		e.convert(e.source(s, root), "copy", e.ref("out"))
		same(t, "depth", e.image(e.ref("out")).Root.Manifests()[0].Depth(), 3)
	})
	t.Run("attestations", func(t *testing.T) {
		for policy, n := range map[Attestations]int{"": 1, AttestationsDrop: 1, AttestationsKeep: 3} {
			e := newEnv(t, []sdk.Plugin{&copier{}})
			s := graphtest.NewStore()
			img := s.Image(threeLayers(s))
			rs, err := e.Convert(t.Context(), ConvertRequest{Source: e.source(s, s.Index(img, s.Attestation(img), s.AttestationArtifact(img))),
				Targets: []Target{{Format: "copy", Dest: e.ref("out")}}, Attestations: policy})
			e.ok(err)
			same(t, "entries", len(e.image(e.ref("out")).Root.Children), n)
			same(t, "dropped", []int{len(rs[0].Dropped), e.count(EventDropped)}, []int{3 - n, 3 - n})
		}
	})
	t.Run("platforms", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{}})
		s := graphtest.NewStore()
		a, b := threeLayers(s), threeLayers(s)
		b.Platform = ocispec.Platform{OS: "linux", Architecture: "s390x"}
		src := e.source(s, s.Index(s.Image(a), s.Image(b)))
		rs, err := e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "copy", Dest: e.ref("out")}}, Select: Selection{Platforms: []string{"linux/s390x"}}})
		e.ok(err)
		same(t, "images", len(rs[0].Manifests), 1)
		same(t, "platform", rs[0].Manifests[0].Platform, "linux/s390x")
		e2 := newEnv(t, []sdk.Plugin{&copier{}})
		e2.fails(ConvertRequest{Source: src, Select: Selection{Platforms: []string{"linux/mips64"}}}, abi.ErrNotFound)
		e2.fails(ConvertRequest{Source: src, Select: Selection{Platforms: []string{"//"}}}, abi.ErrInvalid)
	})
	for _, media := range []string{"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"} {
		t.Run(media, func(t *testing.T) {
			e := newEnv(t, []sdk.Plugin{&copier{}})
			s := graphtest.NewStore()
			im := threeLayers(s)
			im.Layers[1].Desc.MediaType = media
			err := e.fails(ConvertRequest{Source: e.source(s, s.Image(im))}, abi.ErrUnsupported)
			if !strings.Contains(err.Error(), "layer 1") || !strings.Contains(err.Error(), string(im.Layers[1].Desc.Digest)) {
				t.Errorf("%v does not say which layer", err)
			}
		})
	}
	t.Run("not an image", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{}})
		s := graphtest.NewStore()
		e.fails(ConvertRequest{Source: e.source(s, s.Artifact(s.Image(threeLayers(s))))}, abi.ErrUnsupported)
	})
	t.Run("missing blob", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{}})
		s := graphtest.NewStore()
		im := threeLayers(s)
		root := s.Image(im)
		s.Delete(im.Layers[2].Desc.Digest)
		e.fails(ConvertRequest{Source: e.source(s, root)}, abi.ErrNotFound)
	})
	t.Run("damaged blob", func(t *testing.T) {
		e := newEnv(t, []sdk.Plugin{&copier{}})
		s := graphtest.NewStore()
		im := threeLayers(s)
		root := s.Image(im)
		s.Flip(im.Layers[2].Desc.Digest)
		if err := e.fails(ConvertRequest{Source: e.source(s, root)}, abi.ErrCorrupt); !strings.Contains(err.Error(), "layer 2") {
			t.Errorf("%v does not say which layer", err)
		}
	})
}
