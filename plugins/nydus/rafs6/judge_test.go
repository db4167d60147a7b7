package rafs6

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/convhost/convhost/abi"
)

// judge lets upstream's nydus-image check a bootstrap whose own blob is called id.
func judge(t *testing.T, tool, id string, tree *Tree) {
	t.Helper()
	data, err := tree.Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), id+".boot")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, "check", "--bootstrap", name).CombinedOutput(); err != nil || !strings.Contains(string(out), "is valid") {
		t.Errorf("nydus-image check: %v\n%s", err, out)
	}
}

func upstream(t *testing.T) string {
	tool, err := exec.LookPath("nydus-image")
	if err != nil {
		if os.Getenv("CONVHOST_REQUIRE_JUDGES") != "" {
			t.Fatal("nydus-image is not installed, and CONVHOST_REQUIRE_JUDGES is set")
		}
		t.Skip("nydus-image is not installed")
	}
	return tool
}

func TestUpstreamAccepts(t *testing.T) {
	tool := upstream(t)
	names := []any{dir("", 0o755), symlink("long", strings.Repeat("t", 4095)), symlink("mid", strings.Repeat("t", 4033)), file("empty", "")}
	for k := range 300 {
		names = append(names, file("big/"+strings.Repeat("n", k%200)+dec(k), strings.Repeat("x", 50*k)))
	}
	x := dir("x", 0o700)
	// No ACL here: release 2.2.0 refuses the names of ACLs, which upstream's head writes and reads (they are in zstd-blake3-kitchen-4k).
	x.Xattrs = []abi.Xattr{{Key: "user.big", Value: make([]byte, 5000)}, {Key: "security.capability", Value: []byte{2, 0, 0, 0}}}
	low := layer(t, append(names, x, hardlink("h", "big/0"), abi.Entry{Kind: abi.KindFifo, Path: "p"}, symlink("lib", "usr/lib"))...)
	up := layer(t, file("lib/a/b", "1"), file("big/.wh.0", ""), file("x/.wh..wh..opq", ""), file("deep/"+strings.Repeat("d/", 100)+"f", "2"))
	for k, l := range []*Tree{low, up} {
		l.blobs[0].ID = strings.Repeat(string(rune('a'+k)), 64)
		judge(t, tool, l.blobs[0].ID, l)
	}
	judge(t, tool, "merged", merged(t, MergeOptions{}, low, up))
	judge(t, tool, "merged", merged(t, MergeOptions{Correct: true}, low, up))
}

// A layer of ours goes through upstream's unpack and comes back as the tar it was made from.
func TestUpstreamUnpacks(t *testing.T) {
	tool := upstream(t)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		t.Fatal(err)
	}
	var blob bytes.Buffer
	entries := tarEntries(t, inputTar(t, "base"))
	tree, err := build(plainOptions, entries, func(_ uint32, raw []byte) uint32 {
		z := enc.EncodeAll(raw, nil)
		if len(z) >= len(raw) {
			z = raw
		}
		blob.Write(z)
		return uint32(len(z))
	})
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("a", 64)
	tail, err := tree.WriteTail(&blob, TailOptions{
		Encode: func(_ abi.Codec, p []byte) ([]byte, error) { return enc.EncodeAll(p, nil), nil },
		BlobID: func() (string, error) { return id, nil }})
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	for name, p := range map[string][]byte{"boot": tail.Boot, id: blob.Bytes()} {
		if err := os.WriteFile(filepath.Join(tmp, name), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(tool, "unpack", "--bootstrap", filepath.Join(tmp, "boot"), "--blob", filepath.Join(tmp, id),
		"--output", filepath.Join(tmp, "out.tar")).CombinedOutput()
	if err != nil {
		t.Fatalf("nydus-image unpack: %v\n%s", err, out)
	}
	back := map[string]tarEntry{}
	for _, e := range tarEntries(t, readFile(t, filepath.Join(tmp, "out.tar"))) {
		back[e.Path] = e
	}
	for _, e := range entries {
		got, ok := back[e.Path]
		if e.Path == "" {
			continue // upstream leaves the root out
		}
		if e.Kind == abi.KindHardlink { // which name is the first may differ
			e.Kind, e.body, e.Size = got.Kind, got.body, got.Size
		}
		if got.Kind == abi.KindHardlink {
			got.Kind, got.body, got.Size = e.Kind, e.body, e.Size
		}
		if !ok || got.Kind != e.Kind || got.Mode != e.Mode || got.UID != e.UID || got.GID != e.GID || got.MtimeSec != e.MtimeSec ||
			got.Size != e.Size || !bytes.Equal(got.body, e.body) || e.Kind == abi.KindSymlink && got.Link != e.Link {
			t.Errorf("%s: came back as %+v, want %+v", e.Path, got.Entry, e.Entry)
		}
	}
	if len(back) != len(entries)-1 {
		t.Errorf("%d entries came back, want %d", len(back), len(entries)-1)
	}
}
