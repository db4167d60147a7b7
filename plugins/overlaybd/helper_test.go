package overlaybd_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/internal/session"
	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/sdk"
)

// call runs one operation of the plugin as a host does, in this process.
func call(op abi.Op, req, resp abi.Message, grants session.Config) error {
	return callOf(overlaybd.New(), op, req, resp, grants)
}

func callOf(p sdk.Plugin, op abi.Op, req, resp abi.Message, grants session.Config) error {
	grants.Pool = accel.NewPool(2, 16<<20)
	defer grants.Pool.Close()
	s := session.New(context.Background(), grants)
	defer s.Abort()
	answer, err := sdk.InProcess(p).Call(context.Background(), op, abi.Marshal(req), s)
	if err == nil {
		err = s.Finish()
	}
	if err != nil {
		return err
	}
	return abi.Unmarshal(answer, resp)
}

// image is a converted image in memory.
type image struct {
	parts [][]byte
	infos []abi.PartInfo
}

func (im *image) grants() (out []session.Part) {
	for _, b := range im.parts {
		out = append(out, session.Part{At: bytes.NewReader(b), Size: int64(len(b))})
	}
	return out
}

func (im *image) add(b []byte, name, mediaType string, layer int) {
	im.parts = append(im.parts, b)
	im.infos = append(im.infos, abi.PartInfo{Name: name, MediaType: mediaType, Layer: layer, Digest: digest.FromBytes(b).String(), Size: int64(len(b))})
}

// sink is an output in memory.
type sink struct{ bytes.Buffer }

func (*sink) Close(abi.StreamInfo) error { return nil }
func (*sink) Abort()                     {}

// convert puts a layer on the image.
func (im *image) convert(tar []byte, options map[string]string, dicts ...[]byte) (*abi.ConvertResponse, error) {
	sum := digest.FromBytes(tar).String()
	index := len(im.parts)
	info := abi.LayerInfo{
		Index: index, MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: sum, Size: int64(len(tar)), DiffID: sum,
		ChainID: digest.FromString(fmt.Sprint(index, sum)).String(),
	}
	grants := session.Config{
		Input: abi.RoleLayerEntries, Parents: im.grants(),
		Layer: &session.Layer{Open: opener(tar), MediaType: info.MediaType, Digest: sum, Size: info.Size, DiffID: sum},
	}
	req := &abi.ConvertRequest{Layer: info, Options: options, Parents: im.infos, Features: abi.Features()}
	for _, d := range dicts {
		req.Dicts = append(req.Dicts, abi.PartInfo{Digest: digest.FromBytes(d).String(), Size: int64(len(d))})
		grants.Dicts = append(grants.Dicts, session.Part{At: bytes.NewReader(d), Size: int64(len(d))})
	}
	outs := map[int]*sink{}
	grants.OpenSink = func(i int) (session.Sink, error) {
		outs[i] = &sink{}
		return outs[i], nil
	}
	resp := &abi.ConvertResponse{}
	if err := call(abi.OpConvertLayer, req, resp, grants); err != nil {
		return nil, err
	}
	for _, p := range resp.Parts {
		im.add(outs[p.Sink].Bytes(), p.Name, p.MediaType, index)
	}
	return resp, nil
}

func (im *image) mustConvert(t testing.TB, options map[string]string, tars ...[]byte) *image {
	t.Helper()
	for i, b := range tars {
		if _, err := im.convert(b, options); err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
	}
	return im
}

// unpack returns the tar of a layer, or of all if it is -1.
func (im *image) unpack(index int) ([]byte, error) {
	var out sink
	req := &abi.UnpackRequest{Layer: index, Parts: im.infos, Features: abi.Features()}
	err := call(abi.OpUnpack, req, &abi.UnpackResponse{}, session.Config{
		Parts: im.grants(), OpenSink: func(int) (session.Sink, error) { return &out, nil },
	})
	return out.Bytes(), err
}

func (im *image) check() (*abi.CheckResponse, error) {
	resp := &abi.CheckResponse{}
	err := call(abi.OpCheck, &abi.CheckRequest{Parts: im.infos, Deep: true}, resp, session.Config{Parts: im.grants()})
	return resp, err
}

// mustBeSound fails the test if the plugin's own check finds something.
func (im *image) mustBeSound(t testing.TB) {
	t.Helper()
	resp, err := im.check()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range resp.Problems {
		t.Errorf("check: %+v", p)
	}
}

// flattened is what containerd would make of tars.
func flattened(t testing.TB, tars ...[]byte) *flatten.Tree {
	t.Helper()
	tree := flatten.New(flatten.Options{})
	for _, b := range tars {
		tree.BeginLayer()
		if _, err := tree.ApplyTar(context.Background(), layer.NewReader(bytes.NewReader(b), layer.Limits{})); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// mustHold wants the image's file system, as a whole and layer for layer, to be that of the tars.
func (im *image) mustHold(t testing.TB, tars ...[]byte) {
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

func compare(t testing.TB, what string, want, got *flatten.Tree) {
	t.Helper()
	opt := flatten.CompareOptions{ImpliedUnspecified: true, Max: 20}
	for _, d := range flatten.Compare(want.Records(), got.Records(), opt) {
		t.Errorf("%s: tars first, image second: %v", what, d)
	}
}

// wantError wants err to be of a class and to name all words.
func wantError(t testing.TB, err error, class abi.Class, words ...string) {
	t.Helper()
	if err == nil || abi.ClassOf(err) != class {
		t.Errorf("%v, want %v", err, class)
		return
	}
	if i := slices.IndexFunc(words, func(w string) bool { return !strings.Contains(err.Error(), w) }); i >= 0 {
		t.Errorf("%q does not say %q", err, words[i])
	}
}
