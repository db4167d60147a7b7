package overlaybd_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
	"github.com/convhost/convhost/plugins/overlaybd/turbo"
	"github.com/convhost/convhost/test/kitchen"
)

// rebuild replaces members of a layer's blob.
func rebuild(t testing.TB, blob []byte, change func(meta, index []byte) (m, i []byte)) []byte {
	t.Helper()
	l := layerOf(t, blob)
	read := func(m *turbo.Member) []byte {
		if m == nil {
			return nil
		}
		b, err := io.ReadAll(io.NewSectionReader(m, 0, m.Size))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	meta, index := change(read(&l.Meta), read(l.Index))
	c := turbo.Contents{FS: "ext4", Meta: bytes.NewReader(meta), MetaSize: int64(len(meta))}
	if index != nil {
		c.Index, c.IndexSize = bytes.NewReader(index), int64(len(index))
	}
	var out bytes.Buffer
	if err := turbo.Write(&out, c); err != nil {
		t.Fatal(err)
	}
	return gzipped(t, out.Bytes(), 6)
}

// Images that are broken, or whose originals are: unpacking ends with an error that says what, and check finds it.
func TestTurboBroken(t *testing.T) {
	good := newTurboImage().mustConvert(t, nil, kitchen.New().File("data/a", kitchen.Text(1, 200_000)).Bytes(), kitchen.New().File("data/b", kitchen.Text(2, 90_000)).Bytes(),
		kitchen.New().File("data/c", kitchen.Text(3, 10_000)).Bytes())
	first := good.infos[0].Annotations[targetDigest]
	for name, c := range map[string]struct {
		change func(im *turboImage)
		class  abi.Class
		says   string
	}{
		"no original": {func(im *turboImage) { delete(im.originals, first) }, abi.ErrNotFound, first},
		"another original of that size": {func(im *turboImage) {
			b := bytes.Clone(im.originals[first])
			b[len(b)/2] ^= 1
			im.originals[first] = b
		}, abi.ErrDigest, first},
		"a longer original":  {func(im *turboImage) { im.originals[first] = append(bytes.Clone(im.originals[first]), 0) }, abi.ErrDigest, "gzip_file_size"},
		"a shorter original": {func(im *turboImage) { im.originals[first] = im.originals[first][:1000] }, abi.ErrDigest, "gzip_file_size"},
		"a cut plain tar": {func(im *turboImage) {
			d := im.infos[1].Annotations[targetDigest]
			im.originals[d] = im.originals[d][:20_000]
		}, abi.ErrCorrupt, "index entry source"},
		"wrong order": {func(im *turboImage) {
			im.parts[1], im.parts[2] = im.parts[2], im.parts[1]
			im.infos[1], im.infos[2] = im.infos[2], im.infos[1]
			im.infos[1].Layer, im.infos[2].Layer = 1, 2
		}, abi.ErrCorrupt, "order"},
		"a layer that is cut": {func(im *turboImage) { im.parts[2] = im.parts[2][:len(im.parts[2])/2] }, abi.ErrTruncated, "layer 2"},
		"not an archive":      {func(im *turboImage) { im.parts[2] = kitchen.Text(1, 5000) }, abi.ErrCorrupt, "layer 2"},
		"erofs": {func(im *turboImage) {
			var out bytes.Buffer
			if err := turbo.Write(&out, turbo.Contents{FS: "erofs", Meta: strings.NewReader("x"), MetaSize: 1}); err != nil {
				panic(err)
			}
			im.parts[2] = out.Bytes()
		}, abi.ErrUnsupported, "erofs"},
		"a cut index": {func(im *turboImage) {
			im.parts[0] = rebuild(t, im.parts[0], func(m, i []byte) ([]byte, []byte) { return m, i[:len(i)-1] })
		}, abi.ErrTruncated, "gzip index"},
		"a broken index": {func(im *turboImage) {
			im.parts[0] = rebuild(t, im.parts[0], func(m, i []byte) ([]byte, []byte) { i[25]++; return m, i })
		}, abi.ErrDigest, "gzip index"},
		"a broken window": {func(im *turboImage) {
			im.parts[0] = rebuild(t, im.parts[0], func(m, i []byte) ([]byte, []byte) { i[340] ^= 0xff; return m, i })
		}, abi.ErrCorrupt, "gzip index"},
		"no index for gzip": {func(im *turboImage) {
			im.parts[0] = rebuild(t, im.parts[0], func(m, _ []byte) ([]byte, []byte) { return m, nil })
		}, abi.ErrCorrupt, "index entry source"},
		"cut metadata": {func(im *turboImage) {
			im.parts[0] = rebuild(t, im.parts[0], func(m, i []byte) ([]byte, []byte) { return m[:len(m)-10], i })
		}, abi.ErrTruncated, "zfile"},
		"broken metadata": {func(im *turboImage) {
			im.parts[0] = rebuild(t, im.parts[0], func(m, i []byte) ([]byte, []byte) { m[600] ^= 1; return m, i })
		}, abi.ErrDigest, "zfile"},
	} {
		im := good.clone()
		c.change(im)
		resp, err := im.check(true)
		if err != nil || len(resp.Problems) == 0 {
			t.Errorf("%s: check says %v, %v", name, resp, err)
		}
		_, err = im.unpack(-1)
		if name == "wrong order" { // a matter of check and of converting; what is on the device then is another question
			continue
		}
		wantError(t, err, c.class, c.says)
	}
	good.mustBeSound(t)
}

// Originals are not needed to stack on a layer, and metadata in them is refused.
func TestTurboStacksWithoutOriginals(t *testing.T) {
	im := newTurboImage().mustConvert(t, nil, chain()[:2]...)
	im.originals = map[string][]byte{}
	tar := kitchen.New().File("data/c", kitchen.Text(3, 10_000)).Bytes()
	if _, err := im.convert(tar, ociTar, digest.FromBytes(tar).String(), nil); err != nil {
		t.Fatal(err)
	}
}

// law: any bytes as a stored layer are refused with a known class, or the image holds what the tar says.
func FuzzTurboConvert(f *testing.F) {
	small := kitchen.New().File("a", kitchen.Text(1, 5000)).File("b", nil).Bytes()
	f.Add(small)
	f.Add(gzipped(f, small, 6))
	f.Add(append(gzipped(f, small, 1), gzipped(f, small, 1)...))
	f.Fuzz(func(t *testing.T, stored []byte) {
		im := newTurboImage()
		if _, err := im.convert(stored, ociTarGzip, "", map[string]string{"vsize": "16M"}); err != nil {
			vectors.Known(t, err)
			return
		}
		whole, err := im.unpack(-1)
		if err != nil {
			t.Fatal(err)
		}
		raw := stored
		if bytes.HasPrefix(stored, []byte("\x1f\x8b")) {
			raw = gunzipped(t, stored)
		}
		tree := flatten.New(flatten.Options{})
		if _, err := tree.ApplyTar(context.Background(), layer.NewReader(bytes.NewReader(raw), layer.Limits{})); err != nil {
			t.Fatal("the tar is refused, the image was made:", err)
		}
		compare(t, "whole", tree, flattened(t, whole))
	})
}

// law: a layer's blob of any bytes is refused with a known class, or unpacked.
func FuzzTurboUnpack(f *testing.F) {
	good := newTurboImage().mustConvert(f, map[string]string{"vsize": "16M"}, kitchen.New().File("a", kitchen.Text(1, 5000)).File("b", nil).Bytes())
	tar := gunzipped(f, good.parts[0])
	f.Add(uint32(0), []byte{}, tar)
	f.Add(uint32(1000), []byte{1, 2, 3}, tar)
	f.Fuzz(func(t *testing.T, off uint32, patch, blob []byte) {
		im := good.clone()
		if len(blob) > 0 {
			copy(blob[int(off)%len(blob):], patch)
		}
		im.parts[0] = blob
		im.infos[0].Size = int64(len(blob))
		if _, err := im.unpack(-1); err != nil {
			vectors.Known(t, err)
		}
		resp, err := im.check(true)
		if err != nil {
			vectors.Known(t, err)
		}
		_ = resp
	})
}
