package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/sdk"
	"github.com/convhost/convhost/sdk/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Run(t, plugintest.Config{Open: plugintest.InProcess(sdk.InProcess(plugin{}))})
}

// TestSandbox builds the module, holds it against the contract, and converts the repository's own image with it: the
// converted image is an ordinary one, so verify needs no plugin to compare it with its source.
func TestSandbox(t *testing.T) {
	if raceDetector {
		t.Skip("with -race compiling a module takes minutes; package host/wasm has its own tests for it")
	}
	module := filepath.Join(t.TempDir(), "tarzstd.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", module, ".")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	plugintest.Run(t, plugintest.Config{Open: plugintest.Wasm(module)})
	h, err := host.New(host.WithWorkDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	src, dst := "oci:../../testdata/demo/image:demo", "oci:"+filepath.Join(t.TempDir(), "out")+":zstd"
	res, err := h.Convert(t.Context(), host.ConvertRequest{
		Source: src, Targets: []host.Target{{Format: module, Dest: dst, Options: map[string]string{"level": "19"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range res[0].Manifests[0].Layers {
		t.Logf("%s, %d bytes → %s, %d bytes", l.Source.MediaType, l.Source.Size, l.Converted.MediaType, l.Converted.Size)
	}
	same, err := h.Verify(t.Context(), host.VerifyRequest{Source: src, Converted: dst, Select: host.Selection{All: true}})
	if err != nil || len(same) == 0 || len(same[0].Differences) != 0 {
		t.Errorf("verify: %+v, %v", same, err)
	}
}
