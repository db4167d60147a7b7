package session

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
)

func TestReadAt(t *testing.T) {
	open := func(t *testing.T) (*bench, abi.Handle) {
		s := start(t, Config{Parts: []Part{input("0123456789")}})
		return s, must(s.Open(abi.RolePart, 0))(t)
	}
	for _, c := range []struct {
		off  int64
		n    int
		want string
	}{{0, 4, "0123"}, {8, 4, "89"}, {10, 4, ""}, {3, 0, ""}, {0, 10, "0123456789"}} {
		s, h := open(t)
		p := make([]byte, c.n)
		n, err := s.ReadAt(h, p, c.off)
		ok(t, err)
		same(t, fmt.Sprintf("%d at %d", c.n, c.off), string(p[:n]), c.want)
	}
	for _, off := range []int64{-1, 11} {
		s, h := open(t)
		_, err := s.ReadAt(h, make([]byte, 1), off)
		want(t, err, abi.ErrPlugin)
	}
	t.Run("the input is shorter than it was said", func(t *testing.T) {
		s := start(t, Config{Parts: []Part{{At: strings.NewReader("abc"), Size: 10}}})
		_, err := s.ReadAt(must(s.Open(abi.RolePart, 0))(t), make([]byte, 5), 0)
		want(t, err, abi.ErrTruncated)
	})
	t.Run("totals", func(t *testing.T) {
		s, h := open(t)
		same(t, "info", must(s.Close(h))(t), abi.StreamInfo{Size: 10})
	})
	t.Run("stored layer", func(t *testing.T) {
		tarred := makeTar(t, small...)
		stored := gz(t, tarred)
		cfg := Config{Layer: layerOf(t, tarred), Input: abi.RoleLayerStored}
		cfg.Layer.At = bytes.NewReader(stored)
		s := start(t, cfg)
		h := must(s.Open(abi.RoleLayerStored, 0))(t)
		p := make([]byte, 10)
		must(s.ReadAt(h, p, 5))(t)
		same(t, "bytes", p, stored[5:15])
		same(t, "size", must(s.Size(h))(t), len(stored))
		plan := must(s.NewPlan(&abi.PlanSpec{Decode: true, Codec: abi.CodecGzip, Sink: must(s.OpenSink(0, abi.FilterNone, 0))(t)}))(t)
		ok(t, s.JobRange(plan, h, abi.Range{CLen: len(stored), ULen: len(tarred), N: -1}, 0))
		must(s.ClosePlan(plan))(t)
		must(s.Close(2))(t)
		if !bytes.Equal(s.sinks[0].buf.Bytes(), tarred) {
			t.Error("the range did not give the tar")
		}
		ok(t, s.Finish())
	})
}

func TestCopy(t *testing.T) {
	tarred := makeTar(t, small...)
	cases := []struct {
		name   string
		role   abi.Role
		off, n int64
		want   string
		class  abi.Class
	}{
		{"part", abi.RolePart, 2, 3, "234", 0},
		{"part to its end", abi.RolePart, 7, -1, "789", 0},
		{"part at its end", abi.RolePart, 10, -1, "", 0},
		{"nothing", abi.RolePart, 4, 0, "", 0},
		{"part beyond its end", abi.RolePart, 8, 3, "", abi.ErrPlugin},
		{"part from beyond", abi.RolePart, 11, -1, "", abi.ErrPlugin},
		{"part as a sequence", abi.RolePart, -1, 3, "", abi.ErrPlugin},
		{"tar", abi.RoleLayerTar, -1, 700, string(tarred[:700]), 0},
		{"whole tar", abi.RoleLayerTar, -1, -1, string(tarred), 0},
		{"tar beyond its end", abi.RoleLayerTar, -1, 1 << 30, string(tarred), 0},
		{"tar at an offset", abi.RoleLayerTar, 5, 1, "", abi.ErrUnsupported},
		{"stored", abi.RoleLayerStored, -1, -1, string(gz(t, tarred)), 0},
		{"no body yet", abi.RoleLayerEntries, -1, -1, "", 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, Config{Layer: layerOf(t, tarred), Input: c.role, Parts: []Part{input("0123456789")}})
			dst, src := must(s.OpenSink(0, abi.FilterNone, 0))(t), must(s.Open(c.role, 0))(t)
			if c.role == abi.RolePart {
				s.cfg.Layer = nil
			}
			n, err := s.Copy(dst, src, c.off, c.n)
			if c.class != 0 {
				want(t, err, c.class)
				return
			}
			ok(t, err)
			must(s.Close(dst))(t)
			if got := s.sinks[0].buf.String(); got != c.want || n != int64(len(c.want)) {
				t.Errorf("%d bytes %.50q, want %d", n, got, len(c.want))
			}
			ok(t, s.Finish())
		})
	}
	t.Run("body of an entry", func(t *testing.T) {
		s := start(t, Config{Layer: layerOf(t, tarred), Input: abi.RoleLayerEntries})
		dst, src := must(s.OpenSink(0, abi.FilterNone, 0))(t), must(s.Open(abi.RoleLayerEntries, 0))(t)
		same(t, "entries", names(batch(t, s, src, 4096, 0)), "[d d/a]")
		same(t, "moved", must(s.Copy(dst, src, -1, -1))(t), 5)
		same(t, "moved after the body", must(s.Copy(dst, src, -1, -1))(t), 0)
		same(t, "entries", names(batch(t, s, src, 4096, 0)), "[e e/b]")
		same(t, "moved", must(s.Copy(dst, src, -1, 2))(t), 2)
		must(s.Close(dst))(t)
		same(t, "output", s.sinks[0].buf.String(), "hellowo")
		ok(t, s.Finish())
	})
	t.Run("broken input", func(t *testing.T) {
		s := start(t, Config{Parts: []Part{{At: strings.NewReader("abc"), Size: 10}}})
		dst, src := must(s.OpenSink(0, abi.FilterNone, 0))(t), must(s.Open(abi.RolePart, 0))(t)
		_, err := s.Copy(dst, src, 0, 10)
		want(t, err, abi.ErrTruncated)
	})
}

// TestEntriesManual: a batch ends with the first file that has a body; the body is that entry's and nobody else's.
func TestEntriesManual(t *testing.T) {
	open := func(t *testing.T, ms ...member) (*bench, abi.Handle) {
		s := start(t, Config{Layer: layerOf(t, makeTar(t, ms...)), Input: abi.RoleLayerEntries})
		return s, must(s.Open(abi.RoleLayerEntries, 0))(t)
	}
	t.Run("bodies read, in part, skipped", func(t *testing.T) {
		s, h := open(t, append(small, member{name: "g", body: "tail"}, member{name: "empty"}, member{name: "z", kind: tar.TypeSymlink, link: "g"})...)
		same(t, "before the first entry", readAll(t, s, h), "")
		same(t, "1", names(batch(t, s, h, 4096, 0)), "[d d/a]")
		same(t, "body", readAll(t, s, h), "hello")
		same(t, "body again", readAll(t, s, h), "")
		same(t, "2", names(batch(t, s, h, 4096, 0)), "[e e/b]")
		must(s.Read(h, make([]byte, 2)))(t)
		same(t, "3", names(batch(t, s, h, 4096, 0)), "[f g]")
		same(t, "4, without the body of 3", names(batch(t, s, h, 4096, 0)), "[empty z]")
		same(t, "body of none", readAll(t, s, h), "")
		for range 2 {
			same(t, "end", len(batch(t, s, h, 4096, 0)), 0)
		}
		ok(t, s.Finish())
	})
	t.Run("buffer for one record", func(t *testing.T) {
		s, h := open(t, small...)
		var got []string
		for {
			es := batch(t, s, h, 104, 0)
			if len(es) == 0 {
				break
			}
			body := readAll(t, s, h)
			if has := es[0].Size > 0; len(es) != 1 || (body != "") != has {
				t.Errorf("%v with body %q: it belongs to the next entry", names(es), body)
			}
			got = append(got, es[0].Path+body)
		}
		same(t, "entries", got, "[d d/ahello e e/bworld f]")
		ok(t, s.Finish())
	})
	t.Run("record larger than the buffer", func(t *testing.T) {
		s, h := open(t, member{name: strings.Repeat("n", 200)})
		_, err := s.Entries(h, make([]byte, 200), 0)
		want(t, err, abi.ErrLimit)
		same(t, "sticky", s.Err(), err)
	})
	t.Run("the largest record", func(t *testing.T) {
		xs := map[string]string{}
		for i := range 12 {
			xs[fmt.Sprintf("user.%02d", i)] = strings.Repeat("v", 60_000)
		}
		s, h := open(t, member{name: "a"}, member{name: "x", xattrs: xs}, member{name: "b"})
		var got []string
		for {
			es := batch(t, s, h, abi.MaxEntryRecord, 0)
			if len(es) == 0 {
				break
			}
			got = append(got, names(es)...)
		}
		same(t, "entries", got, "[a x b]")
	})
	t.Run("many batches", func(t *testing.T) {
		var ms []member
		for i := range 5000 {
			ms = append(ms, member{name: fmt.Sprintf("d%04d/", i)})
		}
		s, h := open(t, ms...)
		n, batches := 0, 0
		for {
			es := batch(t, s, h, abi.MaxEntryRecord, 0)
			if len(es) == 0 {
				break
			}
			for _, e := range es {
				if e.Path != fmt.Sprintf("d%04d", n) || e.Seq != uint64(n) {
					t.Fatalf("entry %d is %q with number %d", n, e.Path, e.Seq)
				}
				n++
			}
			batches++
		}
		if n != 5000 || batches < 3 {
			t.Errorf("%d entries in %d batches", n, batches)
		}
	})
	t.Run("not a stream of entries", func(t *testing.T) {
		s := start(t, Config{Layer: layerOf(t, makeTar(t)), Input: abi.RoleLayerTar})
		_, err := s.Entries(must(s.Open(abi.RoleLayerTar, 0))(t), make([]byte, 4096), 0)
		want(t, err, abi.ErrPlugin)
	})
	t.Run("broken tar", func(t *testing.T) {
		b := makeTar(t, small...)
		b[0] ^= 1
		s := start(t, Config{Layer: layerOf(t, b), Input: abi.RoleLayerEntries})
		h := must(s.Open(abi.RoleLayerEntries, 0))(t)
		_, err := s.Entries(h, make([]byte, 4096), 0)
		want(t, err, abi.ErrCorrupt)
		var fe *abi.FormatError
		if !errors.As(err, &fe) {
			t.Errorf("%v does not say where", err)
		}
	})
}

// collect takes all completions.
func collect(t *testing.T, s *bench) (out []abi.Completion) {
	t.Helper()
	buf := make([]byte, 100*abi.CompletionSize)
	for {
		n := must(s.Collect(buf, 1))(t)
		if n == 0 {
			return out
		}
		for b := buf[:n]; len(b) > 0; b = b[abi.CompletionSize:] {
			var c abi.Completion
			c.Decode(b)
			out = append(out, c)
		}
	}
}

// TestEntriesAutomatic: every body becomes jobs with the number of its entry, however the batches are cut.
func TestEntriesAutomatic(t *testing.T) {
	big := strings.Repeat("x", 10_000)
	ms := append(slices.Clone(small), member{name: "g", body: big}, member{name: "empty"}, member{name: "h", kind: tar.TypeLink, link: "g"})
	for _, size := range []int{104, 250, 4096, abi.MaxEntryRecord} {
		s := start(t, Config{Layer: layerOf(t, makeTar(t, ms...)), Input: abi.RoleLayerEntries})
		out := must(s.OpenSink(0, abi.FilterNone, 0))(t)
		plan := must(s.NewPlan(&abi.PlanSpec{ChunkSize: 4096, Digest: abi.DigestSHA256, Sink: out}))(t)
		h := must(s.Open(abi.RoleLayerEntries, 0))(t)
		var got []string
		for {
			es := batch(t, s, h, size, plan)
			if len(es) == 0 {
				break
			}
			for _, e := range es {
				got = append(got, fmt.Sprintf("%d:%s:%d", e.Seq, e.Path, e.Chunks))
			}
			same(t, "body", readAll(t, s, h), "")
		}
		same(t, fmt.Sprintf("buffer %d", size), got, "[0:d:0 1:d/a:1 2:e:0 3:e/b:1 4:f:0 5:g:3 6:empty:0 7:h:0]")
		var tags []uint64
		for _, c := range collect(t, s) {
			tags = append(tags, c.Tag)
		}
		same(t, "tags", tags, "[1 3 5 5 5]")
		info := must(s.ClosePlan(plan))(t)
		same(t, "jobs", []int64{info.Jobs, info.RawBytes}, []int64{5, int64(10 + len(big))})
		must(s.Close(out))(t)
		ok(t, s.Finish())
		same(t, "output", s.sinks[0].buf.String() == "helloworld"+big, true)
	}
	t.Run("from manual to automatic, with an entry in between", func(t *testing.T) {
		s := start(t, Config{Layer: layerOf(t, makeTar(t, small...)), Input: abi.RoleLayerEntries})
		plan := must(s.NewPlan(&abi.PlanSpec{Digest: abi.DigestSHA256}))(t)
		h := must(s.Open(abi.RoleLayerEntries, 0))(t)
		same(t, "manual", names(batch(t, s, h, 104, 0)), "[d]")
		same(t, "automatic", names(batch(t, s, h, 104, plan)), "[d/a]")
		cs := collect(t, s)
		if len(cs) != 1 || cs[0].Tag != 1 || cs[0].Digest != sum([]byte("hello")) {
			t.Errorf("completions %+v, want the body of d/a", cs)
		}
	})
	t.Run("foreign plan", func(t *testing.T) {
		s := start(t, Config{Layer: layerOf(t, makeTar(t, small...)), Input: abi.RoleLayerEntries})
		_, err := s.Entries(must(s.Open(abi.RoleLayerEntries, 0))(t), make([]byte, 4096), 50)
		want(t, err, abi.ErrPlugin)
	})
}

func TestJobStream(t *testing.T) {
	open := func(t *testing.T, role abi.Role) (*bench, abi.Handle, abi.Handle) {
		s := start(t, Config{Layer: layerOf(t, makeTar(t, small...)), Input: role})
		plan := must(s.NewPlan(&abi.PlanSpec{Digest: abi.DigestSHA256}))(t)
		return s, plan, must(s.Open(role, 0))(t)
	}
	t.Run("body in pieces", func(t *testing.T) {
		s, plan, h := open(t, abi.RoleLayerEntries)
		batch(t, s, h, 4096, 0)
		same(t, "chunks", must(s.JobStream(plan, h, 2, 7))(t), 1)
		same(t, "chunks", must(s.JobStream(plan, h, -1, 8))(t), 1)
		same(t, "chunks", must(s.JobStream(plan, h, -1, 9))(t), 0)
		cs := collect(t, s)
		if len(cs) != 2 || cs[0].Digest != sum([]byte("he")) || cs[1].Digest != sum([]byte("llo")) || cs[1].Tag != 8 {
			t.Errorf("%+v", cs)
		}
		ok(t, s.Finish())
	})
	t.Run("beyond the body", func(t *testing.T) {
		s, plan, h := open(t, abi.RoleLayerEntries)
		batch(t, s, h, 4096, 0)
		_, err := s.JobStream(plan, h, 6, 0)
		want(t, err, abi.ErrPlugin)
	})
	t.Run("of an entry that was not handed over", func(t *testing.T) {
		s, plan, h := open(t, abi.RoleLayerEntries)
		same(t, "entries", names(batch(t, s, h, 104, 0)), "[d]") // d/a waits
		_, err := s.JobStream(plan, h, 5, 0)
		want(t, err, abi.ErrPlugin)
	})
	t.Run("beyond the tar", func(t *testing.T) {
		s, plan, h := open(t, abi.RoleLayerTar)
		_, err := s.JobStream(plan, h, 1<<20, 0)
		want(t, err, abi.ErrTruncated)
	})
	t.Run("tar without a length", func(t *testing.T) {
		s, plan, h := open(t, abi.RoleLayerTar)
		_, err := s.JobStream(plan, h, -1, 0)
		want(t, err, abi.ErrPlugin)
	})
	t.Run("closed plan", func(t *testing.T) {
		s, plan, h := open(t, abi.RoleLayerTar)
		must(s.ClosePlan(plan))(t)
		_, err := s.JobStream(plan, h, 1, 0)
		want(t, err, abi.ErrPlugin)
	})
}

// TestOrder: writes and jobs reach a sink in the order in which they were submitted.
func TestOrder(t *testing.T) {
	s := start(t, Config{})
	out := must(s.OpenSink(0, abi.FilterNone, 0))(t)
	plan := must(s.NewPlan(&abi.PlanSpec{Sink: out}))(t)
	var all strings.Builder
	for i := range 2000 {
		w := fmt.Sprintf("%d ", i)
		all.WriteString(w)
		if i%3 == 0 {
			ok(t, s.Write(out, []byte(w)))
		} else {
			must(s.JobBytes(plan, []byte(w), 0))(t)
		}
		if i == 1000 {
			same(t, "so far", must(s.Info(out))(t).Size, all.Len())
		}
	}
	must(s.Close(out))(t)
	same(t, "order", s.sinks[0].buf.String() == all.String(), true)
}

// TestOutputLimit: base + factor × what was read, where nothing counts twice.
func TestOutputLimit(t *testing.T) {
	const base = 1000
	limited := func(cfg Config) Config {
		cfg.Limits = Limits{OutputBase: base, OutputFactor: 3}
		return cfg
	}
	// room returns how many bytes s still takes.
	room := func(t *testing.T, s *bench) (n int) {
		t.Helper()
		h, err := s.OpenSink(0, abi.FilterNone, 0)
		ok(t, err)
		piece := make([]byte, 50)
		for {
			err := s.Write(h, piece)
			if err == nil {
				_, err = s.Info(h)
			}
			if err != nil {
				want(t, err, abi.ErrLimit)
				return n
			}
			if n += len(piece); n > 50_000_000 {
				t.Fatal("no limit")
			}
		}
	}
	about := func(t *testing.T, what string, got, want int) {
		t.Helper()
		if got < want-60 || got > want+60 {
			t.Errorf("%s: %d bytes of output were allowed, want about %d", what, got, want)
		}
	}
	about(t, "nothing read", room(t, start(t, limited(Config{}))), base)
	body := strings.Repeat("compresses well ", 10_000)
	tarred := makeTar(t, member{name: "a", body: body})
	stored := gz(t, tarred)
	for role, most := range map[abi.Role]int{abi.RoleLayerStored: len(stored), abi.RoleLayerTar: len(tarred), abi.RoleLayerEntries: len(body) + 512} {
		s := start(t, limited(Config{Layer: layerOf(t, tarred), Input: role}))
		h := must(s.Open(role, 0))(t)
		if role == abi.RoleLayerEntries {
			batch(t, s, h, 4096, 0)
		}
		readAll(t, s, h)
		about(t, fmt.Sprintf("role %d", role), room(t, s), base+3*most)
	}
	t.Run("a tar without compression counts once", func(t *testing.T) {
		cfg := Config{Layer: layerOf(t, tarred), Input: abi.RoleLayerTar}
		cfg.Layer.Open = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tarred)), nil }
		cfg.Layer.Digest, cfg.Layer.Size, cfg.Layer.MediaType = "", -1, ""
		s := start(t, limited(cfg))
		readAll(t, s, must(s.Open(abi.RoleLayerTar, 0))(t))
		about(t, "plain tar", room(t, s), base+3*len(tarred))
	})
	t.Run("reading again earns nothing", func(t *testing.T) {
		s := start(t, limited(Config{Parts: []Part{input(strings.Repeat("p", 400))}}))
		for range 10 {
			h := must(s.Open(abi.RolePart, 0))(t)
			must(s.ReadAt(h, make([]byte, 400), 0))(t)
			must(s.Close(h))(t)
		}
		about(t, "a part read ten times", room(t, s), base+3*400)
	})
	t.Run("a plan is bounded as well", func(t *testing.T) {
		s := start(t, limited(Config{Parts: []Part{input(strings.Repeat("p", 400))}}))
		h := must(s.Open(abi.RolePart, 0))(t)
		plan := must(s.NewPlan(&abi.PlanSpec{Decode: true, Sink: must(s.OpenSink(0, abi.FilterNone, 0))(t)}))(t)
		var err error
		for i := 0; i < 1000 && err == nil; i++ {
			err = s.JobRange(plan, h, abi.Range{CLen: 400, ULen: 400, Raw: true, N: -1}, 0)
		}
		if err == nil {
			_, err = s.ClosePlan(plan)
		}
		want(t, err, abi.ErrLimit)
		want(t, s.Finish(), abi.ErrLimit)
	})
	t.Run("what counts is what leaves the filter", func(t *testing.T) {
		s := start(t, limited(Config{}))
		h := must(s.OpenSink(0, abi.FilterGzip, 0))(t)
		ok(t, s.Write(h, make([]byte, 200_000)))
		must(s.Close(h))(t)
		ok(t, s.Finish())
	})
}

func TestSmallBuffers(t *testing.T) {
	s := start(t, Config{})
	enc := must(s.Encode(abi.CodecZstd, 0, []byte("pre"), []byte("hello hello hello")))(t)
	same(t, "appended", string(enc[:3]), "pre")
	same(t, "decoded", string(must(s.Decode(abi.CodecZstd, []byte("x"), enc[3:], 17))(t)), "xhello hello hello")
	if _, err := s.Decode(abi.CodecZstd, nil, enc[3:], 16); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("one byte more than wanted: %v", err)
	}
	same(t, "sum", must(s.Sum(abi.DigestSHA256, []byte("a")))(t), sum([]byte("a")))
	_, err := s.Decode(abi.CodecZstd, nil, enc[3:], abi.MaxSmallBuffer+1)
	want(t, err, abi.ErrLimit)
}

func TestReports(t *testing.T) {
	tarred := makeTar(t, small...)
	var read, done int64
	s := start(t, Config{Layer: layerOf(t, tarred), Input: abi.RoleLayerStored, Read: func(n int) { read += int64(n) }, Progress: func(d, _ int64) { done = d }})
	readAll(t, s, must(s.Open(abi.RoleLayerStored, 0))(t))
	s.Progress(5, 10)
	ok(t, s.Finish())
	same(t, "read and done", []int64{read, done}, []int64{int64(len(gz(t, tarred))), 5})
	for range 3000 {
		s.Log(abi.LogError, "again")
	}
	if s.logged != 3000 {
		t.Error(s.logged)
	}
}

// TestDenied: Describe gets nothing.
func TestDenied(t *testing.T) {
	var h abi.Host = Denied{}
	for name, call := range map[string]func() error{
		"Open":      func() error { _, err := h.Open(abi.RolePart, 0); return err },
		"OpenSink":  func() error { _, err := h.OpenSink(0, 0, 0); return err },
		"Read":      func() error { _, err := h.Read(1, nil); return err },
		"ReadAt":    func() error { _, err := h.ReadAt(1, nil, 0); return err },
		"Size":      func() error { _, err := h.Size(1); return err },
		"Write":     func() error { return h.Write(1, nil) },
		"Copy":      func() error { _, err := h.Copy(1, 2, 0, 0); return err },
		"Info":      func() error { _, err := h.Info(1); return err },
		"Close":     func() error { _, err := h.Close(1); return err },
		"Entries":   func() error { _, err := h.Entries(1, nil, 0); return err },
		"NewPlan":   func() error { _, err := h.NewPlan(&abi.PlanSpec{}); return err },
		"JobStream": func() error { _, err := h.JobStream(1, 2, 3, 4); return err },
		"JobBytes":  func() error { _, err := h.JobBytes(1, nil, 0); return err },
		"JobRange":  func() error { return h.JobRange(1, 2, abi.Range{}, 0) },
		"Collect":   func() error { _, err := h.Collect(nil, 0); return err },
		"ClosePlan": func() error { _, err := h.ClosePlan(1); return err },
		"Sum":       func() error { _, err := h.Sum(abi.DigestSHA256, nil); return err },
		"Encode":    func() error { _, err := h.Encode(abi.CodecZstd, 0, nil, nil); return err },
		"Decode":    func() error { _, err := h.Decode(abi.CodecZstd, nil, nil, 0); return err },
	} {
		t.Run(name, func(t *testing.T) { want(t, call(), abi.ErrDenied) })
	}
	h.Log(0, "")
	h.Progress(0, 0)
}
