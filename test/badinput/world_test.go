package badinput

import (
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/host/graph/graphtest"
)

// bad is one case: what is wrong, in the words of the table, and how to make it.
type bad struct {
	what  string
	build func(w *world)
}

// world is the folder of one case, what is asked of convhost there and what must come of it. The source is oci:src:t.
type world struct {
	t   *testing.T
	dir string
	*graphtest.Store
	root ocispec.Descriptor // set by build, unless src is written by hand

	format  string            // "": nydus
	options map[string]string // of the plugin
	limits  host.Limits       // other than the defaults

	class abi.Class // 0: must work
	says  []string  // what the message must contain
	names []string  // what must be in the tar of an image that must work
	count int       // of the names in it, if not 0

	message string // what package host said
}

func newWorld(t *testing.T, b bad) *world {
	dir, err := os.MkdirTemp("", "bad") // its path becomes part of messages: t.TempDir is long
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, Store: graphtest.NewStore()}
	for _, d := range []string{"tmp", "home", "src/blobs/sha256"} {
		w.must(os.MkdirAll(filepath.Join(w.dir, d), 0o755))
	}
	b.build(w)
	w.writeLayout()
	return w
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Helper()
		w.t.Fatal(err)
	}
}

// fails says what the conversion must come to.
func (w *world) fails(class abi.Class, says ...string) {
	w.class, w.says = class, says
}

// file writes a file of the case's folder.
func (w *world) file(name string, mode os.FileMode, b []byte) {
	w.must(os.WriteFile(filepath.Join(w.dir, name), b, mode))
}

// writeLayout writes what is in the store as an OCI layout.
func (w *world) writeLayout() {
	for _, d := range w.Digests() {
		w.file("src/blobs/sha256/"+d.Encoded(), 0o644, w.Get(d))
	}
	w.file("src/oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	w.root.Annotations = map[string]string{ocispec.AnnotationRefName: "t"}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{w.root}})
	w.must(err)
	w.file("src/index.json", 0o644, index)
}

// stream puts a blob into the layout that is not held in memory.
func (w *world) stream(mediaType string, write func(io.Writer)) ocispec.Descriptor {
	path := filepath.Join(w.dir, "src/blobs/sha256/new")
	f, err := os.Create(path)
	w.must(err)
	sum := sha256.New()
	write(io.MultiWriter(f, sum))
	size, err := f.Seek(0, io.SeekCurrent)
	w.must(err)
	w.must(f.Close())
	d := digest.NewDigest(digest.SHA256, sum)
	w.must(os.Rename(path, filepath.Join(w.dir, "src/blobs/sha256", d.Encoded())))
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size}
}

// image makes the image of the case of these layers.
func (w *world) image(layers ...graphtest.Layer) {
	w.root = w.Image(graphtest.Image{Layers: layers})
}

// goodLayer is a layer with nothing wrong.
func goodLayer(s *graphtest.Store) graphtest.Layer {
	return s.Layer(map[string]string{"etc/motd": "hello\n", "usr/bin/true": "#!/bin/true\n"})
}

// notSuch is the digest of something that is nowhere.
var notSuch = digest.FromString("nothing has this content")
