package judges

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/convhost/convhost/plugins/nydus/rafs6"
	"github.com/convhost/convhost/test/judge"
	"github.com/convhost/convhost/test/rawrafs"
)

// upstream is nydus-image beside one converted image.
type upstream struct {
	t     testing.TB
	tool  string
	dir   string
	boots []string // files with the bootstraps of the layers, named as merge wants them
}

func newUpstream(t testing.TB, c *converted) *upstream {
	t.Helper()
	u := &upstream{t: t, tool: judge.Tool(t, "nydus-image"), dir: t.TempDir()}
	for i, b := range c.layers {
		u.boots = append(u.boots, u.write(c.blobs[i].Digest.Encoded()+".boot", b))
	}
	return u
}

func (u *upstream) write(name string, b []byte) string {
	u.t.Helper()
	p := filepath.Join(u.dir, name)
	if err := os.WriteFile(p, b, 0o600); err != nil {
		u.t.Fatal(err)
	}
	return p
}

// check lets it read the whole tree of a bootstrap.
func (u *upstream) check(file string) {
	u.t.Helper()
	if out := judge.Run(u.t, u.tool, "check", "--log-level", "warn", "--bootstrap", file); !strings.Contains(out, "is valid") {
		u.t.Errorf("check %s:\n%s", file, out)
	}
}

// merge lets it merge the bootstraps of the layers.
func (u *upstream) merge(patterns string) []byte {
	u.t.Helper()
	out := filepath.Join(u.dir, "upstream.boot")
	args := []string{"merge", "--log-level", "warn", "--bootstrap", out}
	if patterns != "" {
		args = append(args, "--prefetch-policy", "fs")
	}
	judge.Input(u.t, patterns, u.tool, append(args, u.boots...)...)
	b, err := os.ReadFile(out)
	if err != nil {
		u.t.Fatal(err)
	}
	return b
}

// unpack lets it turn a bootstrap with at most one blob, which is all that release 2.2 can, back into a tar.
func (u *upstream) unpack(boot, blob string) []byte {
	u.t.Helper()
	out := filepath.Join(u.dir, "unpacked.tar")
	judge.Run(u.t, u.tool, "unpack", "--log-level", "warn", "--bootstrap", boot, "--blob", blob, "--output", out)
	b, err := os.ReadFile(out)
	if err != nil {
		u.t.Fatal(err)
	}
	return b
}

// patterns are what nydus-image reads from standard input for an option prefetch.
func patterns(o map[string]string) string {
	p := o["prefetch"]
	switch p {
	case "none":
		return ""
	case "":
		p = "/"
	}
	return strings.ReplaceAll(p, ",", "\n") + "\n"
}

// ourMerge merges bootstraps with our codec.
func ourMerge(t testing.TB, c *converted, correct bool, o map[string]string) []byte {
	t.Helper()
	m := rafs6.NewMerger(rafs6.MergeOptions{Correct: correct, Prefetch: strings.Fields(patterns(o))})
	for i, b := range c.layers {
		tree, err := rafs6.Open(b)
		if err == nil {
			err = m.Add(tree, c.blobs[i].Digest.Encoded())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tree, err := m.Finish()
	if err != nil {
		t.Fatal(err)
	}
	b, err := tree.Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// same compares two merged bootstraps but for what releases of nydus-image write differently.
func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	got, want = rawrafs.Canonical(got), rawrafs.Canonical(want)
	if bytes.Equal(got, want) {
		return
	}
	n, first := 0, -1
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			if n++; first < 0 {
				first = i
			}
		}
	}
	t.Errorf("%s: %d bytes differ from nydus-image merge, the first at %#x; %d bytes, want %d", what, n, first, len(got), len(want))
}

// judgeImage is everything nydus-image can say about a converted image. plain says that no layer implies a directory of a
// lower one and that the lowest has no whiteouts: there, and only there, we merge as upstream does.
func judgeImage(t *testing.T, c *converted, o map[string]string, plain bool) *upstream {
	u := newUpstream(t, c)
	for _, b := range u.boots {
		u.check(b)
	}
	u.check(u.write("ours.boot", c.boot))
	theirs := u.merge(patterns(o))
	same(t, "our merge without corrections", ourMerge(t, c, false, o), theirs)
	if plain {
		same(t, "our image", c.boot, theirs)
	}
	return u
}

func TestNydusImage(t *testing.T) {
	judge.Tool(t, "nydus-image")
	h := newHost(t)
	for tag := range images {
		src := source(t, tag)
		sets := optionSets()
		if tag != "kitchen" {
			sets = []map[string]string{{}, sets[1], sets[12], sets[23]}
		}
		for _, o := range sets {
			t.Run(tag+"/"+nameOf(o), func(t *testing.T) {
				c := convert(t, h, src, "", o)
				u := judgeImage(t, c, o, tag != "odd")
				if tag == "special" {
					return // its unpack aborts on device nodes and fifos
				}
				if len(images[tag]) == 1 {
					wantEqualTrees(t, u.unpack(filepath.Join(u.dir, "ours.boot"), c.dir.Blob(c.blobs[0].Digest)), images[tag])
				}
				for i, b := range c.layers {
					id := c.blobs[i].Digest
					own := u.write("own.boot", rawrafs.Rename(b, id.Encoded()))
					wantEqualTars(t, u.unpack(own, c.dir.Blob(id)), images[tag][i])
				}
			})
		}
	}
}

func TestNydusImageDemo(t *testing.T) {
	judge.Tool(t, "nydus-image")
	h := newHost(t)
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		c := convert(t, h, demo+":demo", platform, nil)
		judgeImage(t, c, nil, false)
	}
}

func TestNydusImageDebian(t *testing.T) {
	src := debian(t)
	judge.Tool(t, "nydus-image")
	h := newHost(t)
	for _, o := range []map[string]string{{}, {"compressor": "lz4_block", "digester": "sha256", "chunk-size": "0x10000"}} {
		judgeImage(t, convert(t, h, src, "", o), o, false)
	}
}
