package host

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/sdk"
)

// compressor is a format whose layers are compressed by the plugin itself, so that the host has only its word for the
// diff ID.
func compressor(diffID func(tar []byte) digest.Digest) *copier {
	p := &copier{name: "gz"}
	p.convert = func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
		in, err := l.Open(abi.RoleLayerTar, 0)
		if err != nil {
			return nil, err
		}
		var raw, z bytes.Buffer
		buf := make([]byte, 4096)
		for n := 1; n > 0 && err == nil; {
			n, err = l.Read(in, buf)
			raw.Write(buf[:n])
		}
		w := gzip.NewWriter(&z)
		_, werr := w.Write(raw.Bytes())
		out, oerr := l.OpenSink(0, abi.FilterNone, 0)
		if err := errors.Join(err, werr, w.Close(), oerr); err != nil {
			return nil, err
		}
		if err := l.Write(out, z.Bytes()); err != nil {
			return nil, err
		}
		_, err = l.Host.Close(out)
		return &abi.ConvertResponse{Parts: []abi.Part{{MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: diffID(raw.Bytes()).String(),
			Annotations: map[string]string{copyMarker: "1"}}}}, err
	}
	p.unpack = func(u *sdk.Unpack) error {
		sink, err := sdk.OpenSink(u, 0)
		if err != nil {
			return err
		}
		var f flat
		for i := range u.Parts {
			b, err := sdk.OpenBlob(u, abi.RolePart, i)
			if err != nil {
				return err
			}
			z, err := gzip.NewReader(io.NewSectionReader(b, 0, b.Size()))
			if err != nil {
				return err
			}
			if err := f.add(z, true); err != nil {
				return err
			}
		}
		if err := f.write(sink, nil); err != nil {
			return err
		}
		_, err = sink.Close()
		return err
	}
	return p
}

// TestDiffIDs: whatever a plugin says of the inside of what it compressed, verifying looks.
func TestDiffIDs(t *testing.T) {
	s := graphtest.NewStore()
	im := threeLayers(s)
	honest := newEnv(t, []sdk.Plugin{compressor(digest.FromBytes)})
	src := honest.source(s, s.Image(im))
	honest.convert(src, "gz", honest.ref("out"))
	_, err := honest.Verify(t.Context(), VerifyRequest{Source: src, Converted: honest.ref("out")})
	honest.ok(err)

	second := im.Layers[1].DiffID
	lies := newEnv(t, []sdk.Plugin{compressor(func(tar []byte) digest.Digest {
		if d := digest.FromBytes(tar); d != second {
			return d
		}
		return digest.FromString("something else")
	})})
	check := func(err error) {
		t.Helper()
		want(t, err, abi.ErrDigest)
		var e *Error
		if !errors.As(err, &e) || e.Layer != 1 || e.Blob.Digest == "" || !strings.Contains(err.Error(), "layer tar") || !strings.Contains(err.Error(), second.String()) {
			t.Errorf("%v", err)
		}
	}
	check(lies.fails(ConvertRequest{Source: src, Verify: true, Targets: []Target{{Format: "gz"}}}, abi.ErrDigest))
	_, err = lies.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "gz", Dest: lies.ref("out")}}})
	lies.ok(err) // nobody asked
	_, err = lies.Verify(t.Context(), VerifyRequest{Source: src, Converted: lies.ref("out")})
	check(err)
}

// oneWay is a plugin that has no Unpack.
type oneWay struct {
	name   string
	marker string
	spoil  bool
}

func (p oneWay) Describe() abi.Description {
	return abi.Description{Name: p.name, Version: "1", Summary: "copies tars", Input: abi.RoleLayerTar, Markers: []abi.Marker{{Annotation: copyMarker}}}
}

func (p oneWay) ConvertLayer(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	resp, err := copyLayer(l)
	if err != nil {
		return nil, err
	}
	if resp.Parts[0].Annotations = nil; p.marker != "" {
		resp.Parts[0].Annotations = map[string]string{p.marker: "1"}
	}
	return resp, nil
}

// MergeLayers leaves out the last layer of an image to spoil.
func (p oneWay) MergeLayers(_ context.Context, m *sdk.Merge) (*abi.MergeResponse, error) {
	r := &abi.MergeResponse{}
	for i := range m.Parts {
		if !p.spoil || i < len(m.Parts)-1 {
			r.Layers = append(r.Layers, abi.OutLayer{Part: i, Source: i})
		}
	}
	return r, nil
}

// TestVerifyWithoutUnpack: a result that is an ordinary image is read as one.
func TestVerifyWithoutUnpack(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{oneWay{name: "plain"}, oneWay{name: "spoils", spoil: true}, oneWay{name: "marks", marker: copyMarker}})
	s := graphtest.NewStore()
	src := e.source(s, s.Image(threeLayers(s)))
	e.fails(ConvertRequest{Source: src, Verify: true, Targets: []Target{{Format: "spoils"}}}, abi.ErrMismatch)
	e.fails(ConvertRequest{Source: src, Verify: true, Targets: []Target{{Format: "marks"}}}, abi.ErrUnsupported)
	e.convert(src, "plain", e.ref("out"))
}

// TestStrangersAreNotStarted: programs on the search path run only for images that may be theirs.
func TestStrangersAreNotStarted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the program is a shell script")
	}
	dir, trace := t.TempDir(), filepath.Join(t.TempDir(), "started")
	writeFile(t, filepath.Join(dir, "convhost-plugin-stranger"), "#!/bin/sh\necho x >>"+trace+"\nexit 1\n", 0o755)
	started := func() bool {
		_, err := os.Stat(trace)
		os.Remove(trace)
		return err == nil
	}
	s := graphtest.NewStore()
	im := threeLayers(s)
	plain := s.Image(im)
	im.Layers[0].Desc.Annotations = map[string]string{"org.opencontainers.image.title": "x", "buildkit/rewritten-timestamp": "1"}
	annotated := s.Image(im)
	im.Layers[0].Desc.Annotations = map[string]string{"example.lazy/toc": "x"}
	odd := s.Image(im)
	im.Layers[0].Desc.Annotations = map[string]string{copyMarker: "1"}
	ours := s.Image(im)
	for name, c := range map[string]struct {
		image ocispec.Descriptor
		want  bool
	}{"ordinary": {plain, false}, "usual annotations": {annotated, false}, "of a known format": {ours, false}, "odd annotations": {odd, true}} {
		e := newEnv(t, []sdk.Plugin{&copier{}}, WithPluginDir(dir))
		src := e.source(s, c.image)
		_, err := e.Inspect(t.Context(), src)
		e.ok(err)
		if got := started(); got != c.want {
			t.Errorf("%s: the stranger was started: %v", name, got)
		}
	}
	e := newEnv(t, []sdk.Plugin{&copier{}}, WithPluginDir(dir))
	src := e.source(s, plain)
	e.convert(src, "copy", e.ref("out"))
	_, err := e.Verify(t.Context(), VerifyRequest{Source: src, Converted: e.ref("out")})
	e.ok(err)
	if started() {
		t.Error("verify started it")
	}
}
