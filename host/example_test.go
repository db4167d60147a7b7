package host_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/convhost/convhost/abi"
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

// Errors have a class, which says what to do about them, and tell where in the image it happened.
func ExampleError() {
	h, err := host.New(host.WithLimits(host.Limits{LayerBytes: 100_000}), // of the demo's layers, all are larger
		host.WithBuiltin(host.Builtin{Name: "nydus", InProcess: sdk.InProcess(nydus.New())}))
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	for _, tag := range []string{"nothing", "demo"} {
		_, err := h.Convert(context.Background(), host.ConvertRequest{
			Source: "oci:../testdata/demo/image:" + tag, Targets: []host.Target{{Format: "nydus", Dest: "oci:" + filepath.ToSlash(filepath.Join(os.TempDir(), "never")) + ":1"}},
		})
		switch abi.ClassOf(err) {
		case abi.ErrNotFound:
			fmt.Println("no such image")
		case abi.ErrLimit:
			var where *host.Error
			fmt.Println("larger than allowed:", errors.As(err, &where) && where.Layer >= 0, where.Format)
		default:
			fmt.Println(err)
		}
	}
	// Output:
	// no such image
	// larger than allowed: true nydus
}
