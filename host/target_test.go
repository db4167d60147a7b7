package host

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/host/transport"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/sdk"
)

const copyArtifact = "application/vnd.example.copy.v1+json"

func typed(d *abi.Description) { d.ArtifactType = copyArtifact }

// TestMediaTypes: documents, what the plugin learns and what the result says are of one family.
func TestMediaTypes(t *testing.T) {
	var told string
	p := &merging{}
	p.merge = func(m *sdk.Merge) (*abi.MergeResponse, error) {
		told = m.ManifestMediaType
		r := &abi.MergeResponse{}
		for i := range m.Parts {
			r.Layers = append(r.Layers, abi.OutLayer{Part: i, Source: i})
		}
		return r, nil
	}
	e := newEnv(t, []sdk.Plugin{p, nydus.New()})
	s := graphtest.NewStore()
	im := threeLayers(s)
	im.Docker = true
	src := e.source(s, s.List(s.Image(im)))
	for choice, want := range map[MediaTypes][]string{
		"":               {graph.DockerManifest, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayer},
		MediaTypesSource: {graph.DockerManifest, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayer},
		MediaTypesOCI:    {ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayer},
		MediaTypesDocker: {graph.DockerManifest, graph.DockerList, graph.DockerManifest, graph.DockerLayer},
	} {
		dest := e.ref("out-" + string(choice))
		rs, err := e.Convert(t.Context(), ConvertRequest{Source: src, Verify: true, Targets: []Target{{Format: "copy", Dest: dest, MediaTypes: choice}}})
		e.ok(err)
		r := rs[0]
		got := []string{told, r.Root.MediaType, r.Manifests[0].Converted.MediaType, r.Manifests[0].Layers[0].Converted.MediaType}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", choice, got, want)
		}
		if l := e.image(dest).Root.Children[0].Layers()[0].Desc; l.MediaType != want[3] || l.Annotations[copyMarker] == "" {
			t.Errorf("%q: layer %+v", choice, l)
		}
		_, err = e.Verify(t.Context(), VerifyRequest{Source: src, Converted: dest})
		e.ok(err)
	}
	err := e.refused(ConvertRequest{Source: src, Targets: []Target{{Format: "nydus", MediaTypes: MediaTypesDocker}}}, abi.ErrUnsupported)
	if !strings.Contains(err.Error(), "layer 0 is of type application/vnd.oci.image.layer.nydus.blob.v1, for which docker has no name") {
		t.Error(err)
	}
	e.refused(ConvertRequest{Source: src, Targets: []Target{{Format: "copy", MediaTypes: "schema1"}}}, abi.ErrInvalid)
}

// refused is fails for a host that has published before.
func (e *env) refused(req ConvertRequest, c abi.Class) error {
	e.t.Helper()
	e.mu.Lock()
	e.events = nil
	e.mu.Unlock()
	return e.fails(req, c)
}

// TestReferrers: a registry with and without the API for referrers finds the result by its source, for a manifest, an
// index and a nested index; and the result is an image like any other.
func TestReferrers(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	e := newEnv(t, []sdk.Plugin{&copier{say: typed}})
	s := graphtest.NewStore()
	amd := s.Image(threeLayers(s))
	im := threeLayers(s)
	im.Platform = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	im.Docker = true
	arm := s.Image(im)
	for name, root := range map[string]ocispec.Descriptor{"manifest": amd, "index": s.Index(amd, arm), "nested": s.Index(s.Index(amd), s.List(arm))} {
		src := e.image(e.source(s, root))
		for reg, base := range map[string]string{"api": registryHost(t), "tags": oldRegistryHost(t)} {
			from, dest := "docker://"+base+"/app:src", "docker://"+base+"/app:converted"
			e.copyTo(src, src.Root, from)
			rs, err := e.Convert(t.Context(), ConvertRequest{Source: from, Verify: true, Targets: []Target{{Format: "copy", Dest: dest, Referrers: true}}})
			e.ok(err)
			_, err = e.Verify(t.Context(), VerifyRequest{Source: from, Converted: dest})
			e.ok(err)
			got := map[digest.Digest]bool{}
			for _, n := range src.Root.Manifests() {
				for d := n; d != nil; d = d.Parent {
					for _, r := range referrers(t, base, d.Desc.Digest) {
						if r.ArtifactType != copyArtifact {
							t.Errorf("%s, %s: referrer %+v", name, reg, r)
						}
						got[r.Digest] = true
					}
				}
			}
			made := documents(e.image(dest).Graph)
			if len(got) != len(made) || !got[rs[0].Root.Digest] {
				t.Errorf("%s, %s: the registry lists %v, made were %v", name, reg, got, made)
			}
		}
	}
}

func documents(g *graph.Graph) map[digest.Digest]bool {
	out := map[digest.Digest]bool{}
	g.Root.Walk(func(n *graph.Node) bool {
		if n.Kind.Document() {
			out[n.Desc.Digest] = true
		}
		return true
	})
	return out
}

// referrers asks a registry as the distribution specification says: by the API, else by the tag.
func referrers(t *testing.T, base string, d digest.Digest) []ocispec.Descriptor {
	t.Helper()
	for _, path := range []string{"referrers/" + d.String(), "manifests/" + strings.Replace(d.String(), ":", "-", 1)} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+base+"/v2/app/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", ocispec.MediaTypeImageIndex)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			continue
		}
		var ix ocispec.Index
		if err := json.NewDecoder(resp.Body).Decode(&ix); err != nil {
			t.Fatal(err)
		}
		return ix.Manifests
	}
	return nil
}

func TestReferrersRefused(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}, &copier{name: "typed", say: typed}})
	s := graphtest.NewStore()
	src := e.source(s, s.Image(threeLayers(s)))
	if err := e.fails(ConvertRequest{Source: src, Targets: []Target{{Format: "copy", Referrers: true}}}, abi.ErrUnsupported); !strings.Contains(err.Error(), "no artifact type") {
		t.Error(err)
	}
	err := e.fails(ConvertRequest{Source: src, Targets: []Target{{Format: "typed", Referrers: true, MediaTypes: MediaTypesDocker}}}, abi.ErrInvalid)
	if !strings.Contains(err.Error(), "no subject") {
		t.Error(err)
	}
}

// TestDryRun: everything happens but publishing; the root is the one that would have been published.
func TestDryRun(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}, &copier{name: "lies", lie: changeBody}})
	s := graphtest.NewStore()
	src := e.source(s, s.Index(s.Image(threeLayers(s))))
	for _, dest := range []string{"", e.ref("dry")} {
		rs, err := e.Convert(t.Context(), ConvertRequest{Source: src, DryRun: true, Verify: true, Targets: []Target{{Format: "copy", Dest: dest}}})
		e.ok(err)
		if !rs[0].DryRun || e.count(EventPublished)+e.count(EventPushStarted) > 0 {
			t.Errorf("%+v", rs[0])
		}
		e.empty(filepath.Join(e.dir, "dry"))
		if wet := e.convert(src, "copy", e.ref("wet")); wet.Root.Digest != rs[0].Root.Digest || wet.DryRun {
			t.Errorf("published %s, dry %s", wet.Root.Digest, rs[0].Root.Digest)
		}
		e.mu.Lock()
		e.events = nil
		e.mu.Unlock()
	}
	_, err := e.Convert(t.Context(), ConvertRequest{Source: src, DryRun: true, Targets: []Target{{Format: "copy"}, {Format: "lies"}}})
	e.ok(err)
	e.fails(ConvertRequest{Source: src, DryRun: true, Verify: true, Targets: []Target{{Format: "lies"}}}, abi.ErrMismatch)
	_, err = e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "copy"}}})
	want(t, err, abi.ErrInvalid)
}

// changeBody makes an unpacked file differ.
func changeBody(h *tar.Header, body *[]byte) bool {
	if len(*body) > 0 {
		*body = []byte("not this")
	}
	return true
}

// TestDump: the files are the documents, bit for bit, also those that did not change; several targets have their own.
func TestDump(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}, nydus.New()})
	s := graphtest.NewStore()
	amd := s.Image(threeLayers(s))
	src := e.source(s, s.Index(amd, s.Index(s.Artifact(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}))))
	dir := filepath.Join(t.TempDir(), "dump")
	e.ok(os.Mkdir(dir, 0o755)) // empty
	rs, err := e.Convert(t.Context(), ConvertRequest{Source: src, DumpDir: dir, Targets: []Target{{Format: "copy", Dest: e.ref("out")}}})
	e.ok(err)
	g := e.image(e.ref("out"))
	for file, n := range map[string]*graph.Node{"index.json": g.Root, "0-linux-amd64/manifest.json": g.Root.Children[0],
		"0-linux-amd64/config.json": g.Root.Children[0].ConfigNode(), "1/index.json": g.Root.Children[1], "1/0/manifest.json": g.Root.Children[1].Children[0]} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		e.ok(err)
		if !bytes.Equal(b, n.Raw) || digest.FromBytes(b) != n.Desc.Digest {
			t.Errorf("%s: %s", file, b)
		}
	}
	same(t, "files", files(t, dir), []string{"0-linux-amd64/config.json", "0-linux-amd64/manifest.json", "1/0/manifest.json", "1/index.json", "index.json"})
	if rs[0].Root.Digest != g.Root.Desc.Digest {
		t.Error(rs[0].Root)
	}
	if err := e.refused(ConvertRequest{Source: src, DumpDir: dir}, abi.ErrExists); !strings.Contains(err.Error(), "is not empty") {
		t.Error(err)
	}
	two := filepath.Join(t.TempDir(), "two")
	_, err = e.Convert(t.Context(), ConvertRequest{Source: src, DumpDir: two, DryRun: true, Targets: []Target{{Format: "copy"}, {Format: "nydus"}}})
	e.ok(err)
	if fs := files(t, two); !slices.Contains(fs, "0-copy/index.json") || !slices.Contains(fs, "1-nydus/0-linux-amd64/config.json") || len(fs) != 10 {
		t.Errorf("%q", fs)
	}
	e.refused(ConvertRequest{Source: src, DumpDir: filepath.Join(t.TempDir(), "no", "parent")}, abi.ErrNotFound)
	none := t.TempDir() // nothing is published, so nothing appears
	_, err = e.Convert(t.Context(), ConvertRequest{Source: src, DumpDir: filepath.Join(none, "dump"), Targets: []Target{{Format: "copy", Dest: "oci-archive:" + filepath.Join(none, "no", "x.tar") + ":v1"}}})
	want(t, err, abi.ErrNotFound)
	e.empty(none)
}

// files lists the files below dir.
func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err == nil && !fi.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			out = append(out, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// TestKeepWork: the directory stays, holds the blobs, and no later run takes it for a dead one's.
func TestKeepWork(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}})
	s := graphtest.NewStore()
	src := e.source(s, s.Image(threeLayers(s)))
	rs, err := e.Convert(t.Context(), ConvertRequest{Source: src, KeepWork: true, DryRun: true, Targets: []Target{{Format: "copy"}}})
	e.ok(err)
	var dir string
	for _, ev := range e.events {
		if ev.Kind == EventWorkKept {
			dir = ev.Message
		}
	}
	defer os.RemoveAll(dir)
	_, err = e.Convert(t.Context(), ConvertRequest{Source: src, DryRun: true, Targets: []Target{{Format: "copy"}}})
	e.ok(err)
	store, err := cas.Open(t.Context(), filepath.Join(dir, "store"), cas.Options{})
	e.ok(err)
	defer store.Close()
	for _, d := range append(digests(rs[0].Manifests[0].Layers), rs[0].Root.Digest) {
		if has, err := store.Exists(t.Context(), d); !has || err != nil {
			t.Errorf("%s: %v, %v", d, has, err)
		}
	}
}

// TestDicts: the plugin reads what the user named, in all its steps; results follow the bytes and not the name.
func TestDicts(t *testing.T) {
	for _, native := range []bool{false, true} {
		p := dictionaryReader()
		e := newEnv(t, nil, WithBuiltin(Builtin{Name: "dict", InProcess: sdk.InProcess(p), Native: []string{testExe(t), "dict"}}))
		s := graphtest.NewStore()
		src := e.source(s, s.Image(threeLayers(s)))
		rt := RuntimeInProcess
		if native {
			rt = RuntimeNative
		}
		write := func(name, text string) string {
			path := filepath.Join(t.TempDir(), name)
			e.ok(os.WriteFile(path, []byte(text), 0o600))
			return path
		}
		convert := func(dicts ...string) digest.Digest {
			t.Helper()
			rs, err := e.Convert(t.Context(), ConvertRequest{Source: src, DryRun: true, Targets: []Target{{Format: "dict", Runtime: rt, Dicts: dicts}}})
			e.ok(err)
			return rs[0].Root.Digest
		}
		one, other := convert(write("a", "base layer"), write("b", "chunks")), convert(write("c", "base layer"), write("d", "chunks"))
		if one != other {
			t.Errorf("native %v: names of dictionaries count", native)
		}
		if swapped := convert(write("b", "chunks"), write("a", "base layer")); swapped == one {
			t.Errorf("native %v: order does not count", native)
		}
		if none := convert(); none == one {
			t.Errorf("native %v: no dictionary makes no difference", native)
		}
	}
}

// dictionaryReader is a format whose layers hold the digests and texts of its dictionaries.
func dictionaryReader() *merging {
	read := func(h abi.Host, dicts []abi.PartInfo) ([]byte, error) {
		var out []byte
		for i, d := range dicts {
			b, err := sdk.OpenBlob(h, abi.RoleDict, i)
			if err != nil {
				return nil, err
			}
			text := make([]byte, b.Size())
			if _, err := b.ReadAt(text, 0); err != nil && err != io.EOF {
				return nil, err
			}
			if d.Name != "" || d.Digest != digest.FromBytes(text).String() || d.Size != b.Size() {
				return nil, abi.Errorf(abi.ErrInvalid, "dictionary %+v holds %q", d, text)
			}
			out = append(append(out, d.Digest...), text...)
		}
		return out, nil
	}
	put := func(h abi.Host, text []byte) error {
		sink, err := h.OpenSink(0, abi.FilterNone, 0)
		if err == nil {
			err = h.Write(sink, append(text, '.'))
		}
		if err == nil {
			_, err = h.Close(sink)
		}
		return err
	}
	p := &merging{copier: copier{name: "dict", say: func(d *abi.Description) { d.Dicts = true }}}
	p.convert = func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
		in, err := l.Open(abi.RoleLayerTar, 0)
		if err != nil {
			return nil, err
		}
		if _, err := l.Host.Close(in); err != nil {
			return nil, err
		}
		text, err := read(l, l.Dicts)
		if err == nil {
			err = put(l, text)
		}
		return &abi.ConvertResponse{Parts: []abi.Part{{MediaType: copyMedia}}}, err
	}
	p.merge = func(m *sdk.Merge) (*abi.MergeResponse, error) {
		text, err := read(m, m.Dicts)
		r := &abi.MergeResponse{Annotations: map[string]string{"dicts": string(text)}}
		for i := range m.Parts {
			r.Layers = append(r.Layers, abi.OutLayer{Part: i, Source: i})
		}
		return r, err
	}
	return p
}

func testExe(t *testing.T) string {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func TestDictsRefused(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}, dictionaryReader()})
	s := graphtest.NewStore()
	src := e.source(s, s.Image(threeLayers(s)))
	file := filepath.Join(t.TempDir(), "dict")
	e.ok(os.WriteFile(file, []byte("x"), 0o600))
	if err := e.fails(ConvertRequest{Source: src, Targets: []Target{{Format: "copy", Dicts: []string{file}}}}, abi.ErrUnsupported); !strings.Contains(err.Error(), "takes no dictionaries") {
		t.Error(err)
	}
	e.fails(ConvertRequest{Source: src, Targets: []Target{{Format: "dict", Dicts: []string{file + "-not"}}}}, abi.ErrNotFound)
	e.fails(ConvertRequest{Source: src, Targets: []Target{{Format: "dict", Dicts: []string{t.TempDir()}}}}, abi.ErrInvalid)
	changing := dictionaryReader()
	changing.name = "changing"
	convert := changing.convert
	changing.convert = func(ctx context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
		resp, err := convert(ctx, l)
		if werr := os.WriteFile(file, []byte("longer"), 0o600); werr != nil {
			return nil, werr
		}
		return resp, err
	}
	f := newEnv(t, []sdk.Plugin{changing}, WithJobs(1))
	one := s.Image(graphtest.Image{Layers: []graphtest.Layer{s.Layer(nil)}})
	if err := f.fails(ConvertRequest{Source: f.source(s, one), Targets: []Target{{Format: "changing", Dicts: []string{file}}}}, abi.ErrExists); !strings.Contains(err.Error(), "changed while it was used") {
		t.Error(err)
	}
}

// TestKeysOfDicts: layers with and without dictionaries, and with other ones, are never taken for each other.
func TestKeysOfDicts(t *testing.T) {
	infos := []abi.LayerInfo{{Digest: "sha256:a"}, {Digest: "sha256:b"}}
	seen := map[layerKey]bool{}
	for _, dicts := range [][]abi.PartInfo{nil, {{Digest: "sha256:d"}}, {{Digest: "sha256:e"}}, {{Digest: "sha256:d"}, {Digest: "sha256:e"}}} {
		for _, chained := range []bool{false, true} {
			keys := keysOf(infos, chained, dicts)
			if seen[keys[1]] {
				t.Errorf("%v, chained %v: a key comes twice", dicts, chained)
			}
			seen[keys[1]] = true
		}
	}
}

// TestTwoRegistries: from one registry, by digest, to another one that alone wants credentials.
func TestTwoRegistries(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	open := registryHost(t)
	handler := registryHandler(t)
	closed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "bob" || pass != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(closed.Close)
	host := strings.TrimPrefix(closed.URL, "http://")
	e := newEnv(t, []sdk.Plugin{&copier{}}, WithTransport(transport.Options{Retries: -1, Username: "bob", Password: "secret", CredentialsHost: host}))
	s := graphtest.NewStore()
	src := e.image(e.source(s, s.Index(s.Image(threeLayers(s)))))
	e.copyTo(src, src.Root, "docker://"+open+"/app:1")
	from, to := "docker://"+open+"/app@"+src.Root.Desc.Digest.String(), "docker://"+host+"/other/place:1"
	r := e.convert(from, "copy", to)
	_, err := e.Verify(t.Context(), VerifyRequest{Source: from, Converted: "docker://" + host + "/other/place@" + r.Root.Digest.String()})
	e.ok(err)
}
