package session

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
)

var small = []member{{name: "d/"}, {name: "d/a", body: "hello"}, {name: "e/"}, {name: "e/b", body: "world"}, {name: "f/"}}

func input(s string) Part { return Part{At: strings.NewReader(s), Size: int64(len(s))} }

// TestGrants: only what was granted can be opened, in the form that was granted, and the layer once.
func TestGrants(t *testing.T) {
	full := func() Config {
		return Config{Layer: layerOf(t, makeTar(t, small...)), Input: abi.RoleLayerEntries,
			Parts: []Part{input("p")}, Parents: []Part{input("q"), input("r")}, Dicts: []Part{input("d")}}
	}
	for _, c := range []struct {
		name  string
		role  abi.Role
		index int
		class abi.Class
	}{
		{"entries", abi.RoleLayerEntries, 0, 0},
		{"another form", abi.RoleLayerTar, 0, abi.ErrDenied},
		{"stored form", abi.RoleLayerStored, 0, abi.ErrDenied},
		{"second layer", abi.RoleLayerEntries, 1, abi.ErrDenied},
		{"part", abi.RolePart, 0, 0},
		{"part beyond", abi.RolePart, 1, abi.ErrDenied},
		{"part -1", abi.RolePart, -1, abi.ErrDenied},
		{"parent", abi.RoleParent, 1, 0},
		{"parent beyond", abi.RoleParent, 2, abi.ErrDenied},
		{"dictionary", abi.RoleDict, 0, 0},
		{"dictionary beyond", abi.RoleDict, 9, abi.ErrDenied},
		{"sink as input", abi.RoleSink, 0, abi.ErrDenied},
		{"no role", 0, 0, abi.ErrDenied},
		{"unknown role", 99, 0, abi.ErrDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, full())
			h, err := s.Open(c.role, c.index)
			if c.class == 0 {
				ok(t, err)
				if h <= 0 {
					t.Errorf("handle %d", h)
				}
				return
			}
			want(t, err, c.class)
			_, again := s.Open(abi.RolePart, 0)
			same(t, "after a denial", again, err)
		})
	}
	t.Run("layer twice", func(t *testing.T) {
		s := start(t, full())
		must(s.Open(abi.RoleLayerEntries, 0))(t)
		_, err := s.Open(abi.RoleLayerEntries, 0)
		want(t, err, abi.ErrPlugin)
	})
	t.Run("nothing granted", func(t *testing.T) {
		s := New(t.Context(), Config{Pool: start(t, Config{}).cfg.Pool})
		defer s.Abort()
		_, err := s.OpenSink(0, abi.FilterNone, 0)
		want(t, err, abi.ErrDenied)
	})
	t.Run("part twice", func(t *testing.T) {
		s := start(t, full())
		a, b := must(s.Open(abi.RolePart, 0))(t), must(s.Open(abi.RolePart, 0))(t)
		if a == b {
			t.Error("two opens gave one handle")
		}
		must(s.Close(a))(t)
		if n := must(s.Size(b))(t); n != 1 {
			t.Errorf("size %d after the other handle was closed", n)
		}
	})
}

// TestHandles: a handle that is foreign, closed or of another kind is a fault of the plugin for every method.
func TestHandles(t *testing.T) {
	uses := map[string]func(s *bench, h abi.Handle) error{
		"Read":       func(s *bench, h abi.Handle) error { _, err := s.Read(h, make([]byte, 1)); return err },
		"ReadAt":     func(s *bench, h abi.Handle) error { _, err := s.ReadAt(h, make([]byte, 1), 0); return err },
		"Size":       func(s *bench, h abi.Handle) error { _, err := s.Size(h); return err },
		"Write":      func(s *bench, h abi.Handle) error { return s.Write(h, []byte("x")) },
		"Copy":       func(s *bench, h abi.Handle) error { _, err := s.Copy(h, 1, 0, 1); return err },
		"Copy from":  func(s *bench, h abi.Handle) error { _, err := s.Copy(2, h, 0, 1); return err },
		"Copy next":  func(s *bench, h abi.Handle) error { _, err := s.Copy(2, h, -1, 1); return err },
		"Info":       func(s *bench, h abi.Handle) error { _, err := s.Info(h); return err },
		"Close":      func(s *bench, h abi.Handle) error { _, err := s.Close(h); return err },
		"Entries":    func(s *bench, h abi.Handle) error { _, err := s.Entries(h, make([]byte, 1000), 0); return err },
		"NewPlan":    func(s *bench, h abi.Handle) error { _, err := s.NewPlan(&abi.PlanSpec{Sink: h}); return err },
		"JobStream":  func(s *bench, h abi.Handle) error { _, err := s.JobStream(h, 3, 1, 0); return err },
		"JobStream2": func(s *bench, h abi.Handle) error { _, err := s.JobStream(4, h, 1, 0); return err },
		"JobBytes":   func(s *bench, h abi.Handle) error { _, err := s.JobBytes(h, []byte("x"), 0); return err },
		"JobRange":   func(s *bench, h abi.Handle) error { return s.JobRange(h, 1, abi.Range{}, 0) },
		"JobRange2":  func(s *bench, h abi.Handle) error { return s.JobRange(4, h, abi.Range{}, 0) },
		"ClosePlan":  func(s *bench, h abi.Handle) error { _, err := s.ClosePlan(h); return err },
	}
	for name, use := range uses {
		for what, h := range map[string]abi.Handle{"zero": 0, "negative": -1, "foreign": 77, "closed": 5} {
			if name == "NewPlan" && h == 0 {
				continue // means no sink
			}
			t.Run(name+" "+what, func(t *testing.T) {
				s := start(t, Config{Layer: layerOf(t, makeTar(t, small...)), Input: abi.RoleLayerEntries, Parts: []Part{input("pp"), input("q")}})
				must(s.Open(abi.RolePart, 0))(t)                // 1
				must(s.OpenSink(0, abi.FilterNone, 0))(t)       // 2
				must(s.Open(abi.RoleLayerEntries, 0))(t)        // 3
				must(s.NewPlan(&abi.PlanSpec{Decode: true}))(t) // 4
				must(s.Open(abi.RolePart, 1))(t)                // 5
				must(s.Close(5))(t)
				err := use(s, h)
				want(t, err, abi.ErrPlugin)
				same(t, "sticky", s.Err(), err)
			})
		}
	}
	wrong := map[string]abi.Handle{"Read": 1, "ReadAt": 2, "Size": 4, "Write": 1, "Copy": 1, "Copy from": 4, "Copy next": 1, "Info": 1, "Close": 4,
		"Entries": 1, "NewPlan": 1, "JobStream": 1, "JobStream2": 1, "JobBytes": 2, "JobRange": 2, "JobRange2": 2, "ClosePlan": 2}
	for name, h := range wrong {
		t.Run(name+" of another kind", func(t *testing.T) {
			s := start(t, Config{Layer: layerOf(t, makeTar(t, small...)), Input: abi.RoleLayerEntries, Parts: []Part{input("pp")}})
			must(s.Open(abi.RolePart, 0))(t)
			must(s.OpenSink(0, abi.FilterNone, 0))(t)
			must(s.Open(abi.RoleLayerEntries, 0))(t)
			must(s.NewPlan(&abi.PlanSpec{Decode: true}))(t)
			want(t, uses[name](s, h), abi.ErrPlugin)
		})
	}
	t.Run("many, one after the other", func(t *testing.T) {
		s := start(t, Config{Parts: []Part{input("p")}})
		for range 3 * abi.MaxHandles {
			must(s.Close(must(s.Open(abi.RolePart, 0))(t)))(t)
		}
	})
	t.Run("too many open", func(t *testing.T) {
		s := start(t, Config{Parts: []Part{input("p")}})
		for range abi.MaxHandles {
			must(s.Open(abi.RolePart, 0))(t)
		}
		_, err := s.Open(abi.RolePart, 0)
		want(t, err, abi.ErrLimit)
	})
}

func TestSinks(t *testing.T) {
	t.Run("written, sized, digested", func(t *testing.T) {
		s := start(t, Config{})
		h := must(s.OpenSink(3, abi.FilterNone, 0))(t)
		ok(t, s.Write(h, []byte("ab")))
		ok(t, s.Write(h, nil))
		ok(t, s.Write(h, []byte("c")))
		soFar := must(s.Info(h))(t)
		ok(t, s.Write(h, []byte("d")))
		info := must(s.Close(h))(t)
		same(t, "so far", soFar, abi.StreamInfo{Size: 3, SHA256: sum([]byte("abc")), RawSize: 3, RawSHA256: sum([]byte("abc"))})
		same(t, "at the end", info, abi.StreamInfo{Size: 4, SHA256: sum([]byte("abcd")), RawSize: 4, RawSHA256: sum([]byte("abcd"))})
		ok(t, s.Finish())
		k := s.sinks[3]
		same(t, "content", k.buf.String(), "abcd")
		same(t, "totals told to the sink", k.info, info)
		if k.closed != 1 || k.aborted != 0 {
			t.Errorf("closed %d times, aborted %d times", k.closed, k.aborted)
		}
	})
	t.Run("empty", func(t *testing.T) {
		s := start(t, Config{})
		info := must(s.Close(must(s.OpenSink(0, abi.FilterNone, 0))(t)))(t)
		same(t, "totals", info, abi.StreamInfo{SHA256: sum(nil), RawSHA256: sum(nil)})
		ok(t, s.Finish())
	})
	t.Run("opened twice", func(t *testing.T) {
		s := start(t, Config{})
		must(s.Close(must(s.OpenSink(0, abi.FilterNone, 0))(t)))(t)
		_, err := s.OpenSink(0, abi.FilterNone, 0)
		want(t, err, abi.ErrPlugin)
	})
	t.Run("left open", func(t *testing.T) {
		s := start(t, Config{})
		must(s.OpenSink(1, abi.FilterNone, 0))(t)
		must(s.OpenSink(0, abi.FilterNone, 0))(t)
		err := s.Finish()
		want(t, err, abi.ErrPlugin)
		same(t, "which", err, "plugin left output 0 open")
		for i, k := range s.sinks {
			if k.closed != 0 || k.aborted != 1 {
				t.Errorf("output %d: closed %d times, aborted %d times", i, k.closed, k.aborted)
			}
		}
	})
	t.Run("over the count", func(t *testing.T) {
		s := start(t, Config{Limits: Limits{Sinks: 2}})
		must(s.OpenSink(1, abi.FilterNone, 0))(t)
		_, err := s.OpenSink(2, abi.FilterNone, 0)
		want(t, err, abi.ErrLimit)
	})
	t.Run("negative", func(t *testing.T) {
		_, err := start(t, Config{}).OpenSink(-1, abi.FilterNone, 0)
		want(t, err, abi.ErrDenied)
	})
	t.Run("a granted one that cannot be opened", func(t *testing.T) {
		cause := abi.Errorf(abi.ErrIO, "disk full")
		s := start(t, Config{OpenSink: func(int) (Sink, error) { return nil, cause }})
		_, err := s.OpenSink(0, abi.FilterNone, 0)
		same(t, "error", err, cause)
		want(t, s.Finish(), abi.ErrIO)
	})
	t.Run("close fails", func(t *testing.T) {
		k := &memSink{fail: abi.Errorf(abi.ErrIO, "disk full")}
		s := start(t, Config{OpenSink: func(int) (Sink, error) { return k, nil }})
		_, err := s.Close(must(s.OpenSink(0, abi.FilterNone, 0))(t))
		want(t, err, abi.ErrIO)
		want(t, s.Finish(), abi.ErrIO)
		if k.aborted != 1 {
			t.Errorf("aborted %d times", k.aborted)
		}
	})
	t.Run("write fails", func(t *testing.T) {
		k := &memSink{broken: errors.New("disk full")}
		s := start(t, Config{OpenSink: func(int) (Sink, error) { return k, nil }})
		h := must(s.OpenSink(0, abi.FilterNone, 0))(t)
		ok(t, s.Write(h, []byte("x"))) // it is on its way
		_, err := s.Close(h)
		want(t, err, abi.ErrIO)
		if err := s.Finish(); k.aborted != 1 || k.closed != 0 {
			t.Errorf("aborted %d times, closed %d times: %v", k.aborted, k.closed, err)
		}
	})
}

func TestFilters(t *testing.T) {
	body := bytes.Repeat([]byte("filtered bytes "), 20000)
	plain := map[abi.SinkFilter]func(b []byte) []byte{
		abi.FilterGzip: func(b []byte) []byte {
			r := bytes.NewReader(b)
			z := must(gzip.NewReader(r))(t)
			z.Multistream(false)
			if z.Name != "" || !z.ModTime.IsZero() {
				t.Errorf("gzip header has name %q, time %v", z.Name, z.ModTime)
			}
			out := must(io.ReadAll(z))(t)
			if r.Len() != 0 {
				t.Errorf("%d bytes after the member", r.Len())
			}
			return out
		},
		abi.FilterZstd: func(b []byte) []byte {
			z := must(zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1)))(t)
			defer z.Close()
			return must(io.ReadAll(z))(t)
		},
	}
	for filter, read := range plain {
		for _, level := range []int{0, 1, 9} {
			s := start(t, Config{})
			h := must(s.OpenSink(0, filter, level))(t)
			ok(t, s.Write(h, body[:1000]))
			soFar := must(s.Info(h))(t)
			ok(t, s.Write(h, body[1000:]))
			info := must(s.Close(h))(t)
			stored := s.sinks[0].buf.Bytes()
			if !bytes.Equal(read(stored), body) {
				t.Errorf("filter %d level %d does not give back what was written", filter, level)
			}
			same(t, "totals", info, abi.StreamInfo{Size: int64(len(stored)), SHA256: sum(stored), RawSize: int64(len(body)), RawSHA256: sum(body)})
			same(t, "raw side so far", []any{soFar.RawSize, soFar.RawSHA256}, []any{1000, sum(body[:1000])})
			ok(t, s.Finish())
		}
	}
	for name, c := range map[string]struct {
		filter abi.SinkFilter
		level  int
	}{"unknown": {9, 0}, "gzip level": {abi.FilterGzip, 10}, "zstd level": {abi.FilterZstd, 23}, "negative level": {abi.FilterGzip, -1}} {
		t.Run(name, func(t *testing.T) {
			s := start(t, Config{})
			_, err := s.OpenSink(0, c.filter, c.level)
			want(t, err, abi.ErrUnsupported)
			must(s.Close(must(s.OpenSink(0, abi.FilterNone, 0))(t)))(t) // a plugin may do without
			ok(t, s.Finish())
		})
	}
}

// TestPromises: what a layer promises is checked when the plugin stops early, too.
func TestPromises(t *testing.T) {
	tarred := makeTar(t, append(small, member{name: "big", body: strings.Repeat("0123456789", 100_000)})...)
	lies := map[string]struct {
		tell  func(l *Layer)
		class abi.Class
	}{
		"none":      {func(*Layer) {}, 0},
		"unknown":   {func(l *Layer) { l.Digest, l.Size, l.DiffID = "", -1, "" }, 0},
		"digest":    {func(l *Layer) { l.Digest = digest.FromString("x").String() }, abi.ErrDigest},
		"diff ID":   {func(l *Layer) { l.DiffID = digest.FromString("x").String() }, abi.ErrDigest},
		"smaller":   {func(l *Layer) { l.Size-- }, abi.ErrDigest},
		"larger":    {func(l *Layer) { l.Size++ }, abi.ErrTruncated},
		"malformed": {func(l *Layer) { l.DiffID = "sha256:xyz" }, abi.ErrInvalid},
		"unreadable": {func(l *Layer) {
			l.Open = func(context.Context) (io.ReadCloser, error) { return nil, abi.Errorf(abi.ErrIO, "gone") }
		}, abi.ErrIO},
	}
	reads := map[string]func(s *bench, h abi.Handle) error{
		"nothing": func(*bench, abi.Handle) error { return nil },
		"some":    func(s *bench, h abi.Handle) error { _, err := s.Read(h, make([]byte, 100)); return err },
		"closed":  func(s *bench, h abi.Handle) error { _, err := s.Close(h); return err },
		"entries": func(s *bench, h abi.Handle) error { _, err := s.Entries(h, make([]byte, 4096), 0); return err },
		"all": func(s *bench, h abi.Handle) error {
			for n := 1; n > 0; {
				var err error
				if n, err = s.Read(h, make([]byte, 1<<20)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for lie, l := range lies {
		for how, read := range reads {
			for _, role := range []abi.Role{abi.RoleLayerStored, abi.RoleLayerTar, abi.RoleLayerEntries} {
				if role == abi.RoleLayerStored && (lie == "diff ID" || lie == "malformed") || (how == "entries") != (role == abi.RoleLayerEntries) && how != "nothing" && how != "closed" {
					continue
				}
				cfg := Config{Layer: layerOf(t, tarred), Input: role}
				l.tell(cfg.Layer)
				s := start(t, cfg)
				h, err := s.Open(role, 0)
				if err == nil {
					err = read(s, h)
				}
				if err == nil {
					err = s.Finish()
				} else if fin := s.Finish(); fin == nil {
					t.Errorf("%s, read %s, role %d: Finish forgot %v", lie, how, role, err)
				}
				if abi.ClassOf(err) != l.class {
					t.Errorf("%s, read %s, role %d: %v, want class %d", lie, how, role, err, l.class)
				}
			}
		}
	}
	t.Run("never opened", func(t *testing.T) {
		s := start(t, Config{Layer: layerOf(t, tarred), Input: abi.RoleLayerTar})
		want(t, s.Finish(), abi.ErrPlugin)
	})
	t.Run("totals of the layer", func(t *testing.T) {
		stored := gz(t, tarred)
		for _, role := range []abi.Role{abi.RoleLayerStored, abi.RoleLayerTar, abi.RoleLayerEntries} {
			s := start(t, Config{Layer: layerOf(t, tarred), Input: role})
			info := must(s.Close(must(s.Open(role, 0))(t)))(t)
			w := abi.StreamInfo{Size: int64(len(stored)), SHA256: sum(stored), RawSize: int64(len(tarred)), RawSHA256: sum(tarred)}
			if role == abi.RoleLayerStored {
				w.RawSize, w.RawSHA256 = w.Size, w.SHA256
			}
			same(t, "totals", info, w)
			ok(t, s.Finish())
		}
	})
	t.Run("damaged", func(t *testing.T) {
		cfg := Config{Layer: layerOf(t, tarred), Input: abi.RoleLayerEntries}
		stored := gz(t, tarred)
		cut := stored[:len(stored)/2]
		cfg.Layer.Open = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(cut)), nil }
		s := start(t, cfg)
		must(s.Open(abi.RoleLayerEntries, 0))(t)
		if err := s.Finish(); !errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("%v, want corrupt", err)
		}
	})
}

// TestEnds: what ends an operation, and what that does to its outputs.
func TestEnds(t *testing.T) {
	t.Run("first error sticks", func(t *testing.T) {
		s := start(t, Config{Parts: []Part{input("x")}})
		h := must(s.OpenSink(0, abi.FilterNone, 0))(t)
		_, first := s.Open(abi.RolePart, 5)
		for _, err := range []error{s.Write(h, []byte("x")), s.Err(), s.Finish()} {
			same(t, "error", err, first)
		}
		_, err := s.Sum(abi.DigestSHA256, nil)
		same(t, "error", err, first)
		if k := s.sinks[0]; k.aborted != 1 || k.closed != 0 || k.buf.Len() != 0 {
			t.Errorf("aborted %d times, closed %d, wrote %d", k.aborted, k.closed, k.buf.Len())
		}
	})
	t.Run("not supported does not end it", func(t *testing.T) {
		s := start(t, Config{Layer: layerOf(t, makeTar(t)), Input: abi.RoleLayerStored})
		_, err := s.NewPlan(&abi.PlanSpec{Codec: 99})
		want(t, err, abi.ErrUnsupported)
		_, err = s.Encode(abi.CodecZstd, 99, nil, []byte("x"))
		want(t, err, abi.ErrUnsupported)
		_, err = s.Sum(99, nil)
		want(t, err, abi.ErrUnsupported)
		h := must(s.Open(abi.RoleLayerStored, 0))(t)
		_, err = s.Size(h)
		want(t, err, abi.ErrUnsupported)
		ok(t, s.Finish())
	})
	t.Run("abort", func(t *testing.T) {
		s := start(t, Config{})
		done := must(s.OpenSink(0, abi.FilterNone, 0))(t)
		must(s.Close(done))(t)
		must(s.OpenSink(1, abi.FilterGzip, 0))(t)
		s.Abort()
		s.Abort()
		if a, b := s.sinks[0], s.sinks[1]; a.aborted != 0 || b.aborted != 1 || b.closed != 0 {
			t.Errorf("complete one aborted %d times, open one %d times and closed %d times", a.aborted, b.aborted, b.closed)
		}
	})
	for name, c := range map[string]struct {
		end   func() (context.Context, context.CancelFunc)
		class abi.Class
	}{
		"canceled": {func() (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) }, abi.ErrCanceled},
		"with a cause": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(t.Context())
			return ctx, func() { cancel(abi.Errorf(abi.ErrCorrupt, "another layer is broken")) }
		}, abi.ErrCanceled},
		"late": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
			return ctx, func() { <-ctx.Done(); cancel() }
		}, abi.ErrTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := c.end()
			s := startWith(t, ctx, Config{Layer: layerOf(t, makeTar(t, small...)), Input: abi.RoleLayerTar})
			if c.class != abi.ErrTimeout {
				must(s.Open(abi.RoleLayerTar, 0))(t)
				must(s.OpenSink(0, abi.FilterNone, 0))(t)
			}
			cancel()
			_, err := s.Collect(make([]byte, 96), 1)
			want(t, err, c.class)
			want(t, s.Finish(), c.class)
			if k := s.sinks[0]; k != nil && k.aborted != 1 {
				t.Errorf("aborted %d times", k.aborted)
			}
		})
	}
	t.Run("canceled while a read is stuck", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cfg := Config{Layer: layerOf(t, makeTar(t, small...)), Input: abi.RoleLayerTar}
		cfg.Layer.Open = func(ctx context.Context) (io.ReadCloser, error) {
			r, w := io.Pipe()
			context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
			go w.Write(gz(t, makeTar(t, small...))[:20])
			return r, nil
		}
		s := startWith(t, ctx, cfg)
		h := must(s.Open(abi.RoleLayerTar, 0))(t)
		time.AfterFunc(20*time.Millisecond, cancel)
		begin := time.Now()
		var err error
		for err == nil {
			_, err = s.Read(h, make([]byte, 1000))
		}
		want(t, err, abi.ErrCanceled)
		if d := time.Since(begin); d > time.Second {
			t.Errorf("took %s", d)
		}
	})
}
