package transport_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/transport"
)

// rangeSample is an image with one large blob.
func rangeSample(n int) (*sample, ocispec.Descriptor) {
	s := newSingle(n)
	large := s.order[0]
	for _, d := range s.order {
		if d.Size > large.Size {
			large = d
		}
	}
	return s, large
}

// readRanges reads a blob in random pieces, from several goroutines.
func readRanges(t *testing.T, src transport.Source, d ocispec.Descriptor, want []byte) {
	t.Helper()
	r, err := src.Ranges(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var wg sync.WaitGroup
	for seed := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 1))
			for range 40 {
				off := rnd.Int64N(d.Size + 1)
				p := make([]byte, rnd.IntN(400_000))
				n, err := r.ReadAt(p, off)
				rest := min(int64(len(p)), d.Size-off)
				if int64(n) != rest || !bytes.Equal(p[:n], want[off:off+rest]) || err != nil && err != io.EOF || (n < len(p)) != (err == io.EOF) {
					t.Errorf("%d bytes at %d: %d, %v", len(p), off, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestRanges(t *testing.T) {
	reg := startRegistry(t)
	s, large := rangeSample(3_000_000)
	dir := t.TempDir()
	for _, ref := range []string{"docker://" + reg.host + "/a:v1", "oci:" + dir + "/layout:v1", "oci-archive:" + dir + "/archive.tar:v1"} {
		s.write(t, ref, transport.Options{})
		src := openSource(t, ref, transport.Options{})
		readRanges(t, src, large, s.blobs[large.Digest])
		if loc := src.Location(large); strings.HasPrefix(ref, "oci-archive") != (loc == "") {
			t.Errorf("%s: the blob's location is %q", ref, loc)
		} else if u, err := url.Parse(loc); err != nil {
			t.Error(err)
		} else if b, err := os.ReadFile(u.Path); u.Scheme == "file" && (err != nil || !bytes.Equal(b, s.blobs[large.Digest])) {
			t.Errorf("%s: %s is not the blob: %v", ref, loc, err)
		}
		src.Close()
	}
}

// Only what is needed is asked for, once, and reading in order takes few requests.
func TestRangesAskForLittle(t *testing.T) {
	reg := startRegistry(t)
	s, large := rangeSample(8_000_000)
	ref := "docker://" + reg.host + "/a:v1"
	s.write(t, ref, transport.Options{})
	var requests, sent atomic.Int64
	reg.setFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, large.Digest.String()) && r.Method == http.MethodGet {
			requests.Add(1)
		}
		next.ServeHTTP(&counter{w, &sent}, r)
	})
	src := openSource(t, ref, transport.Options{})
	r, err := src.Ranges(t.Context(), large)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 3 {
		if _, err := r.ReadAt(make([]byte, 5000), 3_000_000); err != nil {
			t.Fatal(err)
		}
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("opening and reading one place took %d requests", n)
	}
	if n := sent.Load(); n > 300_000 {
		t.Errorf("%d bytes were sent for 5000", n)
	}
	if _, err := io.Copy(io.Discard, io.NewSectionReader(r, 0, large.Size)); err != nil {
		t.Fatal(err)
	}
	if n := requests.Load(); n > 20 {
		t.Errorf("reading %d bytes in order took %d requests", large.Size, n)
	}
	if n := sent.Load(); n > large.Size+200_000 {
		t.Errorf("%d bytes were sent for a blob of %d", n, large.Size)
	}
}

type counter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

func TestRangesFaults(t *testing.T) {
	reg := startRegistry(t)
	s, large := rangeSample(1_000_000)
	ref := "docker://" + reg.host + "/a:v1"
	s.write(t, ref, transport.Options{})
	ours := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.Path, large.Digest.String())
	}
	cases := map[string]struct {
		fault func(n int, w http.ResponseWriter, r *http.Request, next http.Handler)
		class abi.Class // 0: none
	}{
		"cut": {fault: func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n%2 == 1 {
				w = &cutter{w, 100_000}
			}
			next.ServeHTTP(w, r)
		}},
		"503": {fault: func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n%2 == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		}},
		"whole": {class: abi.ErrUnsupported, fault: func(_ int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Header.Del("Range")
			next.ServeHTTP(w, r)
		}},
		"other size": {class: abi.ErrDigest, fault: func(_ int, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			var from, to int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/77", from, to))
			w.WriteHeader(http.StatusPartialContent)
		}},
		"other range": {class: abi.ErrIO, fault: func(_ int, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-9/%d", large.Size))
			w.WriteHeader(http.StatusPartialContent)
		}},
		"denied": {class: abi.ErrDenied, fault: func(_ int, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusForbidden)
		}},
		"gone": {class: abi.ErrNotFound, fault: func(_ int, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusNotFound)
		}},
		"stalls": {class: abi.ErrTimeout, fault: func(_ int, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			var from, to int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, large.Size))
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			faults := perKey(c.fault)
			reg.setFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if ours(r) {
					faults(w, r, next)
					return
				}
				next.ServeHTTP(w, r)
			})
			opts := transport.Options{}
			if c.class != 0 {
				opts.Retries, opts.Stall = 1, 100*time.Millisecond
			}
			src := openSource(t, ref, opts)
			if c.class == 0 {
				readRanges(t, src, large, s.blobs[large.Digest])
				return
			}
			_, err := src.Ranges(t.Context(), large)
			wantClass(t, name, err, c.class)
		})
	}
}

// Ranges are asked for with the credentials of the reference, and refused without.
func TestRangesCredentials(t *testing.T) {
	for name, scheme := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){"basic": basicAuth, "token": tokenAuth} {
		t.Run(name, func(t *testing.T) {
			reg := startRegistry(t)
			reg.setFault(scheme)
			ref, login := "docker://"+reg.host+"/a:v1", transport.Options{Username: "me", Password: "secret"}
			s, large := rangeSample(500_000)
			s.write(t, ref, login)
			readRanges(t, openSource(t, ref, login), large, s.blobs[large.Digest])
			_, err := openSource(t, ref, transport.Options{}).Ranges(t.Context(), large)
			wantClass(t, "without credentials", err, abi.ErrDenied)
		})
	}
}

// After a failure the next read asks again.
func TestRangesRecover(t *testing.T) {
	reg := startRegistry(t)
	s, large := rangeSample(1_000_000)
	ref := "docker://" + reg.host + "/a:v1"
	s.write(t, ref, transport.Options{})
	src := openSource(t, ref, transport.Options{Retries: -1})
	r, err := src.Ranges(t.Context(), large)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	reg.setFault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(http.StatusInternalServerError)
	})
	p := make([]byte, 1000)
	if _, err := r.ReadAt(p, 0); err == nil {
		t.Error("a failing registry was read")
	}
	reg.setFault(nil)
	if _, err := r.ReadAt(p, 0); err != nil || !bytes.Equal(p, s.blobs[large.Digest][:1000]) {
		t.Errorf("second try: %v", err)
	}
}
