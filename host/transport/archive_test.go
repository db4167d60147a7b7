package transport_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/transport"
)

func TestOCIArchiveRoundTrip(t *testing.T) {
	dir := t.TempDir()
	s := newSample(100_000)
	path := filepath.Join(dir, "x.tar")
	s.write(t, "oci-archive:"+path+":v1", transport.Options{})
	s.check(t, "oci-archive:"+path+":v1", transport.Options{})
	s.check(t, "oci-archive:"+path, transport.Options{})
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(s.order) // the order of pushes does not matter to the bytes
	s.write(t, "oci-archive:"+path+":v1", transport.Options{})
	if again, _ := os.ReadFile(path); !bytes.Equal(first, again) {
		t.Error("the archive depends on the order of pushes")
	}
	if got := tree(t, dir); !slices.Equal(got, []string{"x.tar"}) {
		t.Errorf("left behind: %v", got)
	}
	for name, b := range map[string][]byte{"x.tar.gz": gzipped(first), "x.tar.zst": zstded(t, first)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		tmp := t.TempDir()
		s.check(t, "oci-archive:"+filepath.Join(dir, name), transport.Options{TempDir: tmp})
		if left := tree(t, tmp); len(left) != 0 {
			t.Errorf("left in the temporary directory: %v", left)
		}
	}
}

func zstded(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

func TestOCIArchiveFailureKeepsTheOldOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.tar")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newSingle(1000)
	for _, transportName := range []string{"oci-archive:", "docker-archive:"} {
		dst := openTarget(t, transportName+path, transport.Options{})
		s.push(t, dst)
		if err := dst.Close(); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(path); string(b) != "old" {
			t.Error("the archive was touched")
		}
	}
	if got := tree(t, dir); !slices.Equal(got, []string{"x.tar"}) {
		t.Errorf("left behind: %v", got)
	}
}

func TestDockerArchiveRoundTrip(t *testing.T) {
	dir := t.TempDir()
	s := newSingle(100_000)
	ref := "docker-archive:" + filepath.Join(dir, "x.tar") + ":busybox:1"
	s.write(t, ref, transport.Options{})
	src := openSource(t, ref, transport.Options{})
	defer src.Close()
	root, err := src.Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := fetch(t.Context(), src, root)
	if err != nil {
		t.Fatal(err)
	}
	var m, want ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(s.blobs[s.root.Digest], &want); err != nil {
		t.Fatal(err)
	}
	if m.Config.Digest != want.Config.Digest || len(m.Layers) != 2 {
		t.Fatalf("manifest %s", b)
	}
	for i, l := range m.Layers {
		got, err := fetch(t.Context(), src, l)
		if err != nil || l.Digest != want.Layers[i].Digest || !bytes.Equal(got, s.blobs[l.Digest]) {
			t.Errorf("layer %d: %s, %v", i, l.Digest, err)
		}
	}
	if m.Layers[0].MediaType != "application/vnd.docker.image.rootfs.diff.tar.gzip" || m.Layers[1].MediaType != "application/vnd.docker.image.rootfs.diff.tar" {
		t.Errorf("layer types %s, %s", m.Layers[0].MediaType, m.Layers[1].MediaType)
	}
	if tags, err := src.Tags(t.Context()); err != nil || !slices.Equal(tags, []string{"docker.io/library/busybox:1"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
}

func TestDockerArchiveRefusesOtherLayers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tar")
	s := &sample{blobs: map[digest.Digest][]byte{}}
	s.root = s.addManifest("amd64", []ocispec.Descriptor{s.add("application/vnd.example.lazy", []byte("x"))}, []byte("x"))
	lazy := &sample{blobs: map[digest.Digest][]byte{}}
	tar := layerTar("a", 10)
	l := lazy.add(ocispec.MediaTypeImageLayer, tar)
	l.Annotations = map[string]string{"containerd.io/snapshot/overlaybd/blob-size": "10"}
	lazy.root = lazy.addManifest("amd64", []ocispec.Descriptor{l}, tar)
	for _, c := range []*sample{s, newSample(10), lazy} {
		dst := openTarget(t, "docker-archive:"+path, transport.Options{})
		c.push(t, dst)
		err := dst.Publish(t.Context(), c.root)
		wantClass(t, "publish", err, abi.ErrUnsupported)
		if !strings.Contains(err.Error(), "vnd.example.lazy") && !strings.Contains(err.Error(), "image.index.v1") && !strings.Contains(err.Error(), "blob-size") {
			t.Errorf("the type is not named: %v", err)
		}
		dst.Close()
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Error("an archive appeared")
		}
	}
}

type member struct {
	name, link, body string
	hard             bool
}

func tarOf(members ...member) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.body)), Typeflag: tar.TypeReg}
		switch {
		case m.link != "" && m.hard:
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, m.link, 0
		case m.link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, m.link, 0
		case strings.HasSuffix(m.name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		w.WriteHeader(h)
		w.Write([]byte(m.body))
	}
	w.Close()
	return buf.Bytes()
}

// dockerSave is what docker save wrote before it had a containerd store: two images that share a layer by a link.
func dockerSave() (archive []byte, layers [][]byte, config string) {
	layers = [][]byte{layerTar("base", 3000), layerTar("top", 100)}
	config = fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q,%q]}}`,
		digest.FromBytes(layers[0]), digest.FromBytes(layers[1]))
	name := digest.FromString(config).Encoded() + ".json"
	other := `{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + digest.FromBytes(layers[0]).String() + `"]}}`
	return tarOf(
		member{name: "aaa/"}, member{name: "aaa/VERSION", body: "1.0"}, member{name: "aaa/layer.tar", body: string(layers[0])},
		member{name: "bbb/layer.tar", body: string(layers[1])}, member{name: "ccc/layer.tar", link: "../aaa/layer.tar"},
		member{name: "ddd/layer.tar", link: "ccc/layer.tar", hard: true},
		member{name: name, body: config}, member{name: "other.json", body: other},
		member{name: "manifest.json", body: fmt.Sprintf(`[{"Config":%q,"RepoTags":["demo:v1","r.io/demo:v2"],"Layers":["aaa/layer.tar","bbb/layer.tar"]},`+
			`{"Config":"other.json","RepoTags":null,"Layers":["ddd/layer.tar"]}]`, name)},
		member{name: "repositories", body: `{}`},
	), layers, config
}

func TestDockerSaveOldStyle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "save.tar")
	archive, layers, config := dockerSave()
	if err := os.WriteFile(path, archive, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{":demo:v1", ":r.io/demo:v2", ":docker.io/library/demo:v1", ":@0"} {
		src := openSource(t, "docker-archive:"+path+suffix, transport.Options{})
		root, err := src.Resolve(t.Context())
		if err != nil {
			t.Fatal(suffix, err)
		}
		// The manifest as docker would push these bytes, computed by hand.
		want := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":%q,"size":%d},"layers":[`+
			`{"mediaType":"application/vnd.docker.image.rootfs.diff.tar","digest":%q,"size":%d},{"mediaType":"application/vnd.docker.image.rootfs.diff.tar","digest":%q,"size":%d}]}`,
			digest.FromString(config), len(config), digest.FromBytes(layers[0]), len(layers[0]), digest.FromBytes(layers[1]), len(layers[1]))
		b, err := fetch(t.Context(), src, root)
		var got, exp any
		json.Unmarshal(b, &got)
		json.Unmarshal([]byte(want), &exp)
		delete(got.(map[string]any), "mediaType")
		if err != nil || fmt.Sprint(got) != fmt.Sprint(exp) || root.MediaType != "application/vnd.docker.distribution.manifest.v2+json" {
			t.Errorf("%s: %s %s, %v\nwant %s", suffix, root.MediaType, b, err, want)
		}
		src.Close()
	}
	src := openSource(t, "docker-archive:"+path+":@1", transport.Options{}) // through a hard link to a symbolic link
	if _, err := src.Resolve(t.Context()); err != nil {
		t.Error(err)
	}
	if b, err := fetch(t.Context(), src, ocispec.Descriptor{Digest: digest.FromBytes(layers[0]), Size: int64(len(layers[0]))}); err != nil || !bytes.Equal(b, layers[0]) {
		t.Errorf("linked layer: %v", err)
	}
	src.Close()
	for suffix, class := range map[string]abi.Class{"": abi.ErrInvalid, ":demo:v3": abi.ErrNotFound, ":@2": abi.ErrNotFound} {
		src := openSource(t, "docker-archive:"+path+suffix, transport.Options{})
		_, err := src.Resolve(t.Context())
		wantClass(t, suffix, err, class)
		if !strings.Contains(err.Error(), "demo:v1, r.io/demo:v2") {
			t.Errorf("%q does not list tags: %v", suffix, err)
		}
		src.Close()
	}
}

// TestDockerSaveNewStyle reads an OCI layout that docker save made, as both kinds of archive.
func TestDockerSaveNewStyle(t *testing.T) {
	dir := t.TempDir()
	s := newSingle(3000)
	s.write(t, "oci:"+filepath.Join(dir, "layout")+":latest", transport.Options{})
	var members []member
	for _, name := range tree(t, filepath.Join(dir, "layout")) {
		if b, err := os.ReadFile(filepath.Join(dir, "layout", name)); err == nil {
			members = append(members, member{name: name, body: string(b)})
		}
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(s.blobs[s.root.Digest], &m); err != nil {
		t.Fatal(err)
	}
	blob := func(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }
	members = append(members, member{name: "manifest.json", body: fmt.Sprintf(`[{"Config":%q,"RepoTags":["demo:latest"],"Layers":[%q,%q]}]`,
		blob(m.Config.Digest), blob(m.Layers[0].Digest), blob(m.Layers[1].Digest))})
	path := filepath.Join(dir, "save.tar")
	if err := os.WriteFile(path, tarOf(members...), 0o644); err != nil {
		t.Fatal(err)
	}
	s.check(t, "oci-archive:"+path+":latest", transport.Options{})
	src := openSource(t, "docker-archive:"+path+":demo", transport.Options{})
	defer src.Close()
	if _, err := src.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range append(m.Layers, m.Config) {
		if got, err := fetch(t.Context(), src, d); err != nil || !bytes.Equal(got, s.blobs[d.Digest]) {
			t.Errorf("%s: %v", d.Digest, err)
		}
	}
}

func TestArchivesRefuse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tar")
	good, _, config := dockerSave()
	name := digest.FromString(config).Encoded() + ".json"
	manifest := func(text string) member { return member{name: "manifest.json", body: text} }
	for _, c := range []struct {
		what  string
		bytes []byte
		class abi.Class
	}{
		{"empty", nil, abi.ErrCorrupt},
		{"no tar", []byte(strings.Repeat("nonsense", 200)), abi.ErrCorrupt},
		{"no manifest", tarOf(member{name: "x", body: "y"}), abi.ErrNotFound},
		{"bad manifest", tarOf(manifest("{")), abi.ErrCorrupt},
		{"absent config", tarOf(manifest(`[{"Config":"absent"}]`)), abi.ErrNotFound},
		{"absent layer", tarOf(member{name: name, body: config}, manifest(`[{"Config":"`+name+`","Layers":["../../etc/passwd"]}]`)), abi.ErrNotFound},
		{"config of another digest", tarOf(member{name: name, body: config + " "}, manifest(`[{"Config":"`+name+`","Layers":[]}]`)), abi.ErrDigest},
		{"endless links", tarOf(member{name: "a", link: "b"}, member{name: "b", link: "a"}, manifest(`[{"Config":"a"}]`)), abi.ErrNotFound},
		{"many layers", tarOf(manifest(`[{"Config":"a","Layers":["x"` + strings.Repeat(`,"x"`, 600) + `]}]`)), abi.ErrLimit},
		{"cut gzip", gzipped(good)[:200], abi.ErrTruncated},
		{"cut zstd", zstded(t, good)[:200], abi.ErrTruncated},
		{"broken gzip", append(gzipped(good)[:20], []byte(strings.Repeat("x", 400))...), abi.ErrCorrupt},
	} {
		if err := os.WriteFile(path, c.bytes, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := transport.OpenSource(t.Context(), parse(t, "docker-archive:"+path), transport.Options{TempDir: t.TempDir()})
		wantClass(t, c.what, err, c.class)
	}
	_, err := transport.OpenSource(t.Context(), parse(t, "oci-archive:"+path+".absent"), transport.Options{})
	wantClass(t, "absent", err, abi.ErrNotFound)
}

// TestArchiveTruncation cuts at every header and body edge: never a success with less than everything.
func TestArchiveTruncation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tar")
	good, _, _ := dockerSave()
	end := len(bytes.TrimRight(good, "\x00"))
	needed := bytes.Index(good, []byte(`["ddd/layer.tar"]}]`)) + len(`["ddd/layer.tar"]}]`) // manifest.json ends here
	for cut := 0; cut < end; cut += 256 {
		for _, n := range []int{cut - 1, cut, cut + 1} {
			if n < 0 || n >= end {
				continue
			}
			if err := os.WriteFile(path, good[:n], 0o644); err != nil {
				t.Fatal(err)
			}
			src, err := transport.OpenSource(t.Context(), parse(t, "docker-archive:"+path+":demo:v1"), transport.Options{})
			if err == nil { // only what follows manifest.json may be missing
				if n < needed {
					t.Errorf("cut at %d of %d: no error", n, len(good))
				}
				src.Close()
				continue
			}
			if !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrNotFound) {
				t.Errorf("cut at %d: %v", n, err)
			}
		}
	}
}

// FuzzArchive: whatever the bytes are, opening ends with an error of a known class, or every blob that the root names
// can be read and has its digest.
func FuzzArchive(f *testing.F) {
	old, _, _ := dockerSave()
	f.Add(old)
	f.Add(gzipped(old))
	s := newSingle(100)
	var members []member
	for _, d := range s.order {
		members = append(members, member{name: "blobs/sha256/" + d.Digest.Encoded(), body: string(s.blobs[d.Digest])})
	}
	members = append(members, member{name: "index.json", body: fmt.Sprintf(`{"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		s.root.MediaType, s.root.Digest, s.root.Size)})
	f.Add(tarOf(members...))
	path := filepath.Join(f.TempDir(), "x.tar")
	tmp := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"oci-archive:", "docker-archive:"} {
			src, err := transport.OpenSource(t.Context(), parse(t, name+path), transport.Options{TempDir: tmp})
			if err != nil {
				known(t, err)
				continue
			}
			root, err := src.Resolve(t.Context())
			if err != nil {
				known(t, err)
			} else if doc, err := fetch(t.Context(), src, root); err != nil {
				known(t, err)
			} else if digest.FromBytes(doc) != root.Digest && root.Digest.Algorithm() == digest.SHA256 {
				t.Fatalf("the root's bytes have another digest")
			}
			src.Close()
		}
	})
}

func known(t *testing.T, err error) {
	t.Helper()
	for _, c := range []abi.Class{abi.ErrCorrupt, abi.ErrNotFound, abi.ErrInvalid, abi.ErrLimit, abi.ErrUnsupported} {
		if errors.Is(err, c) {
			return
		}
	}
	t.Fatalf("class %q: %v", abi.ClassOf(err).Error(), err)
}
