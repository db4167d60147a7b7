package host

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/olareg/olareg"
	olaconf "github.com/olareg/olareg/config"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/host/transport"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/sdk"
)

const demo = "oci:../testdata/demo/image:demo"

// registryHandler is a registry in this process.
func registryHandler(t testing.TB) http.Handler {
	reg := olareg.New(olaconf.Config{Storage: olaconf.ConfigStorage{StoreType: olaconf.StoreMem}, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { reg.Close() })
	return reg
}

// registryHost starts a registry and returns its address.
func registryHost(t testing.TB) string {
	t.Helper()
	srv := httptest.NewServer(registryHandler(t))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// oldRegistryHost is a registry that knows no referrers.
func oldRegistryHost(t testing.TB) string {
	t.Helper()
	reg := registryHandler(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/referrers/") {
			http.NotFound(w, r)
			return
		}
		rec := httptest.NewRecorder()
		reg.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			if k != "Oci-Subject" { // says that the registry keeps the list itself
				w.Header()[k] = v
			}
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// copyTo carries an image from one place to another as it is.
func (e *env) copyTo(i *image, n *graph.Node, dest string) {
	e.t.Helper()
	r, err := transport.ParseReference(dest)
	e.ok(err)
	tg, err := transport.OpenTarget(e.t.Context(), r, transport.Options{})
	e.ok(err)
	defer tg.Close()
	for _, d := range graph.Blobs(n) {
		e.ok(tg.Push(e.t.Context(), d, func() (io.ReadCloser, error) { return i.src.Fetch(e.t.Context(), d) }))
	}
	e.ok(tg.Publish(e.t.Context(), ocispec.Descriptor{MediaType: n.Desc.MediaType, Digest: n.Desc.Digest, Size: n.Desc.Size}))
}

// TestTransports: from every place to every place, the same root.
func TestTransports(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // nobody's real credentials
	e := newEnv(t, []sdk.Plugin{nydus.New()})
	reg := registryHost(t)
	d := e.image(demo)
	places := func(name string) []string {
		return []string{"oci:" + filepath.Join(e.dir, name) + ":v1", "oci-archive:" + filepath.Join(e.dir, name+".tar") + ":v1", "docker://" + reg + "/" + name + ":v1"}
	}
	sources := places("source")
	for _, s := range sources {
		e.copyTo(d, d.Root, s)
	}
	var want string
	for i, src := range sources {
		dests := places("out" + string(rune('a'+i)))
		var targets []Target
		for _, dst := range dests {
			targets = append(targets, Target{Format: "nydus", Dest: dst})
		}
		rs, err := e.Convert(t.Context(), ConvertRequest{Source: src, Targets: targets})
		e.ok(err)
		for j, r := range rs {
			if want == "" {
				want = r.Root.Digest.String()
			}
			same(t, src+" to "+dests[j], r.Root.Digest, want)
			same(t, "what is there", e.image(dests[j]).Root.Desc.Digest, want)
			vs, err := e.Verify(t.Context(), VerifyRequest{Source: src, Converted: dests[j]})
			e.ok(err)
			same(t, "verified", len(vs), 2)
		}
		e.empty(e.work)
	}
	t.Run("docker archive", func(t *testing.T) {
		e.t = t
		s := graphtest.NewStore()
		im := threeLayers(s)
		im.Docker = true
		plain := e.image(e.source(s, s.Image(im)))
		src := "docker-archive:" + filepath.Join(e.dir, "save.tar") + ":test/image:v1"
		e.copyTo(plain, plain.Root, src)
		res := e.convert(src, "nydus", e.ref("from-docker"))
		same(t, "layers", len(res.Manifests[0].Layers), 4)
		_, err := e.Verify(t.Context(), VerifyRequest{Source: src, Converted: e.ref("from-docker")})
		e.ok(err)
		_, err = e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "nydus", Dest: "docker-archive:" + filepath.Join(e.dir, "never.tar") + ":x:y"}}})
		if c := abi.ClassOf(err); c != abi.ErrUnsupported {
			t.Errorf("nydus into a docker archive: %v", err)
		}
	})
	t.Run("into the layout that is read", func(t *testing.T) {
		e.t = t
		res := e.convert(sources[0], "nydus", strings.TrimSuffix(sources[0], "v1")+"nydus")
		same(t, "root", res.Root.Digest, want)
		same(t, "source", e.image(sources[0]).Root.Desc.Digest, d.Root.Desc.Digest)
	})
	t.Run("over itself", func(t *testing.T) {
		e.t = t
		for _, s := range sources {
			same(t, "root", e.convert(s, "nydus", s).Root.Digest, want)
			same(t, "what is there", e.image(s).Root.Desc.Digest, want)
		}
	})
	t.Run("two tags of one layout", func(t *testing.T) {
		e.t = t
		dir := "oci:" + filepath.Join(e.dir, "tags")
		_, err := e.Convert(t.Context(), ConvertRequest{Source: demo, Targets: []Target{{Format: "nydus", Dest: dir + ":a"},
			{Format: "nydus", Dest: dir + ":b", Options: map[string]string{"compressor": "none"}}}})
		e.ok(err)
		a, b := e.image(dir+":a").Root.Desc.Digest, e.image(dir+":b").Root.Desc.Digest
		if a == b || a.String() != want {
			t.Errorf("%s and %s", a, b)
		}
	})
}
