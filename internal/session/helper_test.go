package session

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memSink is an output in memory that knows how it ended.
type memSink struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	info    abi.StreamInfo
	closed  int
	aborted int
	fail    error // of Close
	broken  error // of Write
}

func (m *memSink) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return 0, m.broken
	}
	return m.buf.Write(p)
}

func (m *memSink) Close(info abi.StreamInfo) error {
	m.info = info
	m.closed++
	return m.fail
}

func (m *memSink) Abort() { m.aborted++ }

// member is one entry of a test layer.
type member struct {
	name, body string
	kind       byte // of archive/tar; 0: a file, or a directory if the name ends with a slash
	link       string
	xattrs     map[string]string
}

func makeTar(t testing.TB, ms ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range ms {
		h := &tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.body)), Typeflag: m.kind, Linkname: m.link, Format: tar.FormatPAX, PAXRecords: map[string]string{}}
		for k, v := range m.xattrs {
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

const gzipLayer = "application/vnd.oci.image.layer.v1.tar+gzip"

// layerOf makes the grant of a gzip layer that keeps its promises.
func layerOf(t testing.TB, tar []byte) *Layer {
	stored := gz(t, tar)
	return &Layer{
		Open:      func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(stored)), nil },
		MediaType: gzipLayer, Digest: digest.FromBytes(stored).String(), Size: int64(len(stored)), DiffID: digest.FromBytes(tar).String(),
	}
}

// bench is a session with its outputs.
type bench struct {
	*Session
	sinks map[int]*memSink
}

// start makes a session; what cfg does not say is made up. It is aborted at the end of the test.
func start(t testing.TB, cfg Config) *bench {
	t.Helper()
	return startWith(t, t.Context(), cfg)
}

func startWith(t testing.TB, ctx context.Context, cfg Config) *bench {
	t.Helper()
	if cfg.Pool == nil {
		cfg.Pool = accel.NewPool(2, 0)
		t.Cleanup(cfg.Pool.Close)
	}
	b := &bench{sinks: map[int]*memSink{}}
	if cfg.OpenSink == nil {
		cfg.OpenSink = func(i int) (Sink, error) {
			b.sinks[i] = &memSink{}
			return b.sinks[i], nil
		}
	}
	b.Session = New(ctx, cfg)
	t.Cleanup(b.Abort)
	return b
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

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want checks the class of an error and that it wraps only this one.
func want(t testing.TB, err error, c abi.Class) {
	t.Helper()
	if got := abi.ClassOf(err); got != c {
		t.Fatalf("error %v has class %q, want %q", err, got, c)
	}
	if n := classes(err); n > 1 {
		t.Fatalf("error %v wraps %d classes", err, n)
	}
}

// classes counts the classes that err wraps.
func classes(err error) (n int) {
	if _, is := err.(abi.Class); is {
		return 1
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return classes(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, x := range e.Unwrap() {
			n += classes(x)
		}
	}
	return n
}

func readAll(t testing.TB, s *bench, h abi.Handle) string {
	t.Helper()
	var out []byte
	p := make([]byte, 7)
	for {
		n, err := s.Read(h, p)
		ok(t, err)
		if n == 0 {
			return string(out)
		}
		out = append(out, p[:n]...)
	}
}

// batch asks for entries and decodes them.
func batch(t testing.TB, s *bench, h abi.Handle, size int, plan abi.Handle) (out []abi.Entry) {
	t.Helper()
	buf := make([]byte, size)
	n, err := s.Entries(h, buf, plan)
	ok(t, err)
	for rest := buf[:n]; len(rest) > 0; {
		var e abi.Entry
		rest, err = e.Decode(rest)
		ok(t, err)
		out = append(out, e)
	}
	return out
}

func names(es []abi.Entry) (out []string) {
	for _, e := range es {
		out = append(out, e.Path)
	}
	return out
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: %s, want %s", what, g, w)
	}
}

func sum(b []byte) [32]byte { return sha256.Sum256(b) }
