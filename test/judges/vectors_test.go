package judges

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/test/ocidir"
	"github.com/convhost/convhost/test/rawrafs"
)

// vector is an image of upstream's making. Without layers it is the one layer of its own folder.
type vector struct {
	name   string
	expect string   // set of files that a reader must get out
	layers []string // folders of the layers of a merge
	inputs []string // tars that it was made of, for verify; nil: upstream's tree is not that of its input
	wrong  []string // what verify must find: upstream lets implied directories overwrite those of lower layers
}

var vectors = []vector{
	{"zstd-blake3-base", "base", nil, []string{"base"}, nil},
	{"zstd-blake3-mid", "mid", nil, []string{"mid"}, nil},
	{"zstd-blake3-top", "top", nil, []string{"top"}, nil},
	{"zstd-blake3-nodata", "nodata", nil, []string{"nodata"}, nil},
	{"zstd-blake3-dev", "dev", nil, []string{"dev"}, nil},
	{"zstd-blake3-tiny", "tiny", nil, []string{"tiny"}, nil},
	{"zstd-blake3-missing", "", nil, nil, nil},
	{"zstd-blake3-kitchen-4k", "kitchen", nil, []string{"kitchen"}, nil},
	{"lz4-sha256-base", "base", nil, []string{"base"}, nil},
	{"none-sha256-base", "base", nil, []string{"base"}, nil},
	{"zstd-base-16m", "base", nil, []string{"base"}, nil},
	{"plain-base", "base", nil, []string{"base"}, nil},
	{"toc-base", "base", nil, []string{"base"}, nil},
	{"inline-notoc-base", "base", nil, []string{"base"}, nil},
	{"prefetch-base", "base", nil, []string{"base"}, nil},
	{"merge-base-top", "base+top", []string{"zstd-blake3-base", "zstd-blake3-top"}, []string{"base", "top"}, nil},
	{"merge-base-mid", "base+mid", []string{"zstd-blake3-base", "zstd-blake3-mid"}, []string{"base", "mid"}, []string{`/ mtime`, `/data mtime`, `/usr mtime`}},
	{"merge-base-mid-top", "base+mid+top", []string{"zstd-blake3-base", "zstd-blake3-mid", "zstd-blake3-top"}, []string{"base", "mid", "top"}, []string{`/data mtime`}},
	{"merge-base-nodata-top", "base+nodata+top", []string{"zstd-blake3-base", "zstd-blake3-nodata", "zstd-blake3-top"}, []string{"base", "nodata", "top"}, nil},
	{"merge-prefetch-root", "base+mid", []string{"zstd-blake3-base", "zstd-blake3-mid"}, []string{"base", "mid"}, []string{`/ mtime`, `/data mtime`, `/usr mtime`}},
}

// beyond are vectors with features that this version does not have.
var beyond = []string{
	"ref-gz-base", "ref-gz2-base", "ref-gz2-zbig", "ref-gz2-zbig-plain", "ref-tar-base", "tarfs-base", "tarfs-kitchen", "tarfs-mid",
	"batch16k-zstd", "batch16k-none", "encrypt-base", "encrypt-inline-base", "encrypt-batch", "merge-ref",
	"merge-tarfs", "debian-ref3",
}

// vectorDirs are the folders to look into: those of the repository, and the complete set where it is.
func vectorDirs(t testing.TB) map[string]vectorDir {
	own := filepath.Join("..", "..", "plugins", "nydus", "rafs6", "testdata")
	dirs := map[string]vectorDir{"repository": {filepath.Join(own, "vectors"), filepath.Join(own, "in"), filepath.Join(own, "expect")}}
	if d := os.Getenv("CONVHOST_TESTDATA"); d != "" {
		v6 := filepath.Join(d, "nydus", "v6")
		dirs["complete"] = vectorDir{v6, filepath.Join(v6, "in"), filepath.Join(v6, "expect")}
	} else {
		t.Log("CONVHOST_TESTDATA is not set: only the vectors of the repository")
	}
	return dirs
}

type vectorDir struct{ vectors, in, expect string }

func read(t testing.TB, elem ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// has tells whether this set has a vector: the complete one must, the repository's is a part.
func (d vectorDir) has(t testing.TB, set, name string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(d.vectors, name))
	if err != nil && set == "complete" {
		t.Error(err)
	}
	return err == nil
}

// tar returns an input.
func (d vectorDir) tar(t testing.TB, name string) []byte {
	t.Helper()
	if b, err := os.ReadFile(filepath.Join(d.in, name+".tar")); err == nil {
		return b
	}
	z, err := gzip.NewReader(bytes.NewReader(read(t, d.in, name+".tar.gz")))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// blob returns the layer of a vector; tarfs and merges have none, there any bytes do.
func (d vectorDir) blob(name string) ocidir.Layer {
	b, err := os.ReadFile(filepath.Join(d.vectors, name, "layer.blob"))
	if err != nil {
		b = []byte("there is no layer.blob")
	}
	return ocidir.Layer{Bytes: b, MediaType: "application/vnd.oci.image.layer.nydus.blob.v1", DiffID: digest.FromBytes(b),
		Annotations: map[string]string{"containerd.io/snapshot/nydus-blob": "true"}}
}

// boot returns the bootstrap of a vector as a merged one, which names its blob by digest.
func (d vectorDir) boot(t testing.TB, name string, blob digest.Digest) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.vectors, name, "bootstrap"))
	if err == nil && name != "toc-base" {
		return b
	}
	if files, _ := filepath.Glob(filepath.Join(d.vectors, name, "*.boot")); len(files) == 1 {
		b = read(t, files[0])
	}
	return rawrafs.Rename(b, blob.Encoded())
}

// bootLayer makes the last layer of a nydus image, with the standard library.
func bootLayer(t testing.TB, boot []byte) ocidir.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := errors.Join(
		w.WriteHeader(&tar.Header{Name: "image/", Typeflag: tar.TypeDir, Mode: 0o755}),
		w.WriteHeader(&tar.Header{Name: "image/image.boot", Mode: 0o444, Size: int64(len(boot))})); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(boot); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l := ocidir.Gzip(buf.Bytes())
	l.MediaType = ocispec.MediaTypeImageLayerGzip
	l.Annotations = map[string]string{"containerd.io/snapshot/nydus-bootstrap": "true", "containerd.io/snapshot/nydus-fs-version": "6"}
	return l
}

// image makes an OCI image of a vector and returns its reference.
func (d vectorDir) image(t testing.TB, v vector) string {
	t.Helper()
	l := ocidir.New(t)
	var layers []ocidir.Layer
	for _, name := range append(v.layers, v.name)[:max(len(v.layers), 1)] {
		layers = append(layers, d.blob(name))
	}
	boot := d.boot(t, v.name, layers[0].DiffID)
	l.Image("v", append(layers, bootLayer(t, boot))...)
	return "oci:" + l.Path + ":v"
}

// expected reads the list of files that a reader must get out.
func (d vectorDir) expected(t testing.TB, set string) map[string]member {
	t.Helper()
	var list []struct {
		Path, Type, Mode, Target, Dev, SHA256 string
		UID, GID                              int
		Mtime                                 int64
		Xattrs                                map[string]string `json:"xattr_hex"`
		Group                                 string            `json:"hardlink_group"`
	}
	if err := json.Unmarshal(read(t, d.expect, set+".json"), &list); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]byte{"f": tar.TypeReg, "d": tar.TypeDir, "l": tar.TypeSymlink, "c": tar.TypeChar, "b": tar.TypeBlock, "p": tar.TypeFifo}
	out := map[string]member{}
	for _, e := range list {
		m := member{Kind: kinds[e.Type], UID: e.UID, GID: e.GID, Mtime: e.Mtime, Link: e.Target, Sum: sha256.Sum256(nil),
			Xattrs: map[string]string{}, Group: strings.Trim(e.Group, "/")}
		var err error
		if m.Mode, err = strconv.ParseInt(e.Mode, 8, 64); err != nil {
			t.Fatal(err)
		}
		if e.SHA256 != "" {
			if _, err := hex.Decode(m.Sum[:], []byte(e.SHA256)); err != nil {
				t.Fatal(err)
			}
		}
		if e.Dev != "" {
			if _, err := fmt.Sscanf(e.Dev, "%d:%d", &m.Major, &m.Minor); err != nil {
				t.Fatal(err)
			}
		}
		for k, v := range e.Xattrs {
			b, err := hex.DecodeString(v)
			if err != nil {
				t.Fatal(err)
			}
			m.Xattrs[k] = string(b)
		}
		out[clean(e.Path)] = m
	}
	return out
}

func TestUpstreamVectors(t *testing.T) {
	h := newHost(t)
	for set, d := range vectorDirs(t) {
		for _, v := range vectors {
			if d.has(t, set, v.name) {
				t.Run(set+"/"+v.name, func(t *testing.T) { d.judge(t, h, v) })
			}
		}
	}
}

// judge lets the host read, check and verify one vector.
func (d vectorDir) judge(t *testing.T, h *host.Host, v vector) {
	ref := d.image(t, v)
	var out bytes.Buffer
	if _, err := h.Unpack(t.Context(), host.UnpackRequest{Image: ref, Layer: -1, Out: &out}); err != nil {
		t.Fatal(err)
	}
	got := members(t, out.Bytes())
	if v.expect != "" {
		if diff := cmp.Diff(d.expected(t, v.expect), got); diff != "" {
			t.Errorf("unpack gives other files (-want +got):\n%.4000s", diff)
		}
	} else {
		missing(t, got)
	}
	for i, l := range v.layers {
		var out bytes.Buffer
		if _, err := h.Unpack(t.Context(), host.UnpackRequest{Image: ref, Layer: i, Out: &out}); err != nil {
			t.Errorf("layer %s: %v", l, err)
		}
	}
	checks, err := h.Check(t.Context(), host.CheckRequest{Image: ref, Deep: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		for _, p := range c.Problems {
			t.Errorf("check: %+v", p)
		}
	}
	if v.inputs != nil {
		d.verify(t, h, v, ref)
	}
}

// verify compares a vector with its input tars. Where upstream is wrong, verify must find it.
func (d vectorDir) verify(t *testing.T, h *host.Host, v vector, ref string) {
	l := ocidir.New(t)
	var layers []ocidir.Layer
	for _, name := range v.inputs {
		layers = append(layers, ocidir.Gzip(d.tar(t, name)))
	}
	l.Image("src", layers...)
	results, err := h.Verify(t.Context(), host.VerifyRequest{Source: "oci:" + l.Path + ":src", Converted: ref})
	var found []string
	for _, r := range results {
		for _, diff := range r.Differences {
			found = append(found, "/"+strings.TrimPrefix(diff.Path, "/")+" "+diff.Field)
		}
	}
	if diff := cmp.Diff(v.wrong, found); diff != "" {
		t.Errorf("verify finds other differences (-want +got):\n%s", diff)
	}
	if v.wrong == nil && err != nil || v.wrong != nil && !errors.Is(err, abi.ErrMismatch) {
		t.Errorf("verify: %v", err)
	}
}

// missing is what upstream makes of a tar without the entry aaa: the tree is wrong, but this is what is written there.
func missing(t testing.TB, got map[string]member) {
	t.Helper()
	for name, body := range map[string]string{"aaa/b/c/g": "g", "zzz/f": "a"} {
		if got[name].Sum != sha256.Sum256([]byte(body)) {
			t.Errorf("%s: want %q", name, body)
		}
	}
	if _, ok := got["aaa/f"]; ok {
		t.Error("aaa/f is there")
	}
}

func TestVectorsBeyond(t *testing.T) {
	h := newHost(t)
	for set, d := range vectorDirs(t) {
		for _, name := range beyond {
			if !d.has(t, set, name) {
				continue
			}
			t.Run(set+"/"+name, func(t *testing.T) {
				ref := d.image(t, vector{name: name})
				_, err := h.Unpack(t.Context(), host.UnpackRequest{Image: ref, Layer: -1, Out: io.Discard})
				wantUnsupported(t, err)
				_, err = h.Verify(t.Context(), host.VerifyRequest{Source: ref, Converted: ref})
				wantUnsupported(t, err)
				checks, err := h.Check(t.Context(), host.CheckRequest{Image: ref, Deep: true})
				if err != nil || len(checks) != 1 || len(checks[0].Problems) == 0 {
					t.Fatalf("check: %+v, %v", checks, err)
				}
				if p := checks[0].Problems[0]; !strings.Contains(fmt.Sprint(p), "not supported yet") {
					t.Errorf("check: first problem is %+v", p)
				}
			})
		}
	}
}

func wantUnsupported(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, abi.ErrUnsupported) || !strings.Contains(err.Error(), "not supported yet") {
		t.Errorf("error is %v, want %v: … not supported yet …", err, abi.ErrUnsupported)
	}
}

// A dictionary is not supported in a layer. A merged image that has the dictionary's blob among its layers says all that a
// reader needs: it is read right, or refused as not supported.
func TestVectorsDictionary(t *testing.T) {
	h := newHost(t)
	for set, d := range vectorDirs(t) {
		for _, name := range []string{"dict-user", "merge-dict"} {
			t.Run(set+"/"+name, func(t *testing.T) {
				own := d.blob("dict-user")
				l := ocidir.New(t)
				l.Image("v", own, d.blob("plain-base"), bootLayer(t, d.boot(t, name, own.DiffID)))
				ref := "oci:" + l.Path + ":v"
				_, err := h.Unpack(t.Context(), host.UnpackRequest{Image: ref, Layer: 0, Out: io.Discard})
				wantUnsupported(t, err)
				var out bytes.Buffer
				if _, err = h.Unpack(t.Context(), host.UnpackRequest{Image: ref, Layer: -1, Out: &out}); err != nil {
					wantUnsupported(t, err)
					return
				}
				if set != "complete" {
					return // only that set knows what comes out
				}
				if diff := cmp.Diff(d.expected(t, "dictuser"), members(t, out.Bytes())); diff != "" {
					t.Errorf("unpack gives other files (-want +got):\n%.4000s", diff)
				}
			})
		}
	}
}
