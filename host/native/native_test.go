package native_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/native"
	"github.com/convhost/convhost/internal/session"
)

// start runs this test binary as a plugin.
func start(t testing.TB, edit func(*native.Config)) *native.Plugin {
	t.Helper()
	p, err := tryStart(t, edit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func tryStart(t testing.TB, edit func(*native.Config)) (*native.Plugin, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := native.Config{Path: exe, Name: "test", TempDir: t.TempDir()}
	if edit != nil {
		edit(&cfg)
	}
	p, err := native.Start(context.Background(), cfg)
	t.Cleanup(func() {
		if left, _ := os.ReadDir(cfg.TempDir); len(left) > 0 && cfg.TempDir != os.TempDir() {
			t.Errorf("left in the temporary directory: %v", left)
		}
	})
	return p, err
}

// planes are the two ways bytes travel.
var planes = []struct {
	name string
	edit func(*native.Config)
}{
	{"descriptors", nil},
	{"frames", func(c *native.Config) { c.NoDescriptors = true }},
}

func eachPlane(t *testing.T, f func(t *testing.T, p *native.Plugin)) {
	for _, pl := range planes {
		t.Run(pl.name, func(t *testing.T) { f(t, start(t, pl.edit)) })
	}
}

func do(ctx context.Context, p *native.Plugin, what string, g session.Config) (*abi.ConvertResponse, error) {
	g.Input = abi.RoleLayerStored
	if what == "entries" {
		g.Input = abi.RoleLayerEntries
	}
	req := abi.ConvertRequest{Options: map[string]string{"do": what}}
	b, err := p.Run(ctx, abi.OpConvertLayer, abi.Marshal(&req), g)
	if err != nil {
		return nil, err
	}
	resp := new(abi.ConvertResponse)
	return resp, abi.Unmarshal(b, resp)
}

// memorySinks collects outputs.
type memorySinks struct {
	mu      sync.Mutex
	bufs    map[int]*bytes.Buffer
	closed  map[int]abi.StreamInfo
	aborted map[int]bool
}

func (m *memorySinks) open(i int) (session.Sink, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bufs == nil {
		m.bufs, m.closed, m.aborted = map[int]*bytes.Buffer{}, map[int]abi.StreamInfo{}, map[int]bool{}
	}
	m.bufs[i] = new(bytes.Buffer)
	return &memorySink{m: m, i: i, Buffer: m.bufs[i]}, nil
}

type memorySink struct {
	*bytes.Buffer
	m *memorySinks
	i int
}

func (s *memorySink) Close(info abi.StreamInfo) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.closed[s.i] = info
	return nil
}

func (s *memorySink) Abort() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.aborted[s.i] = true
}

// layerBytes is a gzip layer of n files.
func layerBytes(t testing.TB, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.NoCompression)
	w := tar.NewWriter(z)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		body := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, r.Uint64()), r.IntN(20_000))
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d/f%d", i), Size: int64(len(body)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

func layerOf(b []byte, open func(context.Context) (io.ReadCloser, error)) *session.Layer {
	return &session.Layer{
		Open: open, MediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
		Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(b)), Size: int64(len(b)),
	}
}

func reader(b []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func fileOf(t testing.TB, b []byte) (string, func(context.Context) (io.ReadCloser, error)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, func(context.Context) (io.ReadCloser, error) { return os.Open(path) }
}

// A file and a stream, with and without descriptors: the outputs are the same bytes.
func TestConvertEntries(t *testing.T) {
	b := layerBytes(t, 60)
	_, file := fileOf(t, b)
	var want [2][]byte
	eachPlane(t, func(t *testing.T, p *native.Plugin) {
		for name, open := range map[string]func(context.Context) (io.ReadCloser, error){"file": file, "stream": reader(b)} {
			var out memorySinks
			var read int64
			resp, err := do(t.Context(), p, "entries", session.Config{
				Layer: layerOf(b, open), OpenSink: out.open, Read: func(n int) { read += int64(n) }})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if read != int64(len(b)) {
				t.Errorf("%s: reported %d bytes read, want %d", name, read, len(b))
			}
			for i := range want {
				got := out.bufs[i].Bytes()
				if want[i] == nil {
					want[i] = got
				}
				if !bytes.Equal(got, want[i]) || len(got) == 0 {
					t.Errorf("%s: output %d differs: %d bytes, want %d", name, i, len(got), len(want[i]))
				}
				if info := out.closed[i]; info.Size != int64(len(got)) || resp.Parts[i].Size != info.Size || info.SHA256 != sha256.Sum256(got) {
					t.Errorf("%s: output %d closed with %+v", name, i, info)
				}
			}
		}
	})
	if !strings.Contains(string(want[0]), "d/f59 ") {
		t.Errorf("list lacks the last file")
	}
}

func TestManySinks(t *testing.T) {
	eachPlane(t, func(t *testing.T, p *native.Plugin) {
		var out memorySinks
		if _, err := do(t.Context(), p, "sinks", session.Config{OpenSink: out.open, Limits: session.Limits{OutputBase: 1 << 30}}); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if got := out.bufs[i].Len(); got != 300*2000*i {
				t.Errorf("output %d has %d bytes", i, got)
			}
			if _, ok := out.closed[i]; !ok {
				t.Errorf("output %d was not closed", i)
			}
		}
	})
}

// memoryAt hides what it reads from.
type memoryAt struct{ r *bytes.Reader }

func (m memoryAt) ReadAt(p []byte, off int64) (int, error) { return m.r.ReadAt(p, off) }

func TestParts(t *testing.T) {
	b := bytes.Repeat([]byte("0123456789abcde"), 200_000)
	path, _ := fileOf(t, append([]byte("head"), b...))
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	for range 2 {
		for off := len(b); off > 0; {
			n := min(off, 700_001)
			off -= n
			sum.Write(b[off : off+n])
		}
	}
	eachPlane(t, func(t *testing.T, p *native.Plugin) {
		resp, err := do(t.Context(), p, "parts", session.Config{Parents: []session.Part{
			{At: io.NewSectionReader(f, 4, int64(len(b))), Size: int64(len(b))},
			{At: memoryAt{bytes.NewReader(b)}, Size: int64(len(b))},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(resp.State, sum.Sum(nil)) {
			t.Error("the parts read differently")
		}
	})
}

var errDisk = errors.New("disk is full")

type fullSink struct{ left int }

func (s *fullSink) Write(p []byte) (int, error) {
	if s.left -= len(p); s.left < 0 {
		return 0, errDisk
	}
	return len(p), nil
}
func (s *fullSink) Close(abi.StreamInfo) error { return errDisk }
func (s *fullSink) Abort()                     {}

// What fails here is what the caller sees.
func TestHostCauses(t *testing.T) {
	b := layerBytes(t, 30)
	brokenReader := func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(b[:len(b)/2]), errReader{})), nil
	}
	sinkOf := func(left int) func(int) (session.Sink, error) {
		return func(int) (session.Sink, error) { return &fullSink{left}, nil }
	}
	tests := []struct {
		name string
		g    session.Config
	}{
		{"open layer", session.Config{Layer: layerOf(b, func(context.Context) (io.ReadCloser, error) { return nil, errDisk }), OpenSink: new(memorySinks).open}},
		{"read layer", session.Config{Layer: layerOf(b, brokenReader), OpenSink: new(memorySinks).open}},
		{"open sink", session.Config{Layer: layerOf(b, reader(b)), OpenSink: func(int) (session.Sink, error) { return nil, errDisk }}},
		{"write sink", session.Config{Layer: layerOf(b, reader(b)), OpenSink: sinkOf(100_000)}},
		{"close sink", session.Config{Layer: layerOf(b, reader(b)), OpenSink: sinkOf(1 << 30)}},
	}
	eachPlane(t, func(t *testing.T, p *native.Plugin) {
		for _, test := range tests {
			_, err := do(t.Context(), p, "copy", test.g)
			if !errors.Is(err, errDisk) {
				t.Errorf("%s: %v", test.name, err)
			}
		}
		if _, err := do(t.Context(), p, "ok", session.Config{}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errDisk }

func TestPluginErrors(t *testing.T) {
	b := layerBytes(t, 5)
	lying := layerOf(b, reader(b))
	lying.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256(nil))
	cut := layerOf(b, reader(b[:len(b)-100]))
	eachPlane(t, func(t *testing.T, p *native.Plugin) {
		for _, test := range []struct {
			do   string
			g    session.Config
			want abi.Class
			text string
		}{
			{"fail", session.Config{}, abi.ErrCorrupt, "test at 0x3: word is no, want yes"},
			{"nothing", session.Config{}, abi.ErrUnsupported, "do what?"},
			{"copy", session.Config{OpenSink: new(memorySinks).open}, abi.ErrDenied, ""},
			{"foreign", session.Config{Parts: []session.Part{{At: memoryAt{}, Size: 1}}}, abi.ErrDenied, ""},
			{"open", session.Config{OpenSink: new(memorySinks).open}, abi.ErrPlugin, "left output 0 open"},
			{"copy", session.Config{Layer: lying, OpenSink: new(memorySinks).open}, abi.ErrDigest, "sha256"},
			{"copy", session.Config{Layer: cut, OpenSink: new(memorySinks).open}, abi.ErrCorrupt, ""},
			{"sinks", session.Config{OpenSink: new(memorySinks).open, Limits: session.Limits{OutputBase: 1000}}, abi.ErrLimit, "wrote"},
		} {
			_, err := do(t.Context(), p, test.do, test.g)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%s: %v (%v), want %v", test.do, err, abi.ClassOf(err), test.want)
			}
		}
	})
}

func TestCrashIsContained(t *testing.T) {
	eachPlane(t, func(t *testing.T, p *native.Plugin) {
		other := start(t, nil)
		for _, test := range []struct{ do, words string }{
			{"crash", "I am a bad plugin"}, {"exit", "exit status 0"}, {"exit", "leaving"},
		} {
			_, err := do(t.Context(), p, test.do, session.Config{})
			if !errors.Is(err, abi.ErrPlugin) || !strings.Contains(err.Error(), test.words) {
				t.Errorf("%s: %v, want %q", test.do, err, test.words)
			}
			for name, q := range map[string]*native.Plugin{"restarted": p, "other": other} {
				if _, err := do(t.Context(), q, "ok", session.Config{}); err != nil {
					t.Errorf("%s after %s: %v", name, test.do, err)
				}
			}
		}
	})
}

func TestCancel(t *testing.T) {
	eachPlane(t, func(t *testing.T, p *native.Plugin) {
		first, err := do(t.Context(), p, "ok", session.Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			do       string
			survives bool
		}{{"obey", true}, {"hang", false}} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			from := time.Now()
			_, err := do(ctx, p, test.do, session.Config{})
			if took := time.Since(from); !errors.Is(err, context.Canceled) || abi.ClassOf(err) != abi.ErrCanceled || took > 1100*time.Millisecond {
				t.Errorf("%s: %v after %v", test.do, err, took)
			}
			resp, err := do(t.Context(), p, "ok", session.Config{})
			if err != nil {
				t.Fatal(err)
			}
			if same := bytes.Equal(resp.State, first.State); same != test.survives {
				t.Errorf("%s: same process %v", test.do, same)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := do(ctx, p, "obey", session.Config{}); abi.ClassOf(err) != abi.ErrTimeout {
			t.Errorf("timeout: %v", err)
		}
	})
}

// A cancelled call does not wait for a layer that comes from nowhere.
func TestCancelWhileReading(t *testing.T) {
	eachPlane(t, func(t *testing.T, p *native.Plugin) {
		pr, pw := io.Pipe()
		defer pw.Close()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		from := time.Now()
		_, err := do(ctx, p, "copy", session.Config{
			Layer: &session.Layer{Open: func(context.Context) (io.ReadCloser, error) { return pr, nil }, Size: -1}, OpenSink: new(memorySinks).open})
		if took := time.Since(from); !errors.Is(err, context.Canceled) || took > 1100*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestConcurrentCalls(t *testing.T) {
	b := layerBytes(t, 40)
	_, file := fileOf(t, b)
	eachPlane(t, func(t *testing.T, p *native.Plugin) {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				var out memorySinks
				open := file
				if i%2 == 0 {
					open = reader(b)
				}
				if _, err := do(t.Context(), p, "copy", session.Config{Layer: layerOf(b, open), OpenSink: out.open}); err != nil {
					t.Error(err)
				} else if !bytes.Equal(out.bufs[0].Bytes(), b) {
					t.Error("copy differs")
				}
			})
		}
		wg.Wait()
	})
}

func TestStartErrors(t *testing.T) {
	exe, _ := os.Executable()
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("this is not a program"), 0o700); err != nil {
		t.Fatal(err)
	}
	mode := func(m string) func(*native.Config) {
		return func(c *native.Config) { c.Env = []string{"TEST_MODE=" + m}; c.StartTimeout = time.Second }
	}
	for _, test := range []struct {
		name string
		edit func(*native.Config)
		want abi.Class
		text string
	}{
		{"other major", mode("major"), abi.ErrUnsupported, "version 7 of the plugin contract, this host has version 1"},
		{"silent", mode("silent"), abi.ErrTimeout, "did not answer"},
		{"exits", mode("words"), abi.ErrPlugin, "cannot find my config"},
		{"checksum", func(c *native.Config) { c.SHA256 = strings.Repeat("0", 64) }, abi.ErrDigest, "want " + strings.Repeat("0", 64)},
		{"missing", func(c *native.Config) { c.Path = exe + "-not" }, abi.ErrNotFound, ""},
		{"directory", func(c *native.Config) { c.Path = filepath.Dir(exe) }, abi.ErrInvalid, ""},
		{"not a program", func(c *native.Config) { c.Path = text }, abi.ErrUnsupported, ""},
		{"not a plugin", func(c *native.Config) {
			c.Args = []string{"-test.run=^$"}
			c.Env = []string{"CONVHOST_PLUGIN="}
			c.Path = "/bin/true"
		}, abi.ErrPlugin, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := tryStart(t, test.edit)
			if err == nil {
				p.Close()
			}
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v (%v)", err, abi.ClassOf(err))
			}
		})
	}
}

func TestDigestAndIdentity(t *testing.T) {
	exe, _ := os.Executable()
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("sha256:%x", sha256.Sum256(b))
	p := start(t, func(c *native.Config) { c.SHA256 = want })
	if p.Digest() != want {
		t.Errorf("digest %s, want %s", p.Digest(), want)
	}
	resp, err := do(t.Context(), p, "env", session.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range strings.Split(string(resp.State), "\n") {
		if k, _, _ := strings.Cut(v, "="); k == "PATH" || k == "HOME" {
			t.Errorf("the plugin sees %s", v)
		}
	}
	p.Close()
	if _, err := do(t.Context(), p, "ok", session.Config{}); !errors.Is(err, abi.ErrInvalid) {
		t.Errorf("after Close: %v", err)
	}
}

// logLines is a slog handler that keeps what comes.
type logLines struct {
	mu  *sync.Mutex
	out *bytes.Buffer
}

func TestLogAndProgress(t *testing.T) {
	for _, pl := range planes {
		t.Run(pl.name, func(t *testing.T) {
			l := logLines{mu: new(sync.Mutex), out: new(bytes.Buffer)}
			log := slog.New(slog.NewTextHandler(&lockedWriter{l}, &slog.HandlerOptions{Level: slog.LevelDebug}))
			p := start(t, func(c *native.Config) {
				c.Log = log
				if pl.edit != nil {
					pl.edit(c)
				}
			})
			var last [2]int64
			if _, err := do(t.Context(), p, "log", session.Config{Log: log, Progress: func(d, n int64) { last = [2]int64{d, n} }}); err != nil {
				t.Fatal(err)
			}
			p.Close()
			if last != [2]int64{4, 4} {
				t.Errorf("last progress %v", last)
			}
			for _, want := range []string{
				`level=WARN msg="from the session"`, `level=ERROR msg="from hclog" plugin=test n=7`, `level=DEBUG msg="plain words" plugin=test`,
			} {
				if !strings.Contains(l.out.String(), want) {
					t.Errorf("no %q in\n%s", want, l.out)
				}
			}
		})
	}
}

type lockedWriter struct{ l logLines }

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	return w.l.out.Write(p)
}
