package transport_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/transport"
)

// registryServer is a registry in this process behind a handler that can make faults.
type registryServer struct {
	*httptest.Server
	host string

	mu    sync.Mutex
	fault func(w http.ResponseWriter, r *http.Request, next http.Handler) // nil: none
	seen  map[string]int                                                  // "METHOD path" → count
}

func startRegistry(t *testing.T, change ...func(*config.Config)) *registryServer {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // nobody's real credentials
	conf := config.Config{Storage: config.ConfigStorage{StoreType: config.StoreMem}, Log: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&conf)
	}
	reg := olareg.New(conf)
	s := &registryServer{seen: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen[r.Method+" "+r.URL.Path]++
		fault := s.fault
		s.mu.Unlock()
		if fault == nil {
			reg.ServeHTTP(w, r)
			return
		}
		fault(w, r, reg)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.host = u.Host
	t.Cleanup(func() {
		s.Close()
		reg.Close()
	})
	return s
}

func (s *registryServer) setFault(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// perKey calls f with the how-manieth request of that method and path this is, from 1.
func perKey(f func(n int, w http.ResponseWriter, r *http.Request, next http.Handler)) func(http.ResponseWriter, *http.Request, http.Handler) {
	var mu sync.Mutex
	count := map[string]int{}
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		key := r.Method + r.URL.Path
		if r.Method == http.MethodPut || r.Method == http.MethodPatch {
			key = r.Method // upload sessions have paths of their own
		}
		mu.Lock()
		count[key]++
		n := count[key]
		mu.Unlock()
		f(n, w, r, next)
	}
}

func TestRegistryRoundTrip(t *testing.T) {
	reg := startRegistry(t)
	s := newSample(100_000)
	ref := "docker://" + reg.host + "/a/b:v1"
	s.write(t, ref, transport.Options{})
	s.check(t, ref, transport.Options{})
	s.check(t, "docker://"+reg.host+"/a/b@"+s.root.Digest.String(), transport.Options{})
	s.write(t, ref, transport.Options{}) // again: nothing to upload
	uploads := 0
	for key, n := range reg.seen {
		if strings.HasPrefix(key, "POST ") {
			uploads += n
		}
	}
	blobs := 0
	for _, d := range s.order {
		if !strings.Contains(d.MediaType, "manifest") && !strings.Contains(d.MediaType, "index") {
			blobs++
		}
	}
	if uploads != blobs {
		t.Errorf("%d uploads for %d blobs", uploads, blobs)
	}
	src := openSource(t, ref, transport.Options{})
	if tags, err := src.Tags(t.Context()); err != nil || !slices.Equal(tags, []string{"v1"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
	src.Close()
	_, err := src.Resolve(t.Context())
	wantClass(t, "after close", err, abi.ErrInvalid)
}

func TestRegistryAbsent(t *testing.T) {
	reg := startRegistry(t)
	s := newSingle(10)
	s.write(t, "docker://"+reg.host+"/a:v1", transport.Options{})
	for _, name := range []string{"/a:v2", "/none:v1", "/a@sha256:" + hex64} {
		src := openSource(t, "docker://"+reg.host+name, transport.Options{})
		_, err := src.Resolve(t.Context())
		wantClass(t, name, err, abi.ErrNotFound)
		src.Close()
	}
	src := openSource(t, "docker://"+reg.host+"/a:v1", transport.Options{})
	defer src.Close()
	_, err := fetch(t.Context(), src, ocispec.Descriptor{Digest: "sha256:" + hex64, Size: 5})
	wantClass(t, "blob", err, abi.ErrNotFound)
	_, err = src.Fetch(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: "sha256:" + hex64, Size: 5 << 20})
	wantClass(t, "large document", err, abi.ErrLimit)
	blob := openSource(t, "docker://"+reg.host+"/a@"+s.order[0].Digest.String(), transport.Options{})
	defer blob.Close()
	_, err = blob.Resolve(t.Context())
	wantClass(t, "a blob as root", err, abi.ErrUnsupported)
	dst := openTarget(t, "docker://"+reg.host+"/a:v3", transport.Options{})
	defer dst.Close()
	wantClass(t, "publish what was not pushed", dst.Publish(t.Context(), newSample(20).root), abi.ErrNotFound)
	layer := s.order[0]
	layer.Digest = "sha256:" + hex64
	wantClass(t, "push other bytes", dst.Push(t.Context(), layer, s.opener(s.order[0])), abi.ErrDigest)
	if ok, err := dst.Has(t.Context(), layer); ok || err != nil {
		t.Errorf("has what was refused: %v, %v", ok, err)
	}
}

func TestRegistryFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(n int, w http.ResponseWriter, r *http.Request, next http.Handler)
	}{
		{"429 twice with Retry-After", func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n <= 2 {
				w.Header().Set("Retry-After", "0")
				http.Error(w, "slow down", http.StatusTooManyRequests)
				return
			}
			next.ServeHTTP(w, r)
		}},
		{"503 twice", func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n <= 2 {
				http.Error(w, "not now", http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		}},
		{"connection cut twice", func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n > 2 {
				next.ServeHTTP(w, r)
				return
			}
			io.CopyN(io.Discard, r.Body, 30_000)
			next.ServeHTTP(&cutter{ResponseWriter: w, left: 30_000}, r)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSample(400_000)
			// Push through the faults, read without; then the other way round.
			reg := sharedRegistry(t)
			ref := "docker://" + reg.host + "/a/b:v1"
			reg.setFault(perKey(c.fault))
			s.write(t, ref, transport.Options{})
			reg.setFault(nil)
			s.check(t, ref, transport.Options{})
			reg.setFault(perKey(c.fault))
			s.check(t, ref, transport.Options{})
		})
	}
}

// sharedRegistry is startRegistry for parallel tests, which may not change the environment.
func sharedRegistry(t *testing.T) *registryServer {
	t.Helper()
	reg := olareg.New(config.Config{Storage: config.ConfigStorage{StoreType: config.StoreMem}, Log: slog.New(slog.DiscardHandler)})
	s := &registryServer{seen: map[string]int{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		fault := s.fault
		s.mu.Unlock()
		if fault == nil {
			reg.ServeHTTP(w, r)
			return
		}
		fault(w, r, reg)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	s.host = strings.TrimPrefix(s.URL, "http://")
	t.Cleanup(func() {
		s.Close()
		reg.Close()
	})
	return s
}

// cutter ends the connection after some bytes of the answer.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		c.ResponseWriter.Write(p[:c.left])
		if f, ok := c.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

// flipper changes one byte of the answer.
type flipper struct {
	http.ResponseWriter
	off int
}

func (f *flipper) Write(p []byte) (int, error) {
	q := bytes.Clone(p)
	if f.off >= 0 && f.off < len(q) {
		q[f.off] ^= 1
	}
	f.off -= len(q)
	return f.ResponseWriter.Write(q)
}

func TestRegistryFlippedByte(t *testing.T) {
	reg := startRegistry(t)
	s := newSingle(400_000)
	ref := "docker://" + reg.host + "/a:v1"
	s.write(t, ref, transport.Options{})
	reg.setFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodGet {
			w = &flipper{ResponseWriter: w, off: 1000}
		}
		next.ServeHTTP(w, r)
	})
	src := openSource(t, ref, transport.Options{})
	defer src.Close()
	_, err := fetch(t.Context(), src, s.order[0])
	wantClass(t, "pull", err, abi.ErrDigest)

	// On push the registry notices, and the next try succeeds.
	other := newSingle(300_000)
	first := true
	reg.setFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/") && first {
			first = false
			b, _ := io.ReadAll(r.Body)
			b[len(b)/2] ^= 1
			r.Body = io.NopCloser(bytes.NewReader(b))
		}
		next.ServeHTTP(w, r)
	})
	other.write(t, "docker://"+reg.host+"/b:v1", transport.Options{})
	reg.setFault(nil)
	other.check(t, "docker://"+reg.host+"/b:v1", transport.Options{})
}

// TestRegistryStalls: a server that stops in the middle is left and asked again.
func TestRegistryStalls(t *testing.T) {
	reg := startRegistry(t)
	s := newSingle(8 << 20) // more than the kernel's socket buffers take
	opts := transport.Options{Stall: 200 * time.Millisecond}
	var stalls atomic.Int32
	reg.setFault(perKey(func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
		large := strings.Contains(r.URL.Path, "/blobs/") && (r.Method == http.MethodPut || r.Method == http.MethodGet)
		if !large || n > 1 || r.Method == http.MethodGet && !strings.Contains(r.URL.Path, s.order[0].Digest.String()) {
			next.ServeHTTP(w, r)
			return
		}
		stalls.Add(1)
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Length", strconv.Itoa(int(s.order[0].Size)))
			w.Write(s.blobs[s.order[0].Digest][:1000])
			w.(http.Flusher).Flush()
		}
		select {
		case <-r.Context().Done():
		case <-time.After(3 * time.Second): // nobody left
		}
		panic(http.ErrAbortHandler)
	}))
	ref := "docker://" + reg.host + "/a:v1"
	s.write(t, ref, opts)
	s.check(t, ref, opts)
	if stalls.Load() != 2 {
		t.Errorf("%d stalls, want 2", stalls.Load())
	}
}

func TestRegistryGivesUp(t *testing.T) {
	reg := startRegistry(t)
	s := newSingle(1000)
	s.write(t, "docker://"+reg.host+"/a:v1", transport.Options{})
	reg.setFault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		http.Error(w, "never", http.StatusServiceUnavailable)
	})
	src := openSource(t, "docker://"+reg.host+"/a:v1", transport.Options{Retries: 1})
	defer src.Close()
	_, err := src.Resolve(t.Context())
	wantClass(t, "resolve", err, abi.ErrIO)
	dst := openTarget(t, "docker://"+reg.host+"/a:v2", transport.Options{Retries: 1})
	defer dst.Close()
	wantClass(t, "push", dst.Push(t.Context(), s.order[0], s.opener(s.order[0])), abi.ErrIO)

	reg.setFault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Retry-After", "3600")
		http.Error(w, "later", http.StatusTooManyRequests)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = src.Resolve(ctx)
	if !errors.Is(err, abi.ErrTimeout) || time.Since(start) > 5*time.Second {
		t.Errorf("while waiting: %v after %v, want ErrTimeout at once", err, time.Since(start))
	}
}

func TestRegistryRetryAfterIsObeyed(t *testing.T) {
	reg := startRegistry(t)
	newSingle(1000).write(t, "docker://"+reg.host+"/a:v1", transport.Options{})
	var last time.Time
	var gap time.Duration
	reg.setFault(perKey(func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodHead && n == 1 {
			last = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		if r.Method == http.MethodHead && n == 2 {
			gap = time.Since(last)
		}
		next.ServeHTTP(w, r)
	}))
	src := openSource(t, "docker://"+reg.host+"/a:v1", transport.Options{})
	defer src.Close()
	if _, err := src.Resolve(t.Context()); err != nil || gap < 950*time.Millisecond {
		t.Errorf("the second try came after %v, want 1s; %v", gap, err)
	}
}

func TestRegistryMountAndSubject(t *testing.T) {
	reg := startRegistry(t)
	s := newSingle(50_000)
	s.write(t, "docker://"+reg.host+"/from:v1", transport.Options{})
	reg.mu.Lock()
	clear(reg.seen)
	reg.mu.Unlock()
	s.write(t, "docker://"+reg.host+"/to:v1", transport.Options{MountFrom: []string{"absent", "from"}})
	s.check(t, "docker://"+reg.host+"/to:v1", transport.Options{})
	for key := range reg.seen {
		if strings.HasPrefix(key, "PUT /v2/to/blobs/") {
			t.Errorf("a blob was uploaded though it could be mounted: %s", key)
		}
	}
}

// TestRegistryFallbackTag: where the registry has no referrers API, the index of referrers is kept under a tag.
func TestRegistryFallbackTag(t *testing.T) {
	off := false
	reg := startRegistry(t, func(c *config.Config) { c.API.Referrer.Enabled = &off })
	s := newSingle(100)
	s.write(t, "docker://"+reg.host+"/a:v1", transport.Options{})
	subject := s.root
	empty := s.add(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	s.root = s.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example", Config: empty, Layers: []ocispec.Descriptor{empty}, Subject: &subject})
	s.write(t, "docker://"+reg.host+"/a:v2", transport.Options{})
	src := openSource(t, "docker://"+reg.host+"/a:"+strings.Replace(subject.Digest.String(), ":", "-", 1), transport.Options{})
	defer src.Close()
	d, err := src.Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := fetch(t.Context(), src, d)
	var idx ocispec.Index
	if err != nil || json.Unmarshal(b, &idx) != nil || len(idx.Manifests) != 1 || idx.Manifests[0].Digest != s.root.Digest {
		t.Errorf("index of referrers: %s, %v", b, err)
	}
}

// basicAuth lets only me with my secret in. (The registry's own check is slow on purpose.)
func basicAuth(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if u, p, ok := r.BasicAuth(); !ok || u != "me" || p != "secret" {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
		return
	}
	next.ServeHTTP(w, r)
}

// tokenAuth is the other scheme: a token for a scope, bought with name and password.
func tokenAuth(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if r.URL.Path == "/token" {
		user, password, _ := r.BasicAuth()
		if r.Method == http.MethodPost {
			user, password = r.PostFormValue("username"), r.PostFormValue("password")
		}
		if user != "me" || password != "secret" {
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		io.WriteString(w, `{"token":"good","access_token":"good","expires_in":300}`)
		return
	}
	if r.Header.Get("Authorization") != "Bearer good" {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="test",scope="repository:a:pull,push"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
		return
	}
	next.ServeHTTP(w, r)
}

func TestRegistryCredentials(t *testing.T) {
	for name, scheme := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){"basic": basicAuth, "token": tokenAuth} {
		t.Run(name, func(t *testing.T) {
			reg := startRegistry(t)
			reg.setFault(scheme)
			testCredentials(t, "docker://"+reg.host+"/a:v1", reg.host)
		})
	}
}

func testCredentials(t *testing.T, ref, host string) {
	s := newSingle(1000)
	login := transport.Options{Username: "me", Password: "secret"}
	s.write(t, ref, login)
	s.check(t, ref, login)
	login.CredentialsHost = host
	s.check(t, ref, login)
	for name, o := range map[string]transport.Options{"none": {}, "wrong": {Username: "me", Password: "guess"},
		"those of another host": {Username: "me", Password: "secret", CredentialsHost: "r.example"}} {
		src := openSource(t, ref, o)
		_, err := src.Resolve(t.Context())
		wantClass(t, "pull with "+name, err, abi.ErrDenied)
		src.Close()
		dst := openTarget(t, ref, o)
		wantClass(t, "push with "+name, dst.Push(t.Context(), s.order[0], s.opener(s.order[0])), abi.ErrDenied)
		dst.Close()
	}
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(`{"auths":{"`+host+`":{"auth":"bWU6c2VjcmV0"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.check(t, ref, transport.Options{AuthFile: file})
	_, err := transport.OpenSource(t.Context(), parse(t, ref), transport.Options{AuthFile: file + ".absent"})
	wantClass(t, "absent file", err, abi.ErrNotFound)
}

// TestRegistryCredentialsStayHome: a redirect to another host gets no credentials.
func TestRegistryCredentialsStayHome(t *testing.T) {
	reg := startRegistry(t)
	reg.setFault(basicAuth)
	s := newSingle(1000)
	login := transport.Options{Username: "me", Password: "secret"}
	s.write(t, "docker://"+reg.host+"/a:v1", login)
	var leaked, asked bool
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = true
		leaked = leaked || r.Header.Get("Authorization") != ""
		w.Write(s.blobs[s.order[0].Digest])
	}))
	defer other.Close()
	away := strings.Replace(other.URL, "127.0.0.1", "localhost", 1) // another host name
	reg.setFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, s.order[0].Digest.String()) {
			http.Redirect(w, r, away+"/cdn", http.StatusTemporaryRedirect)
			return
		}
		basicAuth(w, r, next)
	})
	src := openSource(t, "docker://"+reg.host+"/a:v1", login)
	defer src.Close()
	got, err := fetch(t.Context(), src, s.order[0])
	if err != nil || !bytes.Equal(got, s.blobs[s.order[0].Digest]) {
		t.Errorf("through a redirect: %v", err)
	}
	if !asked || leaked {
		t.Errorf("redirect followed %v, credentials leaked %v", asked, leaked)
	}
	asked = false // nor do descriptor urls lead anywhere
	d := s.order[1]
	d.URLs = []string{other.URL + "/evil"}
	if _, err := fetch(t.Context(), src, d); err != nil || asked {
		t.Errorf("descriptor urls: %v, asked %v", err, asked)
	}
}

func TestRegistryTLS(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	reg := olareg.New(config.Config{Storage: config.ConfigStorage{StoreType: config.StoreMem}, Log: slog.New(slog.DiscardHandler)})
	defer reg.Close()
	srv := httptest.NewUnstartedServer(reg)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	ref := "docker://" + strings.TrimPrefix(srv.URL, "https://") + "/a:v1"
	s := newSingle(1000)
	s.write(t, ref, transport.Options{InsecureTLS: true})
	s.check(t, ref, transport.Options{HTTP: srv.Client().Transport})
	src := openSource(t, ref, transport.Options{Retries: -1})
	defer src.Close()
	_, err := src.Resolve(t.Context())
	wantClass(t, "unknown certificate", err, abi.ErrIO)
	_, err = transport.OpenSource(t.Context(), parse(t, ref), transport.Options{CAFiles: []string{filepath.Join(t.TempDir(), "absent")}})
	wantClass(t, "absent CA", err, abi.ErrNotFound)
}

// TestTransportsAgree copies an index of two platforms through all transports in a row: same bytes at the end.
func TestTransportsAgree(t *testing.T) {
	reg := startRegistry(t)
	dir := t.TempDir()
	s := newSample(50_000)
	refs := []string{"oci:" + filepath.Join(dir, "a") + ":v1", "oci-archive:" + filepath.Join(dir, "b.tar") + ":v1",
		"docker://" + reg.host + "/c:v1", "oci:" + filepath.Join(dir, "d") + ":v1"}
	s.write(t, refs[0], transport.Options{})
	for i := range refs[1:] {
		src, dst := openSource(t, refs[i], transport.Options{}), openTarget(t, refs[i+1], transport.Options{})
		root, err := src.Resolve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range s.order {
			if err := dst.Push(t.Context(), d, func() (io.ReadCloser, error) { return src.Fetch(t.Context(), d) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := dst.Publish(t.Context(), root); err != nil {
			t.Fatal(err)
		}
		dst.Close()
		src.Close()
		s.check(t, refs[i+1], transport.Options{})
	}
	a, b := tree(t, filepath.Join(dir, "a")), tree(t, filepath.Join(dir, "d"))
	if !slices.Equal(a, b) {
		t.Errorf("%v\n%v", a, b)
	}
}
