package host

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/sdk"
)

// richLayer has one of everything that verify compares.
func richLayer(t testing.TB, s *graphtest.Store) graphtest.Layer {
	return s.TarLayer(makeTar(t,
		&tar.Header{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o755},
		&tar.Header{Name: "dir/file", Uname: "content", Uid: 5, Gid: 6, ModTime: time.Unix(1_600_000_000, 0),
			PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}},
		&tar.Header{Name: "one", Uname: "twice"},
		&tar.Header{Name: "two", Typeflag: tar.TypeLink, Linkname: "one"},
		&tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "dir/file"},
		&tar.Header{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		&tar.Header{Name: "fifo", Typeflag: tar.TypeFifo},
	))
}

// TestVerifyFinds: each kind of difference is found, named, and the only one.
func TestVerifyFinds(t *testing.T) {
	at := func(name string, change func(h *tar.Header, body *[]byte)) func(*tar.Header, *[]byte) bool {
		return func(h *tar.Header, body *[]byte) bool {
			if path.Clean(h.Name) == name {
				change(h, body)
			}
			return true
		}
	}
	without := func(name string) func(*tar.Header, *[]byte) bool {
		return func(h *tar.Header, _ *[]byte) bool { return path.Clean(h.Name) != name }
	}
	for name, c := range map[string]struct {
		lie  func(h *tar.Header, body *[]byte) bool
		want string
	}{
		"nothing":       {nil, ""},
		"content":       {at("dir/file", func(_ *tar.Header, b *[]byte) { *b = []byte("CONTENT") }), "dir/file: content"},
		"size":          {at("dir/file", func(_ *tar.Header, b *[]byte) { *b = []byte("contents") }), "dir/file: size, dir/file: content"},
		"mode":          {at("dir/file", func(h *tar.Header, _ *[]byte) { h.Mode = 0o600 }), "dir/file: mode"},
		"setuid":        {at("dir/file", func(h *tar.Header, _ *[]byte) { h.Mode |= 0o4000 }), "dir/file: mode"},
		"owner":         {at("dir/file", func(h *tar.Header, _ *[]byte) { h.Uid++ }), "dir/file: owner"},
		"group":         {at("dir/file", func(h *tar.Header, _ *[]byte) { h.Gid++ }), "dir/file: owner"},
		"mtime":         {at("dir/file", func(h *tar.Header, _ *[]byte) { h.ModTime = h.ModTime.Add(time.Second) }), "dir/file: mtime"},
		"less than 1 s": {at("dir/file", func(h *tar.Header, _ *[]byte) { h.ModTime = h.ModTime.Add(time.Millisecond) }), ""},
		"xattr":         {at("dir/file", func(h *tar.Header, _ *[]byte) { h.PAXRecords["SCHILY.xattr.user.k"] = "w" }), "dir/file: xattrs"},
		"no xattr":      {at("dir/file", func(h *tar.Header, _ *[]byte) { h.PAXRecords = nil }), "dir/file: xattrs"},
		"more xattrs":   {at("dir/file", func(h *tar.Header, _ *[]byte) { h.PAXRecords["SCHILY.xattr.user.l"] = "" }), "dir/file: xattrs"},
		"symlink":       {at("link", func(h *tar.Header, _ *[]byte) { h.Linkname = "one" }), "link: link"},
		"device":        {at("dev", func(h *tar.Header, _ *[]byte) { h.Devminor = 5 }), "dev: device"},
		"kind":          {at("fifo", func(h *tar.Header, _ *[]byte) { h.Typeflag = tar.TypeReg }), "fifo: type"},
		"missing path":  {without("link"), "link: path"},
		"extra path":    {at("link", func(h *tar.Header, _ *[]byte) { h.Name = "link2" }), "link: path, link2: path"},
		"hard link becomes a copy": {at("two", func(h *tar.Header, b *[]byte) {
			h.Typeflag, h.Linkname, *b = tar.TypeReg, "", []byte("twice")
		}), "one: hard-link group, two: hard-link group"},
		"directory mode": {at("dir", func(h *tar.Header, _ *[]byte) { h.Mode = 0o700 }), "dir: mode"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &copier{}
			e := newEnv(t, []sdk.Plugin{p})
			s := graphtest.NewStore()
			src := e.source(s, s.Image(graphtest.Image{Layers: []graphtest.Layer{richLayer(t, s)}}))
			e.convert(src, "copy", e.ref("out"))
			p.lie = c.lie
			rs, err := e.Verify(t.Context(), VerifyRequest{Source: src, Converted: e.ref("out")})
			if len(rs) != 1 {
				t.Fatalf("%d results: %v", len(rs), err)
			}
			var got []string
			for _, d := range rs[0].Differences {
				got = append(got, d.Path+": "+d.Field)
			}
			same(t, "differences", strings.Join(got, ", "), c.want)
			if c.want == "" {
				e.ok(err)
				return
			}
			want(t, err, abi.ErrMismatch)
			e2 := newEnv(t, []sdk.Plugin{p}) // and a conversion that verifies is not published
			e2.fails(ConvertRequest{Source: src, Verify: true}, abi.ErrMismatch)
		})
	}
}

// TestVerifyConfig: what a config says beside the layers is compared as well.
func TestVerifyConfig(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}})
	s := graphtest.NewStore()
	l := richLayer(t, s)
	config := func(more string) string {
		return fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{"Env":["A=b"]%s},"rootfs":{"type":"layers","diff_ids":[%q]}}`, more, l.DiffID)
	}
	a := e.source(s, s.Image(graphtest.Image{Layers: []graphtest.Layer{l}, ConfigJSON: config("")}))
	b := e.source(s, s.Image(graphtest.Image{Layers: []graphtest.Layer{l}, ConfigJSON: config(`,"User":"root","Entrypoint":["/x"]`)}))
	rs, err := e.Verify(t.Context(), VerifyRequest{Source: a, Converted: b})
	want(t, err, abi.ErrMismatch)
	var fields []string
	for _, d := range rs[0].Differences {
		fields = append(fields, d.Field)
	}
	same(t, "fields", fields, "[config config.Entrypoint config config.User]")
}

// TestVerifyMax: differences beyond the maximum are counted.
func TestVerifyMax(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}})
	s := graphtest.NewStore()
	many := map[string]string{}
	for i := range 50 {
		many[fmt.Sprint(i)] = "x"
	}
	a := e.source(s, s.Image(graphtest.Image{Layers: []graphtest.Layer{s.Layer(many)}}))
	b := e.source(s, s.Image(graphtest.Image{Layers: []graphtest.Layer{s.Layer(nil)}}))
	rs, err := e.Verify(t.Context(), VerifyRequest{Source: a, Converted: b, Max: 7})
	want(t, err, abi.ErrMismatch)
	same(t, "listed and more", []int{len(rs[0].Differences), int(rs[0].More)}, "[7 43]")
	if !strings.Contains(err.Error(), "50 differences") {
		t.Error(err)
	}
}

// TestVerifyPairs: images are compared platform by platform, and each must have its other.
func TestVerifyPairs(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}})
	s := graphtest.NewStore()
	image := func(arch string) ocispec.Descriptor {
		return s.Image(graphtest.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, Layers: []graphtest.Layer{s.Layer(map[string]string{"arch": arch})}})
	}
	x, y, z := image("amd64"), image("arm64"), image("s390x")
	xy, yx, xz, xyz := e.source(s, s.Index(x, y)), e.source(s, s.Index(y, x)), e.source(s, s.Index(x, z)), e.source(s, s.Index(x, y, z))
	for _, c := range []struct {
		name, a, b string
		sel        []string
		pairs      int
		class      abi.Class
	}{
		{"another order", xy, yx, nil, 2, 0},
		{"one is missing", xyz, xy, nil, 0, abi.ErrMismatch},
		{"one too many", xy, xyz, nil, 0, abi.ErrMismatch},
		{"another platform", xy, xz, nil, 0, abi.ErrMismatch},
		{"only what both have", xy, xz, []string{"linux/amd64"}, 1, 0},
		{"what one does not have", xy, xz, []string{"linux/arm64"}, 0, abi.ErrNotFound},
		{"what both do not have", xy, yx, []string{"linux/amd64", "linux/riscv64"}, 0, abi.ErrNotFound},
		{"no platform", xy, yx, []string{"a/b/c/d"}, 0, abi.ErrInvalid},
		{"one image each", e.source(s, x), e.source(s, s.Index(x)), nil, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			rs, err := e.Verify(t.Context(), VerifyRequest{Source: c.a, Converted: c.b, Select: Selection{Platforms: c.sel}})
			if c.class != 0 {
				want(t, err, c.class)
			} else if err != nil {
				t.Fatal(err)
			}
			same(t, "pairs", len(rs), c.pairs)
		})
	}
}

// TestVerifyBroken: when a side cannot be read there is an error of its own class, and no verdict.
func TestVerifyBroken(t *testing.T) {
	cases := map[string]struct {
		unpack func(u *sdk.Unpack) error
		class  abi.Class
	}{
		"plugin fails":   {func(*sdk.Unpack) error { return abi.Errorf(abi.ErrCorrupt, "broken blob") }, abi.ErrCorrupt},
		"no output":      {func(*sdk.Unpack) error { return nil }, abi.ErrMismatch},
		"second output":  {func(u *sdk.Unpack) error { _, err := u.OpenSink(1, 0, 0); return err }, abi.ErrDenied},
		"panic":          {func(*sdk.Unpack) error { panic("oops") }, abi.ErrPlugin},
		"garbage":        {func(u *sdk.Unpack) error { return write(u, bytes.Repeat([]byte("x"), 1<<20)) }, abi.ErrCorrupt},
		"half a tar":     {func(u *sdk.Unpack) error { return write(u, makeTar(t, &tar.Header{Name: "f", Uname: "body"})[:514]) }, abi.ErrTruncated},
		"an endless tar": {endless, abi.ErrLimit},
		"hostile members": {func(u *sdk.Unpack) error {
			return write(u, makeTar(t, &tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "nowhere"}))
		}, abi.ErrCorrupt},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := &copier{}
			e := newEnv(t, []sdk.Plugin{p}, WithLimits(Limits{LayerBytes: 8 << 20}))
			s := graphtest.NewStore()
			src := e.source(s, s.Image(threeLayers(s)))
			e.convert(src, "copy", e.ref("out"))
			p.unpack = c.unpack
			_, err := e.Verify(t.Context(), VerifyRequest{Source: src, Converted: e.ref("out")})
			want(t, err, c.class)
		})
	}
}

func write(u *sdk.Unpack, b []byte) error {
	h, err := u.OpenSink(0, abi.FilterNone, 0)
	if err == nil {
		err = u.Write(h, b)
	}
	if err == nil {
		_, err = u.Close(h)
	}
	return err
}

func endless(u *sdk.Unpack) error {
	h, err := u.OpenSink(0, abi.FilterNone, 0)
	if err != nil {
		return err
	}
	head, err := sdk.AppendTarHeader(nil, &abi.Entry{Kind: abi.KindRegular, Path: "big", Size: 1 << 40})
	for ; err == nil; head = make([]byte, 1<<20) {
		err = u.Write(h, head)
	}
	return err
}

// TestUnpack: layers one by one, the whole, and what is not there.
func TestUnpack(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}})
	s := graphtest.NewStore()
	im := threeLayers(s)
	plain := e.source(s, s.Image(im))
	e.convert(plain, "copy", e.ref("out"))
	unpack := func(layer int) (string, *UnpackResult, error) {
		var b bytes.Buffer
		res, err := e.Unpack(t.Context(), UnpackRequest{Image: e.ref("out"), Layer: layer, Out: &b})
		if err == nil && res.Bytes != int64(b.Len()) {
			t.Errorf("%d bytes, the result says %d", b.Len(), res.Bytes)
		}
		var names []string
		for tr := tar.NewReader(&b); err == nil; {
			h, terr := tr.Next()
			if terr != nil {
				break
			}
			names = append(names, h.Name)
		}
		return strings.Join(names, " "), res, err
	}
	for layer, names := range map[int]string{0: "a b d/e", 1: "b c", 2: ".wh.a f", -1: "d/e b c f"} {
		got, res, err := unpack(layer)
		e.ok(err)
		same(t, fmt.Sprintf("layer %d", layer), got, names)
		same(t, "entries", res.Entries, len(strings.Fields(names)))
	}
	for _, layer := range []int{3, -2} {
		_, _, err := unpack(layer)
		want(t, err, abi.ErrInvalid)
		if strings.Contains(err.Error(), "()") {
			t.Errorf("%v has an empty place", err)
		}
	}
	_, err := e.Unpack(t.Context(), UnpackRequest{Image: plain, Layer: -1, Out: io.Discard})
	want(t, err, abi.ErrUnsupported)
	_, err = e.Unpack(t.Context(), UnpackRequest{Image: e.ref("out"), Layer: -1, Out: brokenWriter{}})
	want(t, err, abi.ErrIO)
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// TestCheckInspectGraph: the three that only look.
func TestCheckInspectGraph(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}})
	s := graphtest.NewStore()
	im := threeLayers(s)
	im.Layers = append(im.Layers, s.Layer(nil))
	plain := e.source(s, s.Index(s.Image(im), s.Attestation(s.Image(im))))
	e.convert(plain, "copy", e.ref("out"))
	rs, err := e.Check(t.Context(), CheckRequest{Image: e.ref("out"), Deep: true})
	e.ok(err)
	same(t, "problems", rs[0].Problems[0].Message, "layer 3 is empty")
	same(t, "facts", rs[0].Facts, map[string]string{"layers": "4", "deep": "true"})
	same(t, "format", rs[0].Format, "copy")
	_, err = e.Check(t.Context(), CheckRequest{Image: plain})
	want(t, err, abi.ErrUnsupported)

	for ref, formats := range map[string]string{plain: "oci,", e.ref("out"): "copy"} {
		in, err := e.Inspect(t.Context(), ref)
		e.ok(err)
		var got []string
		for _, i := range in.Images {
			got = append(got, i.Format)
		}
		same(t, "formats", strings.Join(got, ","), formats)
		same(t, "layers and diff IDs", []int{len(in.Images[0].Layers), len(in.Images[0].DiffIDs)}, "[4 4]")
	}
	for ref, rows := range map[string]int{plain: 1 + 1 + 5 + 1 + 2, e.ref("out"): 1 + 1 + 5} {
		g, err := e.Graph(t.Context(), ref)
		e.ok(err)
		same(t, "rows", len(g.Rows), rows)
	}
	e.empty(e.work)
}
