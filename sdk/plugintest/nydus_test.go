package plugintest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/sdk"
	"github.com/convhost/convhost/sdk/plugintest"
)

var nydusBad = map[string]string{"level": "99", "prefetch": "not/absolute"}

// TestNydusInProcess and the next two hold our own plugin against the kit in all three runtimes.
func TestNydusInProcess(t *testing.T) {
	plugintest.Run(t, plugintest.Config{Open: plugintest.InProcess(sdk.InProcess(nydus.New())), BadOptions: nydusBad})
}

func TestNydusWasm(t *testing.T) {
	if raceDetector {
		t.Skip("with -race compiling a module takes minutes; package host/wasm has its own tests for it")
	}
	module := filepath.Join(t.TempDir(), "nydus.wasm")
	build(t, "nydus", module, "GOOS=wasip1", "GOARCH=wasm")
	plugintest.Run(t, plugintest.Config{Open: plugintest.Wasm(module), BadOptions: nydusBad})
}

func TestNydusNative(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "convhost-plugin-nydus")
	build(t, "nydus", exe)
	plugintest.Run(t, plugintest.Config{Open: plugintest.Native(exe), BadOptions: nydusBad})
}

func build(t *testing.T, plugin, out string, env ...string) {
	t.Helper()
	buildProgram(t, plugin+"/convhost-plugin-"+plugin, out, env...)
}

// buildProgram builds a program below plugins.
func buildProgram(t *testing.T, program, out string, env ...string) {
	t.Helper()
	args := []string{"build"}
	if len(env) > 0 {
		args = append(args, "-buildmode=c-shared")
	}
	cmd := exec.Command("go", append(args, "-o", out, "github.com/convhost/convhost/plugins/"+program)...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
}
