// Package readme holds the test that keeps README.md true: its commands are run and their output compared.
//
// A block that is fenced as console holds commands, which start with "$ ", each followed by what it prints on standard
// output. A line "…" stands for any number of lines. A block that is fenced as go stands, but for its indentation, in one of
// the files that README.md names.
package readme

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

const root = "../.."

type command struct {
	line string
	want []string
}

// blocks returns the lines of the fenced blocks of one kind.
func blocks(t *testing.T, kind string) [][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var out [][]string
	in := false
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\r\n", "\n")) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "```"+kind:
			in, out = true, append(out, nil)
		case line == "```":
			in = false
		case in:
			out[len(out)-1] = append(out[len(out)-1], line)
		}
	}
	if len(out) == 0 {
		t.Fatalf("README.md has no block of %s", kind)
	}
	return out
}

func commands(t *testing.T) []command {
	var out []command
	for _, b := range blocks(t, "console") {
		for _, line := range b {
			if c, ok := strings.CutPrefix(line, "$ "); ok {
				out = append(out, command{line: c})
			} else if len(out) > 0 {
				out[len(out)-1].want = append(out[len(out)-1].want, line)
			}
		}
	}
	return out
}

func TestCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs all commands of README.md: not in short mode")
	}
	sh, err := exec.LookPath("sh")
	if err != nil || runtime.GOOS == "windows" {
		t.Skip("the commands of README.md are for a POSIX shell")
	}
	dir := t.TempDir()
	copyTree(t, dir)
	env := environment(t)
	for _, c := range commands(t) {
		if strings.HasPrefix(c.line, "go test ") {
			t.Logf("not run, because this test is a part of it: %s", c.line)
			continue
		}
		cmd := exec.Command(sh, "-c", c.line)
		cmd.Dir, cmd.Env = dir, env
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		start := time.Now()
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("$ %s\n%v\n%s%s", c.line, err, out, stderr.Bytes())
		}
		t.Logf("%v: %s", time.Since(start).Round(time.Millisecond), c.line)
		got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if len(out) == 0 {
			got = nil
		}
		if !match(c.want, got) {
			t.Errorf("$ %s\nprints\n%s\nREADME.md says\n%s", c.line, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

var (
	duration = regexp.MustCompile(`\b\d+(\.\d+)? ?m?s\b`)
	spaces   = regexp.MustCompile(`\s+$`)
)

func normal(line string) string {
	return spaces.ReplaceAllString(duration.ReplaceAllString(line, "TIME"), "")
}

// match compares line by line; "…" stands for any number of lines.
func match(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == "…" {
		return match(want[1:], got) || len(got) > 0 && match(want, got[1:])
	}
	return len(got) > 0 && normal(want[0]) == normal(got[0]) && match(want[1:], got[1:])
}

// copyTree copies what the commands need, so that nothing of the working tree is touched or depended on.
func copyTree(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"abi", "cmd", "examples/tarzstd", "host", "internal", "plugins", "sdk", "testdata/demo"} {
		sub := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(sub, os.DirFS(filepath.Join(root, filepath.FromSlash(name)))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// environment is that of a user who has no configuration, with Go's own caches.
func environment(t *testing.T) []string {
	t.Helper()
	home := t.TempDir()
	env := []string{"HOME=" + home, "XDG_CACHE_HOME=" + home, "XDG_CONFIG_HOME=" + home, "PATH=" + os.Getenv("PATH"), "LC_ALL=C", "GOFLAGS=-buildvcs=false"}
	names := []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB", "GOTOOLCHAIN", "GOPATH", "GONOSUMDB", "GOPRIVATE"}
	out, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range strings.Split(strings.TrimSuffix(string(out), "\n"), "\n") {
		env = append(env, names[i]+"="+strings.TrimSuffix(v, "\r"))
	}
	return env
}

// Code in README.md stands in a file that is compiled and tested.
func TestCode(t *testing.T) {
	var files []string
	for _, name := range []string{"examples/tarzstd/main.go", "host/example_test.go"} {
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, flat(strings.Split(string(b), "\n")))
	}
next:
	for _, b := range blocks(t, "go") {
		for _, f := range files {
			if strings.Contains(f, flat(b)) {
				continue next
			}
		}
		t.Errorf("this is in none of the files that README.md takes its code from:\n%s", strings.Join(b, "\n"))
	}
}

// flat drops indentation.
func flat(lines []string) string {
	var out strings.Builder
	for _, l := range lines {
		out.WriteString(strings.TrimSpace(l) + "\n")
	}
	return out.String()
}

var (
	link    = regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)]*))?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	dropped = regexp.MustCompile("[^a-z0-9 _-]")
)

// Links of the documents lead to files that exist, and to headings in them.
func TestLinks(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "abi/abi.md", "changelog/README.md"} {
		files = append(files, filepath.Join(root, filepath.FromSlash(name)))
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			to := f
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(f), filepath.FromSlash(m[1]))
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %v", f, err)
			} else if m[2] != "" && !anchors(t, to)[m[2]] {
				t.Errorf("%s: %s has no heading #%s", f, to, m[2])
			}
		}
	}
}

// anchors returns the names of a file's headings, as GitHub makes them.
func anchors(t *testing.T, file string) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
	}
	out := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(strings.ReplaceAll(string(b), "\r\n", "\n"), -1) {
		out[strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return out
}
