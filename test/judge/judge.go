// Package judge finds the tools that judge what convhost makes: nydus-image, erofs-utils, e2fsprogs, skopeo, docker-registry and
// the kernel. None of them is needed to build or to use convhost. A tool that is missing skips its test, with a printed reason;
// with CONVHOST_REQUIRE_JUDGES=1, as in CI, it fails it.
//
//	tool := judge.Tool(t, "nydus-image")
//	out := judge.Run(t, tool, "check", "--bootstrap", file)
package judge

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Missing skips t, or fails it where judges are required. why reads like "nydus-image not installed".
func Missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CONVHOST_REQUIRE_JUDGES") == "1" {
		t.Fatalf("%s, and CONVHOST_REQUIRE_JUDGES is set", why)
	}
	t.Skipf("skipped: %s", why)
}

// Tool returns the path of a program: from PATH, from where cargo installs, or from where programs for root are.
func Tool(t testing.TB, name string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	home, _ := os.UserHomeDir()
	for _, dir := range []string{os.Getenv("CARGO_HOME"), filepath.Join(home, ".cargo"), "/usr", "/"} {
		for _, sub := range []string{"bin", "sbin"} {
			if p, err := exec.LookPath(filepath.Join(dir, sub, name)); dir != "" && err == nil {
				return p
			}
		}
	}
	Missing(t, name+" not installed")
	return ""
}

// Root skips t for ordinary users.
func Root(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		Missing(t, "mounting needs root")
	}
}

// Testdata returns the folder of large test data, CONVHOST_TESTDATA, and skips t without it.
func Testdata(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("CONVHOST_TESTDATA")
	if dir == "" {
		t.Skip("skipped: CONVHOST_TESTDATA is not set")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// Run runs a program and returns what it prints on both outputs. It fails t if the program does.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return Input(t, "", name, args...)
}

// Input is Run with a text on standard input.
func Input(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	out, err := Try(stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return out
}

// Try is Input for programs that may fail.
func Try(stdin, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	err := cmd.Run()
	return out.String(), err
}
