package overlaybd_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
	"github.com/convhost/convhost/plugins/overlaybd/turbo"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
	"github.com/convhost/convhost/test/kitchen"
)

// sparse is a layer with a file that has holes, as GNU tar stores it with a map in pax records, and what the file holds.
func sparse() (layer, content []byte) {
	const hole = 300_000
	a, b := kitchen.Text(1, 5000), kitchen.Text(2, 9000)
	content = append(append(append([]byte{}, a...), make([]byte, hole)...), b...)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	list := fmt.Sprintf("2\n0\n%d\n%d\n%d\n", len(a), len(a)+hole, len(b))
	list += strings.Repeat("\x00", 512-len(list))
	// archive/tar does not write sparse files, but it lets these records through under another vendor's name of the same length
	h := &tar.Header{Typeflag: tar.TypeReg, Name: "GNUSparseFile.0/holes", Mode: 0o644, Size: int64(512 + len(a) + len(b)), ModTime: kitchen.Mtime, Format: tar.FormatPAX,
		PAXRecords: map[string]string{"XYZ.sparse.major": "1", "XYZ.sparse.minor": "0", "XYZ.sparse.name": "holes", "XYZ.sparse.realsize": fmt.Sprint(len(content))}}
	for _, err := range []error{w.WriteHeader(h), write(w, []byte(list)), write(w, a), write(w, b), w.Close()} {
		if err != nil {
			panic(err)
		}
	}
	return bytes.ReplaceAll(out.Bytes(), []byte("XYZ.sparse."), []byte("GNU.sparse.")), content
}

func write(w io.Writer, p []byte) error {
	_, err := w.Write(p)
	return err
}

func TestTurboConvert(t *testing.T) {
	holes, _ := sparse()
	all := append(chain(), holes)
	for name, o := range map[string]map[string]string{
		"default":    nil,
		"base layer": {"mkfs": "false"},
		"zstd":       {"compression": "zstd", "block-size": "32K"},
		"checksums":  {"checksums": "true", "vsize": "8G"},
		"small":      {"vsize": "64M", "inode-ratio": "4K"},
		"256 GiB":    {"vsize": "256"},
	} {
		t.Run(name, func(t *testing.T) {
			tars := all
			if o != nil {
				tars = all[1:4] // options make no difference to most
			}
			im := newTurboImage().mustConvert(t, o, tars...)
			im.mustBeSound(t)
			im.mustHold(t, tars...)
		})
	}
}

// A layer is a tar.gz that says what the runtime must know; its diff ID is that of the tar.
func TestTurboResponse(t *testing.T) {
	const dockerTar = "application/vnd.docker.image.rootfs.diff.tar"
	raw := base()
	for _, c := range []struct{ mediaType, made, target string }{
		{ociTarGzip, ociTarGzip, ociTarGzip},
		{ociTar, ociTarGzip, ociTar},
		{dockerTar + ".gzip", dockerTar + ".gzip", dockerTar + ".gzip"},
		{dockerTar, dockerTar + ".gzip", dockerTar}, // of what docker save wrote
	} {
		stored := raw
		if strings.HasSuffix(c.target, "gzip") {
			stored = gzipped(t, raw, 1)
		}
		im := newTurboImage()
		resp, err := im.convert(stored, c.mediaType, digest.FromBytes(raw).String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		p, b := resp.Parts[0], im.parts[0]
		sum := digest.FromBytes(b).String()
		want := map[string]string{
			"containerd.io/snapshot/overlaybd/version": "0.1.0-turbo.ociv1", "containerd.io/snapshot/overlaybd/blob-digest": sum,
			"containerd.io/snapshot/overlaybd/blob-size": fmt.Sprint(len(b)), targetDigest: digest.FromBytes(stored).String(), targetType: c.target,
		}
		if fmt.Sprint(p.Annotations) != fmt.Sprint(want) {
			t.Errorf("%s: annotations %v, want %v", c.mediaType, p.Annotations, want)
		}
		if len(resp.Parts) != 1 || p.Digest != sum || p.MediaType != c.made || p.DiffID != digest.FromBytes(gunzipped(t, b)).String() {
			t.Errorf("%s: %+v", c.mediaType, resp.Parts)
		}
		l := layerOf(t, b)
		if (l.Index != nil) != strings.HasSuffix(c.target, "gzip") || len(l.Notes) > 0 {
			t.Errorf("%s: index %v, %v", c.mediaType, l.Index, l.Notes)
		}
	}
	// The content decides, not the media type: docker's plain type around gzip.
	im := newTurboImage()
	resp, err := im.convert(gzipped(t, raw, 1), dockerTar, digest.FromBytes(raw).String(), nil)
	if err != nil || resp.Parts[0].Annotations[targetType] != dockerTar+".gzip" {
		t.Error(resp, err)
	}
}

func layerOf(t testing.TB, blob []byte) *turbo.Layer {
	t.Helper()
	l, err := turbo.Read(bytes.NewReader(blob), turbo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// warpOf returns the segments of a layer, with the file that they are in.
func warpOf(t testing.TB, blob []byte) (*lsmt.Layer, *zfile.File) {
	t.Helper()
	meta := layerOf(t, blob).Meta
	z, err := zfile.Open(meta, meta.Size, zfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := lsmt.Open(z, z.Size(), lsmt.Options{Target: strings.NewReader(""), TargetSize: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	return w, z
}

// Data stays in the tar: what the layer holds of its own is metadata, but for files that do not stand in one piece there.
func TestTurboIsSmall(t *testing.T) {
	data := kitchen.New()
	for i := range 20 {
		data.File(fmt.Sprintf("data/%d", i), kitchen.Noise(uint64(i), 500_000))
	}
	holes, content := sparse()
	im := newTurboImage().mustConvert(t, nil, data.Bytes(), holes)
	local := func(blob []byte) (own, remote int64) {
		w, _ := warpOf(t, blob)
		for _, s := range w.Segments() {
			if s.Remote {
				remote += int64(s.Length) * 512
			} else if !s.Zero {
				own += int64(s.Length) * 512
			}
		}
		return own, remote
	}
	if own, remote := local(im.parts[0]); own > 200_000 || remote < 20*500_000 || remote > 20*500_224 {
		t.Errorf("%d bytes here, %d in the tar", own, remote)
	}
	if own, remote := local(im.parts[1]); remote != 0 || own < 14_000 || own > 14_000+100_000 {
		t.Errorf("a sparse file: %d bytes here, %d in the tar", own, remote)
	}
	whole, err := im.unpack(1)
	if err != nil || !bytes.Contains(whole, content) {
		t.Error("the sparse file is another", err)
	}
	if w, z := warpOf(t, im.parts[0]); w.Header().VirtualSize != 64<<30 || w.Trailer().VirtualSize != 64<<30 || !z.Header().Complete() {
		t.Errorf("%+v", w.Header())
	}
}

// A block that a lower file left behind shows nothing of it behind the end of a new file.
func TestTurboTails(t *testing.T) {
	var tars [][]byte
	for i := range 9 { // more data than room: blocks are used again
		tars = append(tars, kitchen.New().File("file", bytes.Repeat([]byte{byte('a' + i)}, 4<<20-1000*i-3100)).Bytes())
	}
	im := newTurboImage().mustConvert(t, map[string]string{"vsize": "16M", "inode-ratio": "64K"}, tars...)
	var layers []*lsmt.Layer
	for i, b := range im.parts {
		meta := layerOf(t, b).Meta
		z, err := zfile.Open(meta, meta.Size, zfile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := lsmt.Open(z, z.Size(), lsmt.Options{Target: bytes.NewReader(tars[i]), TargetSize: int64(len(tars[i]))})
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	dev, err := lsmt.Stack(layers...)
	if err != nil {
		t.Fatal(err)
	}
	seen, p := 0, make([]byte, 4096)
	for _, s := range dev.Segments() {
		if !s.Remote || s.Tag != 0 || s.Length%8 == 0 {
			continue
		}
		last := int64(s.End()) / 8 * 4096
		if _, err := dev.ReadAt(p, last); err != nil {
			t.Fatal(err)
		}
		if end := bytes.TrimRight(p, "\x00"); len(bytes.Trim(end, string(end[:1]))) > 0 {
			t.Errorf("the block at %d holds the bytes of two files", last)
		}
		seen++
	}
	if seen != 1 {
		t.Errorf("%d ends of files", seen)
	}
	im.mustHold(t, tars[0], tars[len(tars)-1])
}

func TestTurboSameBytes(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	one := newTurboImage().mustConvert(t, nil, chain()...)
	runtime.GOMAXPROCS(2)
	two := newTurboImage().mustConvert(t, nil, chain()...)
	for i := range one.parts {
		if !bytes.Equal(one.parts[i], two.parts[i]) {
			t.Errorf("layer %d differs on two cores", i)
		}
	}
}

// Upstream's layer is read through ext4, index and original, and stacked on; so is an image with layers of both plugins.
func TestTurboUpstream(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(vectors.Shared(t, "overlaybd/turboci/"+name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	meta, index, original := read("ext4.fs.meta"), read("gzip.meta"), read("layer.tar.gz")
	var blob bytes.Buffer
	err := turbo.Write(&blob, turbo.Contents{FS: "ext4", Meta: bytes.NewReader(meta), MetaSize: int64(len(meta)), Index: bytes.NewReader(index), IndexSize: int64(len(index))})
	if err != nil {
		t.Fatal(err)
	}
	im := newTurboImage()
	sum := digest.FromBytes(original).String()
	im.add(gzipped(t, blob.Bytes(), 6), "", ociTarGzip, 0)
	im.infos[0].Annotations = map[string]string{targetDigest: sum}
	im.originals[sum] = original
	im.mustMatch(t, gunzipped(t, original))

	over := kitchen.New().File("data/new", kitchen.Text(9, 70_000)).Bytes()
	if _, err := im.convert(gzipped(t, over, 9), ociTarGzip, digest.FromBytes(over).String(), nil); err != nil {
		t.Fatal(err)
	}
	im.mustMatch(t, gunzipped(t, original), over)
}

// mustMatch is mustHold but for what upstream does not keep.
func (im *turboImage) mustMatch(t testing.TB, tars ...[]byte) {
	t.Helper()
	whole, err := im.unpack(-1)
	if err != nil {
		t.Fatal(err)
	}
	opt := flatten.CompareOptions{ImpliedUnspecified: true, WholeSeconds: true, Max: 20}
	for _, d := range flatten.Compare(flattened(t, tars...).Records(), flattened(t, whole).Records(), opt) {
		t.Errorf("tars first, image second: %v", d)
	}
	resp, err := im.check(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range resp.Problems { // upstream's mkfs and applier leave two faults in the file system
		if !strings.Contains(p.Message, "index of directory inode 11") && !strings.Contains(p.Message, "size of inode 13 is 0") {
			t.Errorf("check: %+v", p)
		}
	}
}

func TestTurboRefused(t *testing.T) {
	raw := base()
	diffID := digest.FromBytes(raw).String()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	gz := gzipped(t, raw, 6)
	half := len(raw) / 1024 * 512
	joined := append(gzipped(t, raw[:half], 6), gzipped(t, raw[half:], 6)...)
	bad := bytes.Clone(gz)
	bad[len(bad)-6] ^= 1
	for _, c := range []struct {
		name, mediaType, diffID string
		stored                  []byte
		options                 map[string]string
		class                   abi.Class
		says                    string
	}{
		{"zstd", ociTar + "+zstd", diffID, z.EncodeAll(raw, nil), nil, abi.ErrUnsupported, "format overlaybd"},
		{"two members", ociTarGzip, diffID, joined, nil, abi.ErrUnsupported, "as one member"},
		{"erofs", ociTarGzip, diffID, gz, map[string]string{"fstype": "erofs"}, abi.ErrUnsupported, "erofs"},
		{"diff ID", ociTarGzip, digest.FromString("x").String(), gz, nil, abi.ErrDigest, "digest"},
		{"cut", ociTarGzip, diffID, gz[:len(gz)-100], nil, abi.ErrTruncated, "gzip"},
		{"checksum", ociTarGzip, diffID, bad, nil, abi.ErrCorrupt, "gzip"},
		{"garbage behind", ociTarGzip, diffID, append(bytes.Clone(gz), "garbage"...), nil, abi.ErrCorrupt, "gzip"},
		{"no tar", ociTar, "", kitchen.Text(1, 3000), nil, abi.ErrCorrupt, "tar"},
		{"device too small", ociTarGzip, diffID, gz, map[string]string{"vsize": "1M"}, abi.ErrLimit, "vsize"},
		{"option", ociTarGzip, diffID, gz, map[string]string{"vsize": "0"}, abi.ErrInvalid, "vsize"},
	} {
		im := newTurboImage()
		_, err := im.convert(c.stored, c.mediaType, c.diffID, c.options)
		if len(im.parts) > 0 {
			t.Errorf("%s: half a result", c.name)
		}
		if err == nil || abi.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want class %v", c.name, err, c.class)
		}
	}
	padded := append(bytes.Clone(gz), make([]byte, 5000)...)
	im := newTurboImage()
	if _, err := im.convert(padded, ociTarGzip, diffID, nil); err != nil {
		t.Fatal("zeros behind the member:", err)
	}
	im.mustBeSound(t)
	im.mustHold(t, raw)
}
