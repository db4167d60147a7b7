package plugintest_test

import (
	"path/filepath"
	"testing"

	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/sdk"
	"github.com/convhost/convhost/sdk/plugintest"
)

var overlaybdBad = map[string]string{"vsize": "64T", "block-size": "64K"}

// TestOverlaybdInProcess and the next hold the plugin for overlaybd against the kit in the runtimes that it has.
func TestOverlaybdInProcess(t *testing.T) {
	plugintest.Run(t, plugintest.Config{Open: plugintest.InProcess(sdk.InProcess(overlaybd.New())), BadOptions: overlaybdBad})
}

func TestOverlaybdNative(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "convhost-plugin-overlaybd")
	build(t, "overlaybd", exe)
	plugintest.Run(t, plugintest.Config{Open: plugintest.Native(exe), BadOptions: overlaybdBad})
}

// TestTurboInProcess holds its sister for TurboOCI, which converts stored layers and refers to them, against the kit.
func TestTurboInProcess(t *testing.T) {
	plugintest.Run(t, plugintest.Config{Open: plugintest.InProcess(sdk.InProcess(overlaybd.NewTurbo())), BadOptions: overlaybdBad})
}

func TestTurboNative(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "convhost-plugin-turboci")
	buildProgram(t, "overlaybd/convhost-plugin-turboci", exe)
	plugintest.Run(t, plugintest.Config{Open: plugintest.Native(exe), BadOptions: overlaybdBad})
}
