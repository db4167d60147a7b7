// Command recompress is a whole convhost plugin in 40 lines: it makes zstd layers of whatever an image has.
package main

import (
	"context"
	"encoding/hex"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

func main() { sdk.Main(plugin{}) }

type plugin struct{}

func (plugin) Describe() abi.Description {
	return abi.Description{
		Name: "recompress", Version: "1", Summary: "ordinary layers, compressed with zstd", Input: abi.RoleLayerTar,
		Options: []abi.OptionSpec{{Name: "level", Default: "3", Help: "zstd level, 1 to 19"}},
	}
}

func (plugin) ConvertLayer(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	level, err := sdk.Int(l.Options, "level", 3, 1, 19)
	if err != nil {
		return nil, err
	}
	in, err := l.Open(abi.RoleLayerTar, 0) // the layer's tar, decompressed and checked by the host
	if err != nil {
		return nil, err
	}
	out, err := l.OpenSink(0, abi.FilterZstd, level) // the host compresses what is written
	if err != nil {
		return nil, err
	}
	if _, err := l.Copy(out, in, -1, -1); err != nil { // no byte enters the plugin
		return nil, err
	}
	info, err := l.Close(out)
	return &abi.ConvertResponse{Parts: []abi.Part{{
		Sink: 0, MediaType: "application/vnd.oci.image.layer.v1.tar+zstd",
		Size: info.Size, Digest: "sha256:" + hex.EncodeToString(info.SHA256[:]), DiffID: "sha256:" + hex.EncodeToString(info.RawSHA256[:]),
	}}}, err
}
