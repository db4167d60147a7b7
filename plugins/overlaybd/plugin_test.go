package overlaybd_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
	"github.com/convhost/convhost/plugins/overlaybd/tarshell"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
	"github.com/convhost/convhost/test/kitchen"
)

func opener(b []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// base is the kitchen's first layer without a file whose 9 KB of attributes ext4 cannot hold.
func base() []byte {
	var out bytes.Buffer
	w, r := tar.NewWriter(&out), tar.NewReader(bytes.NewReader(kitchen.Base()))
	for {
		h, err := r.Next()
		if err != nil {
			break
		}
		if h.Name == "x/large" {
			continue
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		if _, err := io.Copy(w, r); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// chain is an image of layers that show all that layers can do.
func chain() [][]byte {
	change := kitchen.New().File("data/one-changed-file", kitchen.Text(5, 300))
	return [][]byte{base(), kitchen.Edits(), kitchen.Special(), kitchen.Implied(), kitchen.NoData(), change.Bytes()}
}

func TestConvert(t *testing.T) {
	for name, o := range map[string]map[string]string{
		"default":    nil,
		"base layer": {"mkfs": "false"},
		"zstd":       {"compression": "zstd", "block-size": "32K"},
		"checksums":  {"checksums": "true", "vsize": "8G"},
		"not sparse": {"disable-sparse": "true", "vsize": "1"},
		"small":      {"vsize": "64M", "inode-ratio": "4K"},
		"256 GiB":    {"vsize": "256"},
	} {
		t.Run(name, func(t *testing.T) {
			im := new(image).mustConvert(t, o, chain()...)
			im.mustBeSound(t)
			im.mustHold(t, chain()...)
		})
	}
}

// A layer is what upstream's tools write around a file system: a tar with a ZFile with an LSMT file whose UUID tells of the chain.
func TestShells(t *testing.T) {
	im := new(image).mustConvert(t, nil, chain()...)
	var below lsmt.UUID
	for i, b := range im.parts {
		shell, ok, err := tarshell.Find(bytes.NewReader(b), int64(len(b)))
		if err != nil || !ok || shell.Offset != tarshell.HeaderSize {
			t.Fatalf("layer %d: %+v %v %v", i, shell, ok, err)
		}
		r := io.NewSectionReader(bytes.NewReader(b), shell.Offset, shell.Size)
		z, err := zfile.Open(r, shell.Size, zfile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if h := z.Header(); !h.Complete() || h.BlockSize != 4096 || h.Algorithm != zfile.LZ4 || !h.Verify {
			t.Errorf("layer %d: %+v", i, h)
		}
		l, err := lsmt.Open(z, z.Size(), lsmt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		h := l.Header()
		if h.VirtualSize != 64<<30 || h.Parent != below || h.UUID == below {
			t.Errorf("layer %d: %+v, want 64 GiB and parent %v", i, h, below)
		}
		below = h.UUID
		errs, notes := lsmt.Check(z, z.Size(), lsmt.Options{})
		if len(errs)+len(notes) > 0 {
			t.Errorf("layer %d: %v %v", i, errs, notes)
		}
	}
}

func TestResponse(t *testing.T) {
	im := &image{}
	resp, err := im.convert(base(), nil)
	if err != nil {
		t.Fatal(err)
	}
	p, b := resp.Parts[0], im.parts[0]
	sum := digest.FromBytes(b).String()
	want := map[string]string{
		"containerd.io/snapshot/overlaybd/version": "0.1.0", "containerd.io/snapshot/overlaybd/blob-digest": sum,
		"containerd.io/snapshot/overlaybd/blob-size": "",
	}
	if len(resp.Parts) != 1 || p.Digest != sum || p.DiffID != "" || p.MediaType != "application/vnd.oci.image.layer.v1.tar" {
		t.Errorf("%+v", resp.Parts)
	}
	for k, v := range want {
		if got, ok := p.Annotations[k]; !ok || v != "" && got != v {
			t.Errorf("annotation %s is %q, want %q", k, got, v)
		}
	}
	if len(p.Annotations) != len(want) {
		t.Errorf("annotations %v, want these alone: %v", p.Annotations, want)
	}
}

// A file that changes costs its blocks and what names it, in however big an image.
func TestChangeIsSmall(t *testing.T) {
	big := kitchen.New()
	for i := range 5000 {
		big.File("usr/lib/"+strings.Repeat("d", i%7+1)+"/file"+string(rune('a'+i%26))+strings.Repeat("x", i/26), kitchen.Text(uint64(i), 900))
	}
	im := new(image).mustConvert(t, nil, big.Bytes(), kitchen.New().File("usr/lib/d/filea", []byte("changed\n")).Bytes())
	if n := len(im.parts[1]); n > 8<<10 {
		t.Errorf("one changed file among 5000: a layer of %d bytes, want a few KiB", n)
	}
}

func TestSameBytes(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	one := new(image).mustConvert(t, nil, chain()...)
	runtime.GOMAXPROCS(4)
	four := new(image).mustConvert(t, nil, chain()...)
	for i := range one.parts {
		if !bytes.Equal(one.parts[i], four.parts[i]) {
			t.Errorf("layer %d differs on several cores", i)
		}
	}
}

// Layers that upstream made are read, and stacked on.
func TestUpstream(t *testing.T) {
	one, two := vectors.Layer(t, "layer1.tar"), vectors.Layer(t, "layer2.tar")
	upstream := &image{}
	upstream.add(vectors.Layer(t, "layer1.overlaybd"), "", "", 0)
	ours := &image{parts: upstream.parts[:1:1], infos: upstream.infos[:1:1]}
	upstream.add(vectors.Layer(t, "layer2.overlaybd"), "", "", 1)
	if _, err := ours.convert(two, nil); err != nil {
		t.Fatal(err)
	}
	for name, im := range map[string]*image{"upstream's": upstream, "ours on upstream's": ours} {
		whole, err := im.unpack(-1)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want, got := flattened(t, one, two), flattened(t, whole)
		if want.Len() != got.Len() {
			t.Errorf("%s: %d files, want %d", name, got.Len(), want.Len())
		}
		if _, err := im.check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBaseLayer(t *testing.T) {
	made := &image{}
	resp, err := made.convert(base(), map[string]string{"mkfs": "false"})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Parts) != 2 || resp.Parts[0].Name != "base" || resp.Parts[1].Name != "layer" {
		t.Fatalf("parts %+v", resp.Parts)
	}
	again := new(image).mustConvert(t, map[string]string{"mkfs": "false"}, kitchen.Edits())
	if !bytes.Equal(made.parts[0], again.parts[0]) {
		t.Error("the base layer depends on what lies upon it")
	}
	shell, _, err := tarshell.Find(bytes.NewReader(made.parts[0]), int64(len(made.parts[0])))
	if err != nil {
		t.Fatal(err)
	}
	// The same file system as a dictionary, without a tar, as upstream's ext4_64 comes.
	bare := made.parts[0][shell.Offset : shell.Offset+shell.Size]
	given := &image{}
	if _, err := given.convert(base(), map[string]string{"mkfs": "false"}, bare); err != nil {
		t.Fatal(err)
	}
	head, err := tarshell.PlainHeader(int64(len(bare)))
	if err != nil {
		t.Fatal(err)
	}
	if want := append(append(head, bare...), tarshell.Trailer(int64(len(bare)))...); !bytes.Equal(given.parts[0], want) {
		t.Error("a base layer without a tar gets another one than the plain")
	}
	given.mustHold(t, kitchen.New().Bytes(), base())
	if _, err := new(image).convert(base(), nil, bare); abi.ClassOf(err) != abi.ErrInvalid {
		t.Errorf("a dictionary with mkfs=true: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for name, bad := range map[string]string{
		"mkfs": "yes", "vsize": "0", "fstype": "erofs", "compression": "gzip", "block-size": "64K", "disable-sparse": "1",
		"checksums": "on", "inode-ratio": "1",
	} {
		_, err := new(image).convert(kitchen.NoData(), map[string]string{name: bad})
		wantError(t, err, abi.ErrInvalid, name)
	}
	for _, v := range []string{"-1", "64T", "99999", "1.5", "64G1", "4095K1", "17179869184", "99999999999999999999"} {
		_, err := new(image).convert(kitchen.NoData(), map[string]string{"vsize": v})
		wantError(t, err, abi.ErrInvalid, "vsize="+v+":")
	}
}

func TestBadInput(t *testing.T) {
	good := new(image).mustConvert(t, nil, base(), kitchen.Edits(), kitchen.Special())
	with := func(i int, b []byte) *image {
		im := &image{parts: append([][]byte(nil), good.parts...), infos: good.infos}
		im.parts[i] = b
		return im
	}
	flip := func(b []byte, off int) []byte {
		b = bytes.Clone(b)
		b[off] ^= 0x40
		return b
	}
	swapped := with(0, good.parts[1])
	swapped.parts[1] = good.parts[0]
	for _, c := range []struct {
		name  string
		im    *image
		class abi.Class
		words string
	}{
		{"cut", with(1, good.parts[1][:4000]), abi.ErrTruncated, "layer 1"},
		{"empty", with(1, nil), abi.ErrTruncated, "layer 1"},
		{"no shell at all", with(1, kitchen.Noise(1, 9000)), abi.ErrCorrupt, "layer 1"},
		{"the source's tar", with(1, base()), abi.ErrUnsupported, "layer 1"},
		{"block of a file, which only check reads", with(0, flip(good.parts[0], 4000)), 0, ""},
		{"jump table", with(0, flip(good.parts[0], len(good.parts[0])-2600)), abi.ErrCorrupt, "layer 0"},
		{"wrong order", swapped, abi.ErrCorrupt, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.im.convert(kitchen.NoData(), nil)
			if c.class != 0 && (!errors.Is(err, c.class) || !strings.Contains(err.Error(), c.words)) {
				t.Errorf("convert upon it: %v, want %v and %q", err, c.class, c.words)
			}
			resp, err := c.im.check()
			if err != nil || len(resp.Problems) == 0 {
				t.Errorf("check: %v, %v", resp, err)
			}
		})
	}
}

func TestTooSmall(t *testing.T) {
	_, err := new(image).convert(kitchen.New().File("large", kitchen.Noise(1, 3<<20)).Bytes(), map[string]string{"vsize": "2M"})
	wantError(t, err, abi.ErrLimit, "vsize")
	files := kitchen.New()
	for i := range 2000 {
		files.Add(tar.Header{Typeflag: tar.TypeFifo, Name: "f" + strings.Repeat("i", i%100) + string(rune('a'+i/100))}, nil)
	}
	_, err = new(image).convert(files.Bytes(), map[string]string{"vsize": "16M", "inode-ratio": "64K"})
	wantError(t, err, abi.ErrLimit, "inode-ratio")
}

func TestTooManyLayers(t *testing.T) {
	im := new(image).mustConvert(t, nil, kitchen.NoData())
	for len(im.parts) < 255 {
		im.add(im.parts[0], "", "", len(im.parts))
	}
	_, err := im.convert(kitchen.NoData(), nil)
	wantError(t, err, abi.ErrLimit, "255", "squash")
}
