package host

import (
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/sdk"
)

const refMarker, oldRefMarker = "test.convhost/original", "test.convhost/old-original"

// pointer is a format whose layers hold nothing but the digest of the original layer.
type pointer struct {
	copier
	digest string // instead of the right one
}

func (p *pointer) Describe() abi.Description {
	d := p.copier.Describe()
	d.Name, d.Input, d.Refs = "pointer", abi.RoleLayerStored, []string{refMarker, oldRefMarker}
	d.Markers = []abi.Marker{{Annotation: refMarker}}
	return d
}

func (p *pointer) ConvertLayer(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	if _, err := l.Open(abi.RoleLayerStored, 0); err != nil {
		return nil, err
	}
	out, err := sdk.OpenSink(l, 0)
	if err != nil {
		return nil, err
	}
	to := l.Layer.Digest
	if p.digest != "" {
		to = p.digest
	}
	if _, err := io.WriteString(out, to); err != nil {
		return nil, err
	}
	_, err = out.Close()
	return &abi.ConvertResponse{Parts: []abi.Part{{MediaType: copyMedia, Annotations: map[string]string{refMarker: to, oldRefMarker: to}}}}, err
}

// Unpack flattens the originals.
func (p *pointer) Unpack(_ context.Context, u *sdk.Unpack) (*abi.UnpackResponse, error) {
	sink, err := sdk.OpenSink(u, 0)
	if err != nil {
		return nil, err
	}
	var f flat
	layers := 0
	for i, part := range u.Parts {
		if part.Ref == "" {
			layers++
			continue
		}
		if part.Ref != refMarker || part.Digest != u.Parts[part.Layer].Annotations[refMarker] {
			return nil, abi.Errorf(abi.ErrInternal, "part %d is %+v", i, part)
		}
		b, err := sdk.OpenBlob(u, abi.RolePart, i)
		if err != nil {
			return nil, err
		}
		z, err := gzip.NewReader(io.NewSectionReader(b, 0, part.Size))
		if err != nil {
			return nil, err
		}
		if err := f.add(z, true); err != nil {
			return nil, err
		}
	}
	if layers != len(u.Parts)-layers {
		return nil, abi.Errorf(abi.ErrNotFound, "%d of %d originals", len(u.Parts)-layers, layers)
	}
	if err := f.write(sink, nil); err != nil {
		return nil, err
	}
	_, err = sink.Close()
	return &abi.UnpackResponse{Entries: int64(len(f.members))}, err
}

// TestRefs: what layers refer to comes along to where the image goes, and is there for those who read it.
func TestRefs(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	e := newEnv(t, []sdk.Plugin{&pointer{}})
	s := graphtest.NewStore()
	im := threeLayers(s)
	layout := e.source(s, s.Image(im))
	reg := registryHost(t)
	remote := "docker://" + reg + "/source:v1"
	i := e.image(layout)
	e.copyTo(i, i.Root, remote)
	for _, dest := range []string{e.ref("out"), "oci-archive:" + filepath.Join(e.dir, "out.tar") + ":v1", "docker://" + reg + "/elsewhere:v1", "docker://" + reg + "/source:converted"} {
		for _, src := range []string{layout, remote} {
			res := e.convert(src, "pointer", dest) // verified before it is published
			same(t, "layers", len(res.Manifests[0].Layers), 3)
			out := e.image(dest)
			for _, l := range im.Layers {
				if len(out.blob(l.Desc)) == 0 {
					t.Error("an original is empty")
				}
			}
			_, err := e.Verify(t.Context(), VerifyRequest{Source: layout, Converted: dest})
			e.ok(err)
			_, err = e.Check(t.Context(), CheckRequest{Image: dest})
			e.ok(err)
		}
	}
	e.empty(e.work)

	dir := strings.TrimSuffix(strings.TrimPrefix(e.ref("out"), "oci:"), ":tag")
	e.ok(os.Remove(filepath.Join(dir, "blobs", "sha256", im.Layers[1].Desc.Digest.Encoded())))
	_, err := e.Unpack(t.Context(), UnpackRequest{Image: e.ref("out"), Layer: -1, Out: io.Discard})
	want(t, err, abi.ErrNotFound)
}

// TestRefsThatLie: a plugin cannot have other blobs carried, or none at all.
func TestRefsThatLie(t *testing.T) {
	for _, to := range []string{"sha256:" + strings.Repeat("0", 64), "../../etc/passwd"} {
		e := newEnv(t, []sdk.Plugin{&pointer{digest: to}})
		s := graphtest.NewStore()
		src := e.source(s, s.Image(threeLayers(s)))
		for _, verify := range []bool{false, true} {
			e.fails(ConvertRequest{Source: src, Targets: []Target{{Format: "pointer"}}, Verify: verify}, abi.ErrPlugin)
		}
	}
	e := newEnv(t, []sdk.Plugin{&pointer{}})
	s := graphtest.NewStore()
	l := s.Layer(map[string]string{"a": "1"})
	l.Desc.Annotations = map[string]string{refMarker: "../../etc/passwd"}
	src := e.source(s, s.Image(graphtest.Image{Layers: []graphtest.Layer{l}}))
	_, err := e.Unpack(t.Context(), UnpackRequest{Image: src, Layer: -1, Out: io.Discard})
	want(t, err, abi.ErrCorrupt)
}
