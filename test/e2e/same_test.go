package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// sources are the images to convert: the repository's own, and larger ones where they are.
func sources(t testing.TB) map[string]string {
	out := map[string]string{"demo": demo}
	if dir := os.Getenv("CONVHOST_TESTDATA"); dir != "" {
		out["debian"] = "oci:" + filepath.Join(dir, "images", "debian-multi") + ":amd64"
	} else {
		t.Log("CONVHOST_TESTDATA is not set: only the demo image")
	}
	return out
}

// formats are those that come with the command, and what can run them.
var formats = map[string][]string{
	"nydus":     {"wasm", "native", "inprocess"},
	"overlaybd": {"native", "inprocess"},
	"turboci":   {"native", "inprocess"},
}

// Whatever runs the plugin, on however many cores, and again: the same root.
func TestSameRoot(t *testing.T) {
	for format, runtimes := range formats {
		for name, src := range sources(t) {
			t.Run(format+"/"+name, func(t *testing.T) { sameRoot(t, format, runtimes, src) })
		}
	}
}

func sameRoot(t *testing.T, format string, runtimes []string, src string) {
	var want digest.Digest
	for _, runtime := range runtimes {
		for _, env := range []string{"GOMAXPROCS=1", "GOMAXPROCS=2", "GOMAXPROCS=2"} {
			r, out := newRun(t, env), t.TempDir()
			got := r.convertTo(format, src, "oci:"+out+":x", "--runtime", runtime)
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("--runtime %s, %s: %s, want %s", runtime, env, got, want)
			}
			wantEmpty(t, r.tmp)
			wantClean(t, out, "x", want)
		}
	}
}

// Every image that the larger test data has converts, and verify finds no difference, as the command says it.
func TestConvertAndVerify(t *testing.T) {
	all := map[string]string{"demo": demo}
	if dir := os.Getenv("CONVHOST_TESTDATA"); dir != "" {
		for _, tag := range []string{"index", "nested", "docker", "dockerlist"} {
			all[tag] = "oci:" + filepath.Join(dir, "images", "debian-multi") + ":" + tag
		}
	}
	for format := range formats {
		for name, src := range all {
			t.Run(format+"/"+name, func(t *testing.T) {
				r, out := newRun(t), "oci:"+t.TempDir()+":x"
				r.convertTo(format, src, out)
				r.ok("verify", src, out, "--all-platforms")
				r.ok("check", out, "--all-platforms", "--deep")
				wantEmpty(t, r.tmp)
			})
		}
	}
}
