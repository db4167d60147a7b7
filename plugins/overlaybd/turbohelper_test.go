package overlaybd_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
	"github.com/convhost/convhost/plugins/overlaybd"
)

const (
	targetDigest = "containerd.io/snapshot/overlaybd/turbo-oci/target-digest"
	targetType   = "containerd.io/snapshot/overlaybd/turbo-oci/target-media-type"
	ociTar       = "application/vnd.oci.image.layer.v1.tar"
	ociTarGzip   = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// turboImage is a converted TurboOCI image in memory, with the original layers beside it.
type turboImage struct {
	image
	originals map[string][]byte // by digest
}

func newTurboImage() *turboImage { return &turboImage{originals: map[string][]byte{}} }

// convert puts a layer, as it is stored, on the image.
func (im *turboImage) convert(stored []byte, mediaType, diffID string, options map[string]string) (*abi.ConvertResponse, error) {
	sum := digest.FromBytes(stored).String()
	index := len(im.parts)
	info := abi.LayerInfo{
		Index: index, MediaType: mediaType, Digest: sum, Size: int64(len(stored)), DiffID: diffID,
		ChainID: digest.FromString(fmt.Sprint(index, sum)).String(),
	}
	outs := map[int]*sink{}
	resp := &abi.ConvertResponse{}
	err := callOf(overlaybd.NewTurbo(), abi.OpConvertLayer, &abi.ConvertRequest{Layer: info, Options: options, Parents: im.infos, Features: abi.Features()}, resp, session.Config{
		Input: abi.RoleLayerStored, Parents: im.grants(),
		Layer: &session.Layer{Open: opener(stored), MediaType: mediaType, Digest: sum, Size: info.Size, DiffID: diffID},
		OpenSink: func(i int) (session.Sink, error) {
			outs[i] = &sink{}
			return outs[i], nil
		},
	})
	if err != nil {
		return nil, err
	}
	for _, p := range resp.Parts {
		im.add(outs[p.Sink].Bytes(), p.Name, p.MediaType, index)
		im.infos[len(im.infos)-1].Annotations = p.Annotations
	}
	im.originals[sum] = stored
	return resp, nil
}

// mustConvert puts tars on the image: every other compressed, if not told otherwise.
func (im *turboImage) mustConvert(t testing.TB, options map[string]string, tars ...[]byte) *turboImage {
	t.Helper()
	for i, b := range tars {
		diffID, stored, mediaType := digest.FromBytes(b).String(), b, ociTar
		if i%2 == 0 {
			stored, mediaType = gzipped(t, b, 6), ociTarGzip
		}
		if _, err := im.convert(stored, mediaType, diffID, options); err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
	}
	return im
}

// granted is what a host grants for reading: the layers, then what they refer to.
func (im *turboImage) granted() (infos []abi.PartInfo, grants []session.Part) {
	infos, grants = append(infos, im.infos...), im.grants()
	for i, p := range im.infos {
		infos[i].Layer = i
		d := p.Annotations[targetDigest]
		b, ok := im.originals[d]
		if d == "" || !ok {
			continue
		}
		infos = append(infos, abi.PartInfo{Layer: i, Digest: d, Size: int64(len(b)), Ref: targetDigest})
		grants = append(grants, session.Part{At: bytes.NewReader(b), Size: int64(len(b))})
	}
	return infos, grants
}

func (im *turboImage) unpack(index int) ([]byte, error) {
	var out sink
	infos, grants := im.granted()
	err := callOf(overlaybd.NewTurbo(), abi.OpUnpack, &abi.UnpackRequest{Layer: index, Parts: infos, Features: abi.Features()}, &abi.UnpackResponse{},
		session.Config{Parts: grants, OpenSink: func(int) (session.Sink, error) { return &out, nil }})
	return out.Bytes(), err
}

func (im *turboImage) check(deep bool) (*abi.CheckResponse, error) {
	infos, grants := im.granted()
	resp := &abi.CheckResponse{}
	err := callOf(overlaybd.NewTurbo(), abi.OpCheck, &abi.CheckRequest{Parts: infos, Deep: deep}, resp, session.Config{Parts: grants})
	return resp, err
}

func (im *turboImage) mustBeSound(t testing.TB) {
	t.Helper()
	for _, deep := range []bool{false, true} {
		resp, err := im.check(deep)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range resp.Problems {
			t.Errorf("check: %+v", p)
		}
	}
}

// mustHold wants the image's file system, as a whole and layer for layer, to be that of the tars.
func (im *turboImage) mustHold(t testing.TB, tars ...[]byte) {
	t.Helper()
	whole, err := im.unpack(-1)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "whole", flattened(t, tars...), flattened(t, whole))
	var each [][]byte
	for i := range im.parts {
		b, err := im.unpack(i)
		if err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
		each = append(each, b)
	}
	compare(t, "layer for layer", flattened(t, tars...), flattened(t, each...))
}

// clone is a copy whose parts can be changed.
func (im *turboImage) clone() *turboImage {
	c := &turboImage{originals: maps.Clone(im.originals)}
	for i, b := range im.parts {
		c.parts, c.infos = append(c.parts, bytes.Clone(b)), append(c.infos, im.infos[i])
	}
	return c
}

func gzipped(t testing.TB, b []byte, level int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gunzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	z.Multistream(false) // zeros may follow
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
