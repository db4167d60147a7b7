package host_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/sdk"
)

// A service converts an image and publishes the result only if it equals its source, file by file.
func ExampleHost_Convert() {
	out, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(out)

	h, err := host.New(host.WithBuiltin(host.Builtin{Name: "nydus", InProcess: sdk.InProcess(nydus.New())}))
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	results, err := h.Convert(context.Background(), host.ConvertRequest{
		Source:  "oci:../testdata/demo/image:demo",
		Targets: []host.Target{{Format: "nydus", Dest: "oci:" + filepath.ToSlash(out) + "/demo:nydus"}},
		Verify:  true,
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range results[0].Manifests {
		fmt.Println(m.Platform, len(m.Layers), "layers")
	}
	// Output:
	// linux/amd64 4 layers
	// linux/arm64 4 layers
}
