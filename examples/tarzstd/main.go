// Tarzstd is a format plugin: ordinary OCI layers, compressed with zstd.
package main

import (
	"context"
	"fmt"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

type plugin struct{}

func (plugin) Describe() abi.Description {
	return abi.Description{
		Name: "tarzstd", Version: "1", Summary: "ordinary OCI layers, compressed with zstd",
		Input:   abi.RoleLayerTar, // or RoleLayerEntries: parsed members; RoleLayerStored: as stored
		Options: []abi.OptionSpec{{Name: "level", Default: "3", Help: "1 to 19"}},
		Needs:   []string{"tar", "filter/zstd"},
	}
}

func (plugin) ConvertLayer(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	level, err := sdk.Int(l.Options, "level", 3, 1, 19)
	if err != nil {
		return nil, err
	}
	in, err := sdk.OpenStream(l, abi.RoleLayerTar)
	if err != nil {
		return nil, err
	}
	out, err := sdk.OpenFilteredSink(l, 0, abi.FilterZstd, level)
	if err != nil {
		return nil, err
	}
	if _, err := l.Copy(out.Handle, in.Handle, -1, -1); err != nil { // the bytes never enter the sandbox
		return nil, err
	}
	info, err := out.Close()
	if err != nil {
		return nil, err
	}
	return &abi.ConvertResponse{Parts: []abi.Part{{
		Sink: 0, Name: "layer", MediaType: "application/vnd.oci.image.layer.v1.tar+zstd", Size: info.Size,
		Digest: fmt.Sprintf("sha256:%x", info.SHA256), DiffID: fmt.Sprintf("sha256:%x", info.RawSHA256),
	}}}, nil
}

func main() { sdk.Main(plugin{}) }
