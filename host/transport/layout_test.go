package transport_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
	"github.com/convhost/convhost/host/transport"
)

// TestMain makes the test binary a second writer of a layout: tags from..to, then it says ready and waits to be killed
// with a target open.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TRANSPORT_TEST_LAYOUT"); dir != "" {
		if err := secondWriter(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func secondWriter(dir string) error {
	for i := range 50 {
		if err := tagOnce(context.Background(), dir, fmt.Sprint("other-", i)); err != nil {
			return err
		}
	}
	ref, err := transport.ParseReference("oci:" + dir + ":never")
	if err != nil {
		return err
	}
	dst, err := transport.OpenTarget(context.Background(), ref, transport.Options{})
	if err != nil {
		return err
	}
	b := []byte("left behind")
	err = dst.Push(context.Background(), ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))},
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
	if err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

func tagOnce(ctx context.Context, dir, tag string) error {
	ref, err := transport.ParseReference("oci:" + dir + ":" + tag)
	if err != nil {
		return err
	}
	dst, err := transport.OpenTarget(ctx, ref, transport.Options{})
	if err != nil {
		return err
	}
	defer dst.Close()
	b := []byte(`{"schemaVersion":2,"manifests":[],"annotations":{"x":"` + tag + `"}}`)
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := dst.Push(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }); err != nil {
		return err
	}
	return dst.Publish(ctx, d)
}

func TestLayoutRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "er", "layout")
	s := newSample(100_000)
	s.write(t, "oci:"+dir+":v1", transport.Options{})
	s.check(t, "oci:"+dir+":v1", transport.Options{})
	s.check(t, "oci:"+dir, transport.Options{})
	s.check(t, "oci:"+dir+":@0", transport.Options{})
	s.check(t, "oci:"+dir+"@"+s.root.Digest.String(), transport.Options{})
	want := []string{"blobs", "blobs/sha256", "index.json", "oci-layout"}
	for _, d := range s.order {
		want = append(want, "blobs/sha256/"+d.Digest.Encoded())
	}
	got := tree(t, dir)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("files:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// A document that only a digest names.
	m := s.order[len(s.order)-2]
	src := openSource(t, "oci:"+dir+"@"+m.Digest.String(), transport.Options{})
	defer src.Close()
	if d, err := src.Resolve(t.Context()); err != nil || d.Digest != m.Digest || d.MediaType != m.MediaType || d.Size != m.Size {
		t.Errorf("by digest: %+v, %v", d, err)
	}
	// The same again changes nothing.
	before, _ := os.ReadFile(filepath.Join(dir, "index.json"))
	s.write(t, "oci:"+dir+":v1", transport.Options{})
	if after, _ := os.ReadFile(filepath.Join(dir, "index.json")); !bytes.Equal(before, after) {
		t.Errorf("index.json changed from\n%s to\n%s", before, after)
	}
}

func TestLayoutKeepsWhatItDoesNotKnow(t *testing.T) {
	dir := t.TempDir()
	old := `{"schemaVersion":2,"x":[1, 2],"manifests":[` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + hex64 + `","size":7,"y":{"z":1},"annotations":{"org.opencontainers.image.ref.name":"old"}},` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + hex64 + `","size":7,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}`
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newSingle(10)
	s.write(t, "oci:"+dir+":v1", transport.Options{})
	got, _ := os.ReadFile(filepath.Join(dir, "index.json"))
	for _, part := range []string{`"x":[1,2]`, `"y":{"z":1}`, `"old"`, s.root.Digest.String()} {
		if !strings.Contains(string(got), part) {
			t.Errorf("index.json lost %s:\n%s", part, got)
		}
	}
	if n := strings.Count(string(got), `"v1"`); n != 1 {
		t.Errorf("%d entries for v1", n)
	}
	s.check(t, "oci:"+dir+":v1", transport.Options{})
}

func TestLayoutTags(t *testing.T) {
	dir := t.TempDir()
	entry := func(d, ann string) string {
		return `{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:` + strings.Repeat(d, 64) + `","size":2,"annotations":{` + ann + `}}`
	}
	index := `{"schemaVersion":2,"manifests":[` + strings.Join([]string{
		entry("1", `"org.opencontainers.image.ref.name":"b"`),
		entry("2", `"io.containerd.image.name":"docker.io/library/x:a"`),
		entry("3", `"org.opencontainers.image.ref.name":"twice"`),
		entry("4", `"org.opencontainers.image.ref.name":"twice"`)}, ",") + `]}`
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]string{"b": "1", "a": "2", "docker.io/library/x:a": "2"} {
		src := openSource(t, "oci:"+dir+":"+tag, transport.Options{})
		if d, err := src.Resolve(t.Context()); err != nil || d.Digest.Encoded() != strings.Repeat(want, 64) {
			t.Errorf("%s: %s, %v", tag, d.Digest, err)
		}
		src.Close()
	}
	for suffix, class := range map[string]abi.Class{"": abi.ErrInvalid, ":twice": abi.ErrInvalid, ":absent": abi.ErrNotFound, ":@4": abi.ErrNotFound,
		":b@sha256:" + hex64: abi.ErrNotFound, "@sha256:" + hex64: abi.ErrNotFound} {
		src := openSource(t, "oci:"+dir+suffix, transport.Options{})
		_, err := src.Resolve(t.Context())
		wantClass(t, suffix, err, class)
		if strings.HasPrefix(suffix, ":") == false && suffix == "" && !strings.Contains(err.Error(), "docker.io/library/x:a, ") {
			t.Errorf("%q does not list the tags: %v", suffix, err)
		}
		src.Close()
	}
	src := openSource(t, "oci:"+dir, transport.Options{})
	if tags, err := src.Tags(t.Context()); err != nil || !slices.Equal(tags, []string{"b", "docker.io/library/x:a", "twice"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
	src.Close()
	_, err := src.Tags(t.Context())
	wantClass(t, "after close", err, abi.ErrInvalid)
}

func TestLayoutReadsOnlyWhatIsPromised(t *testing.T) {
	dir := t.TempDir()
	s := newSingle(5000)
	s.write(t, "oci:"+dir+":v1", transport.Options{})
	layer := s.order[0]
	path := filepath.Join(dir, "blobs", "sha256", layer.Digest.Encoded())
	good := s.blobs[layer.Digest]
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	src := openSource(t, "oci:"+dir+":v1", transport.Options{})
	defer src.Close()
	for name, b := range map[string][]byte{"flipped": flipped, "short": good[:len(good)-1], "long": append(bytes.Clone(good), 0), "empty": nil} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := fetch(t.Context(), src, layer)
		wantClass(t, name, err, abi.ErrDigest)
		if len(got) >= len(good) {
			t.Errorf("%s: %d bytes were given away", name, len(got))
		}
		dst := openTarget(t, "oci:"+dir+":v2", transport.Options{})
		if ok, err := dst.Has(t.Context(), layer); ok || err != nil {
			t.Errorf("%s: a damaged blob counts as present: %v", name, err)
		}
		dst.Close()
	}
	s.write(t, "oci:"+dir+":v1", transport.Options{}) // repairs it
	s.check(t, "oci:"+dir+":v1", transport.Options{})
	for _, d := range []ocispec.Descriptor{{Digest: "sha256:../../../etc/passwd", Size: 1}, {Digest: layer.Digest, Size: -1}} {
		_, err := src.Fetch(t.Context(), d)
		wantClass(t, string(d.Digest), err, abi.ErrInvalid)
	}
	ctx, cancel := context.WithCancel(t.Context())
	rc, err := src.Fetch(ctx, layer)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	cancel()
	_, err = io.ReadAll(rc)
	wantClass(t, "cancelled", err, abi.ErrCanceled)
}

func TestLayoutIndexHostile(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		text  string
		class abi.Class
	}{
		{"", abi.ErrCorrupt}, {"[]", abi.ErrCorrupt}, {`{"manifests":`, abi.ErrCorrupt}, {`{"manifests":[{"digest":"sha256:x","size":1}]}`, abi.ErrCorrupt},
		{`{"manifests":[{"digest":"sha256:` + hex64 + `","size":-1}]}`, abi.ErrCorrupt},
		{`{"manifests":[` + strings.Repeat(" ", cas.MaxDocument) + `]}`, abi.ErrLimit},
	} {
		if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := transport.OpenSource(t.Context(), parse(t, "oci:"+dir), transport.Options{})
		wantClass(t, c.text[:min(len(c.text), 50)], err, c.class)
	}
	_, err := transport.OpenSource(t.Context(), parse(t, "oci:"+filepath.Join(dir, "absent")), transport.Options{})
	wantClass(t, "absent", err, abi.ErrNotFound)
	_, err = transport.OpenSource(t.Context(), parse(t, "oci:"+filepath.Join(dir, "index.json")), transport.Options{})
	wantClass(t, "file", err, abi.ErrInvalid)
}

func TestLayoutFailureLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	s := newSingle(1000)
	layer := s.order[0]
	dst := openTarget(t, "oci:"+filepath.Join(parent, "a", "b")+":v1", transport.Options{})
	s.push(t, dst)
	other := layer
	other.Digest = digest.FromString("other")
	wantClass(t, "push other bytes", dst.Push(t.Context(), other, s.opener(layer)), abi.ErrDigest)
	wantClass(t, "publish what was not pushed", dst.Publish(t.Context(), other), abi.ErrNotFound)
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, parent); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	wantClass(t, "push after close", dst.Push(t.Context(), layer, s.opener(layer)), abi.ErrInvalid)
	if err := os.WriteFile(filepath.Join(parent, "mine.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := transport.OpenTarget(t.Context(), parse(t, "oci:"+parent), transport.Options{})
	wantClass(t, "directory with other things", err, abi.ErrExists)
	for _, suffix := range []string{":@0", "@sha256:" + hex64} {
		_, err := transport.OpenTarget(t.Context(), parse(t, "oci:"+parent+suffix), transport.Options{})
		wantClass(t, suffix, err, abi.ErrInvalid)
	}
	if got := tree(t, parent); !slices.Equal(got, []string{"mine.txt"}) {
		t.Errorf("left behind: %v", got)
	}
}

func TestLayoutRemovedBlobIsNoticed(t *testing.T) {
	dir := t.TempDir()
	s := newSingle(1000)
	s.write(t, "oci:"+dir+":v1", transport.Options{})
	dst := openTarget(t, "oci:"+dir+":v2", transport.Options{})
	defer dst.Close()
	for _, d := range s.order {
		if ok, err := dst.Has(t.Context(), d); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	os.Remove(filepath.Join(dir, "blobs", "sha256", s.order[0].Digest.Encoded()))
	wantClass(t, "publish", dst.Publish(t.Context(), s.root), abi.ErrExists)
}

func TestLayoutTwoProcessesAndTwoGoroutines(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "TRANSPORT_TEST_LAYOUT="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			for i := range 50 {
				if err := tagOnce(t.Context(), dir, fmt.Sprint("tag-", g, "-", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	wg.Wait()
	if line != "ready\n" {
		t.Errorf("second process said %q", line)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := tagOnce(t.Context(), dir, "last"); err != nil {
		t.Fatal(err)
	}
	src := openSource(t, "oci:"+dir+":last", transport.Options{})
	defer src.Close()
	if tags, err := src.Tags(t.Context()); err != nil || len(tags) != 151 {
		t.Errorf("%d tags, want 151; %v", len(tags), err)
	}
	for _, name := range tree(t, dir) {
		if strings.Contains(name, ".convhost") {
			t.Errorf("debris: %s", name)
		}
	}
}

// TestLayoutLinks: blobs of a store beside the layout are not copied.
func TestLayoutLinks(t *testing.T) {
	parent := t.TempDir()
	store, err := cas.OpenEphemeral(t.Context(), parent)
	if err != nil {
		t.Fatal(err)
	}
	s := newSingle(100_000)
	dst := openTarget(t, "oci:"+filepath.Join(parent, "out")+":v1", transport.Options{})
	defer dst.Close()
	for _, d := range s.order {
		if _, err := cas.Copy(t.Context(), store, d, bytes.NewReader(s.blobs[d.Digest]), nil); err != nil {
			t.Fatal(err)
		}
		err := dst.Push(t.Context(), d, func() (io.ReadCloser, error) {
			ra, err := store.Open(t.Context(), d)
			if err != nil {
				return nil, err
			}
			return transport.BlobReader(ra), nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := dst.Publish(t.Context(), s.root); err != nil {
		t.Fatal(err)
	}
	ra, err := store.Open(t.Context(), s.order[0])
	if err != nil {
		t.Fatal(err)
	}
	f, ok := cas.FileOf(ra)
	if !ok {
		t.Fatal("a blob of the store has no file")
	}
	a, _ := f.Stat()
	b, err := os.Stat(filepath.Join(parent, "out", "blobs", "sha256", s.order[0].Digest.Encoded()))
	if err != nil || !os.SameFile(a, b) {
		t.Errorf("the blob was copied, not linked (%v)", err)
	}
	ra.Close()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	s.check(t, "oci:"+filepath.Join(parent, "out"), transport.Options{})
}

type failing struct{ n int }

func (f *failing) Read(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		return 0, errors.New("broken")
	}
	p[0] = 'x'
	return 1, nil
}

func TestVerify(t *testing.T) {
	b := []byte("hello")
	d := ocispec.Descriptor{Digest: digest.FromBytes(b), Size: 5}
	read := func(r io.Reader, d ocispec.Descriptor) (string, error) {
		got, err := io.ReadAll(transport.Verify(io.NopCloser(r), d))
		return string(got), err
	}
	if got, err := read(bytes.NewReader(b), d); got != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := read(strings.NewReader(""), ocispec.Descriptor{Digest: digest.FromString("")}); got != "" || err != nil {
		t.Errorf("empty: %q, %v", got, err)
	}
	for _, text := range []string{"hell", "hellp", "hello!", ""} {
		_, err := read(strings.NewReader(text), d)
		wantClass(t, text, err, abi.ErrDigest)
	}
	_, err := read(&failing{n: 3}, d)
	wantClass(t, "failing", err, abi.ErrIO)
	// Whoever reads exactly the size gets the verdict too.
	_, err = io.ReadFull(transport.Verify(io.NopCloser(strings.NewReader("hellp")), d), make([]byte, 5))
	wantClass(t, "exact read", err, abi.ErrDigest)
}
