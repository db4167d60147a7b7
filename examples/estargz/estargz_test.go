package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/sdk"
	"github.com/convhost/convhost/sdk/plugintest"
)

func newHost(t testing.TB, opts ...host.Option) *host.Host {
	t.Helper()
	opts = append([]host.Option{
		host.WithBuiltin(host.Builtin{Name: "estargz", InProcess: sdk.InProcess(plugin{})}), host.WithWorkDir(t.TempDir()),
	}, opts...)
	h, err := host.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// convert converts src and returns the reference and the layout of the result.
func convert(t testing.TB, h *host.Host, format, src string, options map[string]string) (string, layout, host.Result) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	res, err := h.Convert(t.Context(), host.ConvertRequest{
		Source: src, Targets: []host.Target{{Format: format, Dest: "oci:" + dir + ":dst", Options: options}}, Verify: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir + ":dst", layout(dir), res[0]
}

// judge holds a layer against the format's own library and against the tar that it was made of.
func judge(t *testing.T, l layout, got host.LayerResult, diffID string, source []byte, chunkSize int64) {
	t.Helper()
	blob := l.get(t, string(got.Converted.Digest))
	sr := io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob)))
	r, err := estargz.Open(sr)
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.VerifyTOC(digest.Digest(got.Converted.Annotations[estargz.TOCJSONDigestAnnotation]))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if digestOf(plain) != diffID {
		t.Errorf("diff ID %s, the layer decompresses to %s", diffID, digestOf(plain))
	}
	if n := got.Converted.Annotations[estargz.StoreUncompressedSizeAnnotation]; n != strconv.Itoa(len(plain)) {
		t.Errorf("uncompressed size is annotated as %s, it is %d", n, len(plain))
	}
	last := lastNames(t, source)
	if lm, ok := r.Lookup(estargz.NoPrefetchLandmark); !ok || lm.Size != 1 {
		t.Error("no landmark")
	}
	for name, want := range last {
		judgeFile(t, r, v, name, want, chunkSize)
	}
}

// judgeFile compares one file, read through the TOC and verified chunk by chunk.
func judgeFile(t *testing.T, r *estargz.Reader, v estargz.TOCEntryVerifier, name string, want file, chunkSize int64) {
	t.Helper()
	e, ok := r.Lookup(name)
	if !ok {
		t.Errorf("%s: not in the TOC", name)
		return
	}
	if want.Typeflag != tar.TypeReg {
		return
	}
	if m := e.Stat().Mode(); m != want.FileInfo().Mode() || e.UID != want.Uid || e.GID != want.Gid || e.Size != want.Size || !e.ModTime().Equal(want.ModTime) {
		t.Errorf("%s: %v %d:%d %d %v, want %+v", name, m, e.UID, e.GID, e.Size, e.ModTime(), want.Header)
	}
	for k, x := range want.PAXRecords {
		if key, ok := bytes.CutPrefix([]byte(k), []byte("SCHILY.xattr.")); ok && string(e.Xattrs[string(key)]) != x {
			t.Errorf("%s: attribute %s is %q, want %q", name, key, e.Xattrs[string(key)], x)
		}
	}
	f, err := r.OpenFile(name)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	body := make([]byte, e.Size)
	for off := int64(0); off < e.Size; {
		c, ok := r.ChunkEntryForOffset(name, off)
		if !ok || c.ChunkOffset != off || c.ChunkSize > chunkSize {
			t.Fatalf("%s: chunk at %d is %+v", name, off, c)
		}
		part := body[off : off+c.ChunkSize]
		if _, err := f.ReadAt(part, off); err != nil {
			t.Fatalf("%s: chunk at %d: %v", name, off, err)
		}
		cv, err := v.Verifier(c)
		if err != nil {
			t.Fatal(err)
		}
		if cv.Write(part); !cv.Verified() {
			t.Errorf("%s: chunk at %d has another digest", name, off)
		}
		off += c.ChunkSize
	}
	if !bytes.Equal(body, want.body) {
		t.Errorf("%s: other bytes", name)
	}
}

// lastNames reads a tar with the standard library: the last of each name.
func lastNames(t *testing.T, b []byte) map[string]file {
	t.Helper()
	out := map[string]file{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = file{*h, body}
	}
}

func diffIDs(t *testing.T, l layout, res host.Result) []string {
	t.Helper()
	var m struct{ Config descriptor }
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := errors.Join(json.Unmarshal(l.get(t, string(res.Manifests[0].Converted.Digest)), &m), json.Unmarshal(l.get(t, m.Config.Digest), &c)); err != nil {
		t.Fatal(err)
	}
	return c.RootFS.DiffIDs
}

func many() []file {
	var files []file
	for i := range 3000 {
		files = append(files, reg("d"+strconv.Itoa(i%50)+"/f"+strconv.Itoa(i), text(uint64(i), i%700)))
	}
	return files
}

func TestConvert(t *testing.T) {
	big := []file{reg("big", text(5, 9<<20)), reg("edge", text(6, 8<<20))}
	tests := []struct {
		name    string
		layers  [][]file
		options map[string]string
		chunk   int64
	}{
		{"kitchen sink", [][]file{kitchen(), upper()}, nil, 4 << 20},
		{"small chunks", [][]file{kitchen(), upper()}, map[string]string{"chunk-size": "4K", "level": "1"}, 4096},
		{"big", [][]file{big}, nil, 4 << 20},
		{"many", [][]file{many()}, nil, 4 << 20},
		{"empty layer", [][]file{nil, {reg("a", []byte("a"))}}, nil, 4 << 20},
	}
	h := newHost(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := makeImage(t, tt.layers...)
			dst, l, res := convert(t, h, "estargz", src, tt.options)
			ids := diffIDs(t, l, res)
			for i, got := range res.Manifests[0].Layers {
				judge(t, l, got, ids[i], makeTar(t, tt.layers[i]), tt.chunk)
			}
			checks, err := h.Check(t.Context(), host.CheckRequest{Image: dst, Format: "estargz", Deep: true})
			if err != nil || len(checks) != 1 || len(checks[0].Problems) != 0 {
				t.Errorf("check: %+v, %v", checks, err)
			}
			_, _, again := convert(t, newHost(t, host.WithJobs(1)), "estargz", src, tt.options)
			if again.Root.Digest != res.Root.Digest {
				t.Errorf("one worker makes %s, several %s", again.Root.Digest, res.Root.Digest)
			}
		})
	}
}

// TestUnpackLayer: one layer comes out as it went in, whiteouts included, without the files of the format.
func TestUnpackLayer(t *testing.T) {
	h := newHost(t)
	files := upper()
	dst, _, _ := convert(t, h, "estargz", makeImage(t, kitchen(), files), nil)
	var out bytes.Buffer
	if _, err := h.Unpack(t.Context(), host.UnpackRequest{Image: dst, Layer: 1, Format: "estargz", Out: &out}); err != nil {
		t.Fatal(err)
	}
	got := lastNames(t, out.Bytes())
	if len(got) != len(files) {
		t.Errorf("%d names, want %d", len(got), len(files))
	}
	for _, f := range files {
		if g, ok := got[f.Name]; !ok || !bytes.Equal(g.body, f.body) || g.Mode != f.Mode || !g.ModTime.Equal(f.ModTime) {
			t.Errorf("%s: %+v", f.Name, g.Header)
		}
	}
}

// TestForeignLayer reads a layer that the format's own library made, with a prefetch list.
func TestForeignLayer(t *testing.T) {
	files := kitchen()
	raw := makeTar(t, files)
	blob, err := estargz.Build(io.NewSectionReader(bytes.NewReader(raw), 0, int64(len(raw))),
		estargz.WithChunkSize(100_000), estargz.WithPrioritizedFiles([]string{"usr/fine"}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(blob)
	if err != nil {
		t.Fatal(err)
	}
	l := layout(t.TempDir())
	src := makeImage(t, files)
	dst := foreignImage(t, l, b, blob.DiffID().String(), blob.TOCDigest().String())
	h := newHost(t)
	checks, err := h.Check(t.Context(), host.CheckRequest{Image: dst, Format: "estargz", Deep: true})
	if err != nil || len(checks[0].Problems) != 0 {
		t.Errorf("check: %+v, %v", checks, err)
	}
	res, err := h.Verify(t.Context(), host.VerifyRequest{Source: src, Converted: dst, Format: "estargz"})
	if err != nil || len(res[0].Differences) != 0 {
		t.Errorf("verify: %+v, %v", res, err)
	}
}

func foreignImage(t *testing.T, l layout, blob []byte, diffID, toc string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(string(l), "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := l.put(t, mediaTypeOCI, blob)
	d.Annotations = map[string]string{annotationDigest: toc}
	config := l.put(t, "application/vnd.oci.image.config.v1+json", marshal(t, map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{diffID}},
	}))
	m := l.put(t, "application/vnd.oci.image.manifest.v1+json", marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []descriptor{d},
	}))
	m.Annotations = map[string]string{"org.opencontainers.image.ref.name": "f"}
	for name, b := range map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
		"index.json": marshal(t, map[string]any{"schemaVersion": 2, "manifests": []descriptor{m}}),
	} {
		if err := os.WriteFile(filepath.Join(string(l), name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return "oci:" + string(l) + ":f"
}

func TestRefused(t *testing.T) {
	bad := reg("far", []byte("x"))
	bad.ModTime, bad.Format = day.AddDate(9000, 0, 0), tar.FormatPAX
	tests := []struct {
		name    string
		files   []file
		options map[string]string
		want    abi.Class
	}{
		{"not UTF-8", []file{reg("a\xff", nil)}, nil, abi.ErrUnsupported},
		{"link to nowhere", []file{other(tar.TypeLink, "a", "b")}, nil, abi.ErrUnsupported},
		{"link target replaced", []file{reg("a", nil), other(tar.TypeLink, "b", "a"), reg("a", []byte("x"))}, nil, abi.ErrUnsupported},
		{"year 11024", []file{bad}, nil, abi.ErrUnsupported},
		{"tiny chunks", nil, map[string]string{"chunk-size": "1K"}, abi.ErrInvalid},
		{"huge chunks", nil, map[string]string{"chunk-size": "17M"}, abi.ErrInvalid},
		{"level 10", nil, map[string]string{"level": "10"}, abi.ErrInvalid},
		{"unknown option", nil, map[string]string{"prefetch": "/"}, abi.ErrInvalid},
	}
	h := newHost(t)
	for _, tt := range tests {
		dest := "oci:" + filepath.Join(t.TempDir(), "o") + ":x"
		_, err := h.Convert(t.Context(), host.ConvertRequest{
			Source: makeImage(t, tt.files), Targets: []host.Target{{Format: "estargz", Dest: dest, Options: tt.options}},
		})
		if abi.ClassOf(err) != tt.want {
			t.Errorf("%s: %v (%v), want %v", tt.name, err, abi.ClassOf(err), tt.want)
		}
	}
}

// TestCheckFindsDamage flips bytes of a converted layer, and cuts it.
func TestCheckFindsDamage(t *testing.T) {
	h := newHost(t)
	_, l, res := convert(t, h, "estargz", makeImage(t, []file{reg("a", text(1, 9000)), reg("b", text(2, 9000))}), map[string]string{"chunk-size": "4K"})
	layer := res.Manifests[0].Layers[0].Converted
	blob := l.get(t, string(layer.Digest))
	toc := layer.Annotations[annotationDigest]
	id := diffIDs(t, l, res)[0]
	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))))
	if err != nil {
		t.Fatal(err)
	}
	e, _ := r.Lookup("b")
	tests := []struct {
		name string
		at   int64
		want abi.Class
	}{
		{"footer", int64(len(blob)) - 20, abi.ErrCorrupt},
		{"offset of the TOC", int64(len(blob)) - 21, abi.ErrCorrupt},
		{"TOC", int64(len(blob)) - 200, abi.ErrCorrupt},
		{"chunk", e.Offset + 40, abi.ErrCorrupt},
	}
	for _, tt := range tests {
		b := bytes.Clone(blob)
		b[tt.at] ^= 1
		checks, err := h.Check(t.Context(), host.CheckRequest{Image: foreignImage(t, layout(t.TempDir()), b, id, toc), Format: "estargz", Deep: true})
		if err == nil && len(checks[0].Problems) == 1 {
			err = checks[0].Problems[0].Class
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %+v, %v", tt.name, checks, err)
		}
	}
	for _, n := range []int{0, 1, 50, 51, 52, 100, len(blob) / 2, len(blob) - 1} {
		checks, err := h.Check(t.Context(), host.CheckRequest{Image: foreignImage(t, layout(t.TempDir()), blob[:n], id, toc), Format: "estargz", Deep: true})
		if err != nil || len(checks[0].Problems) == 0 {
			t.Errorf("%d bytes: %+v, %v", n, checks, err)
		}
	}
}

// TestInProcess holds the code against convhost's contract; TestSandbox and TestNative do so with what is built of it.
func TestInProcess(t *testing.T) {
	plugintest.Run(t, plugintest.Config{Open: plugintest.InProcess(sdk.InProcess(plugin{}))})
}

// TestSandbox builds the plugin as the README says, loads it by path, and wants the bytes of the same code in process.
func TestSandbox(t *testing.T) {
	module := filepath.Join(t.TempDir(), "estargz.wasm")
	build(t, module, []string{"GOOS=wasip1", "GOARCH=wasm"}, "-buildmode=c-shared")
	plugintest.Run(t, plugintest.Config{Open: plugintest.Wasm(module)})
	sameBytes(t, module)
}

// TestNative does the same with a process of its own.
func TestNative(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "convhost-plugin-estargz")
	build(t, exe, nil)
	plugintest.Run(t, plugintest.Config{Open: plugintest.Native(exe)})
	sameBytes(t, exe)
}

func build(t *testing.T, out string, env []string, flags ...string) {
	t.Helper()
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", out, ".")...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
}

func sameBytes(t *testing.T, path string) {
	t.Helper()
	src := makeImage(t, kitchen(), upper(), many())
	h := newHost(t)
	_, _, want := convert(t, h, "estargz", src, nil)
	dst, _, got := convert(t, h, path, src, nil)
	if got.Root.Digest != want.Root.Digest {
		t.Errorf("%s makes %s, in process it is %s", path, got.Root.Digest, want.Root.Digest)
	}
	res, err := h.Verify(t.Context(), host.VerifyRequest{Source: src, Converted: dst, Format: path})
	if err != nil || len(res) != 1 || len(res[0].Differences) != 0 {
		t.Errorf("verify: %+v, %v", res, err)
	}
}

// TestDebian converts a real image, which the repository is too small for.
func TestDebian(t *testing.T) {
	data := os.Getenv("CONVHOST_TESTDATA")
	if data == "" {
		t.Skip("CONVHOST_TESTDATA does not name a folder with images/debian-multi")
	}
	in := layout(filepath.Join(data, "images", "debian-multi"))
	_, l, res := convert(t, newHost(t), "estargz", "oci:"+string(in)+":amd64", nil)
	ids := diffIDs(t, l, res)
	for i, got := range res.Manifests[0].Layers {
		z, err := gzip.NewReader(bytes.NewReader(in.get(t, string(got.Source.Digest))))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		judge(t, l, got, ids[i], raw, 4<<20)
	}
}
