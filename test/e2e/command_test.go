package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/test/ocidir"
)

const demo = "oci:../../testdata/demo/image:demo"

var workspace string // for the command and the cache of compiled plugins

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "convhost-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	workspace = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// build makes the command, once.
var build = sync.OnceValues(func() (string, error) {
	exe := filepath.Join(workspace, "convhost")
	if runtime.GOOS == "windows" {
		exe += ".exe"
	}
	cmd := exec.Command("go", "build", "-o", exe, "../../cmd/convhost")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return exe, nil
})

// run is one run of the command: its temporary directory is its own, its cache that of all runs.
type run struct {
	t   testing.TB
	tmp string
	env []string
}

func newRun(t testing.TB, env ...string) *run {
	t.Helper()
	r := &run{t: t, tmp: t.TempDir()}
	r.env = append(os.Environ(), "TMPDIR="+r.tmp, "TMP="+r.tmp, "TEMP="+r.tmp, "HOME="+filepath.Join(workspace, "home"),
		"XDG_CACHE_HOME="+filepath.Join(workspace, "cache"), "XDG_CONFIG_HOME="+filepath.Join(workspace, "config"),
		"CONVHOST_DEDUP=off") // every conversion is one
	r.env = append(r.env, env...)
	return r
}

func (r *run) command(args ...string) *exec.Cmd {
	r.t.Helper()
	if testing.Short() {
		r.t.Skip("skipped: -short, and this builds the command")
	}
	exe, err := build()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = r.env
	return cmd
}

// ok runs the command to its end and returns what it printed on standard output.
func (r *run) ok(args ...string) []byte {
	r.t.Helper()
	cmd := r.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("convhost %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// convert converts to nydus and returns the digest of the result's root.
func (r *run) convert(src, dst string, args ...string) digest.Digest {
	r.t.Helper()
	return r.convertTo("nydus", src, dst, args...)
}

// convertTo converts to a format and returns the digest of the result's root.
func (r *run) convertTo(format, src, dst string, args ...string) digest.Digest {
	r.t.Helper()
	out := r.ok(append([]string{"convert", "--json", "--progress", "none", "--format", format, src, dst}, args...)...)
	var doc struct {
		Results []struct{ Root ocispec.Descriptor }
	}
	if err := json.Unmarshal(out, &doc); err != nil || len(doc.Results) != 1 {
		r.t.Fatalf("%v: %s", err, out)
	}
	return doc.Results[0].Root.Digest
}

// files lists the files below dir, slash-separated.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		out = append(out, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// wantEmpty wants nothing below a temporary directory.
func wantEmpty(t testing.TB, dir string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		t.Errorf("debris in the temporary directory: %s", e.Name())
	}
}

// wantClean wants a layout with one tag and exactly the blobs that it reaches.
func wantClean(t testing.TB, dir, tag string, root digest.Digest) {
	t.Helper()
	d := ocidir.Open(t, dir)
	if n := len(d.Index().Manifests); n != 1 {
		t.Errorf("index.json has %d entries, want 1", n)
	}
	if got := d.Root(tag).Digest; got != root {
		t.Errorf("%s is %s, want %s", tag, got, root)
	}
	want := append(reach(t, d, d.Root(tag)), "index.json", "oci-layout")
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(files(t, dir), want) {
		t.Errorf("the layout has\n%s\nwant\n%s", strings.Join(files(t, dir), "\n"), strings.Join(want, "\n"))
	}
}

// reach reads everything below a descriptor, with digests checked, and returns the files.
func reach(t testing.TB, d *ocidir.Dir, desc ocispec.Descriptor) []string {
	t.Helper()
	b := d.Read(desc)
	out := []string{"blobs/sha256/" + desc.Digest.Encoded()}
	var doc struct {
		Manifests, Layers []ocispec.Descriptor
		Config            *ocispec.Descriptor
	}
	if !strings.Contains(desc.MediaType, "manifest") && !strings.Contains(desc.MediaType, "index") {
		return out
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Config != nil {
		doc.Layers = append(doc.Layers, *doc.Config)
	}
	for _, c := range append(doc.Manifests, doc.Layers...) {
		out = append(out, reach(t, d, c)...)
		if ref, ok := c.Annotations["containerd.io/snapshot/overlaybd/turbo-oci/target-digest"]; ok { // an original layer comes along
			out = append(out, "blobs/sha256/"+strings.TrimPrefix(ref, "sha256:"))
		}
	}
	return out
}
