package host

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/plugins/overlaybd"
)

// traffic counts what a registry is asked for.
type traffic struct {
	next http.Handler

	mu      sync.Mutex
	mounts  int
	sent    int64 // bytes of blobs
	fetched int
	opened  int // uploads
	ended   int // uploads that were given up
	paths   []string
}

func (c *traffic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	blob := strings.Contains(r.URL.Path, "/blobs/")
	switch {
	case r.URL.Query().Has("mount"):
		c.mounts++
	case r.Method == http.MethodPost && blob:
		c.opened++
	case r.Method == http.MethodDelete && blob:
		c.ended++
	case r.Method == http.MethodPut && blob, r.Method == http.MethodPatch:
		c.sent += max(r.ContentLength, 0)
	case r.Method == http.MethodGet && blob:
		c.fetched++
	}
	c.paths = append(c.paths, r.Method+" "+r.URL.Path)
	c.mu.Unlock()
	c.next.ServeHTTP(w, r)
}

func (c *traffic) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := fmt.Sprintf("%d mounts, %d bytes sent, %d fetched", c.mounts, c.sent, c.fetched)
	c.mounts, c.sent, c.fetched, c.opened, c.ended, c.paths = 0, 0, 0, 0, 0, nil
	return s
}

func countedRegistry(t *testing.T) (*traffic, string) {
	t.Helper()
	c := &traffic{next: registryHandler(t)}
	srv := httptest.NewServer(c)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(srv.Close)
	return c, strings.TrimPrefix(srv.URL, "http://")
}

// TestReuseRegistry: blobs that a registry has in another repository are mounted, not sent; other registries are not asked.
func TestReuseRegistry(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for format, plugin := range formats() {
		t.Run(format, func(t *testing.T) {
			e, c := reusing(t, plugin(), openStore(t))
			lent := 0 // layers of the source that the result refers to
			if format == "turboci" {
				lent = 3
			}
			reg, host := countedRegistry(t)
			s := graphtest.NewStore()
			im := threeLayers(s)
			src := e.source(s, s.Image(im))
			first := e.convert(src, format, "docker://"+host+"/team/a:v1")
			layers := len(first.Manifests[0].Layers)
			config := e.image("docker://" + host + "/team/a:v1").Root.ConfigNode().Desc.Size
			convert := func(src, dest string) Result {
				t.Helper()
				rs, err := e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: format, Dest: dest}}})
				e.ok(err)
				return rs[0]
			}
			c.calls()
			reg.take()
			convert(src, "docker://"+host+"/team/a:v2")
			same(t, "same repository", []string{c.calls(), reg.take()}, []string{"0 converted, 0 merged", "0 mounts, 0 bytes sent, 0 fetched"})
			convert(src, "docker://"+host+"/team/b:v1")
			same(t, "another repository", []string{c.calls(), reg.take()},
				[]string{"0 converted, 0 merged", fmt.Sprintf("%d mounts, %d bytes sent, 0 fetched", layers+lent, config)})
			convert(src, "docker://"+host+"/team/b:v1")
			same(t, "which has them now", []string{c.calls(), reg.take()}, []string{"0 converted, 0 merged", "0 mounts, 0 bytes sent, 0 fetched"})

			im.Layers = append(slices.Clone(im.Layers), s.Layer(map[string]string{"top": "x"}))
			more := e.source(s, s.Image(im))
			res := e.convert(more, format, "docker://"+host+"/team/c:v1") // verified
			same(t, "layers converted", c.converted.Swap(0), 1)
			plain, _ := reusing(t, plugin(), nil)
			same(t, "root", res.Root, plain.convert(more, format, plain.ref("out")).Root)

			reg.take()
			_, away := countedRegistry(t)
			convert(src, "docker://"+away+"/team/a:v1")
			same(t, "another registry: calls", c.converted.Swap(0), 3)
			same(t, "the first one was asked", len(reg.paths), 0)
		})
	}
}

// TestReuseFromSourceRegistry: what the registry of the source has is fetched for a target that is elsewhere.
func TestReuseFromSourceRegistry(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	e, c := reusing(t, overlaybd.New(), openStore(t))
	reg, host := countedRegistry(t)
	d := e.image(demo)
	src := "docker://" + host + "/team/app:v1"
	e.copyTo(d, d.Root, src)
	first := e.convert(src, "overlaybd", "docker://"+host+"/team/app-obd:v1")
	c.calls()
	reg.take()
	res, err := e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "overlaybd", Dest: e.ref("out")}}})
	e.ok(err)
	same(t, "calls", c.calls(), "0 converted, 0 merged")
	same(t, "root", res[0].Root, first.Root)
	for _, p := range reg.paths {
		if strings.HasPrefix(p, "GET /v2/team/app/blobs/") && !strings.Contains(p, d.Root.Manifests()[0].ConfigNode().Desc.Digest.String()) &&
			!strings.Contains(p, d.Root.Manifests()[1].ConfigNode().Desc.Digest.String()) {
			t.Errorf("a layer of the source was read: %s", p)
		}
	}
	e.convert(src, "overlaybd", e.ref("again")) // verified
	same(t, "calls", c.calls(), "0 converted, 0 merged")
}

// TestMountLent: layers of the source that the result refers to are mounted from the source's repository.
func TestMountLent(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	e, _ := reusing(t, overlaybd.NewTurbo(), nil)
	reg, host := countedRegistry(t)
	d := e.image(demo)
	e.copyTo(d, d.Root, "docker://"+host+"/team/app:v1")
	reg.take()
	res := e.convert("docker://"+host+"/team/app:v1", "turboci", "docker://"+host+"/team/app-turbo:v1")
	var made int64
	seen := map[digest.Digest]bool{}
	for _, m := range res.Manifests {
		for _, l := range m.Layers {
			if !seen[l.Converted.Digest] {
				seen[l.Converted.Digest] = true
				made += l.Converted.Size
			}
		}
	}
	reg.mu.Lock()
	defer reg.mu.Unlock()
	if config := int64(4096); reg.mounts < 2 || reg.sent < made || reg.sent > made+config {
		t.Errorf("%d mounts, %d bytes were sent, %d are new", reg.mounts, reg.sent, made)
	}
}

// TestReuseMountRefused: a registry that mounts nothing gets the bytes, and no upload stays open.
func TestReuseMountRefused(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	reg := &traffic{}
	next := registryHandler(t)
	reg.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("mount") {
			r.URL.RawQuery = "" // an upload like any other
		}
		next.ServeHTTP(w, r)
	})
	srv := httptest.NewServer(reg)
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	e, c := reusing(t, nydus.New(), openStore(t))
	s := graphtest.NewStore()
	src := e.source(s, s.Image(threeLayers(s)))
	first := e.convert(src, "nydus", "docker://"+host+"/a:v1")
	c.calls()
	reg.take()
	res := e.convert(src, "nydus", "docker://"+host+"/b:v1")
	same(t, "calls", c.calls(), "0 converted, 0 merged")
	same(t, "root", res.Root, first.Root)
	if reg.mounts == 0 || reg.ended != reg.mounts {
		t.Errorf("%d mounts were tried, %d uploads ended", reg.mounts, reg.ended)
	}
	same(t, "what is there", e.image("docker://"+host+"/b:v1").Root.Desc.Digest, first.Root.Digest)
}
