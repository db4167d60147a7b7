package badinput

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/log"
)

var update = flag.Bool("update", false, "rewrite the tables in docs/errors.md")

// command is the path of the built command; cache is where compiled plugins are kept between cases.
var command, cache string

func TestMain(m *testing.M) {
	if mode, ok := strings.CutPrefix(filepath.Base(os.Args[0]), "convhost-plugin-"); ok {
		servePlugin(strings.TrimSuffix(mode, ".exe")) // this binary is the native plugin of some cases
	}
	flag.Parse()
	log.L.Logger.SetOutput(io.Discard) // containerd's warnings about file systems
	dir, err := os.MkdirTemp("", "badinput")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cache = filepath.Join(dir, "cache")
	command = filepath.Join(dir, "convhost.exe") // the suffix matters on Windows only
	build := exec.Command("go", "build", "-o", command, "github.com/convhost/convhost/cmd/convhost")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the command: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// groups are the tables of docs/errors.md.
var groups = []struct {
	name  string
	cases []bad
}{
	{"graphs", graphs},
	{"layers", layers},
	{"plugins", plugins},
	{"native", natives},
	{"overlaybd", overlaybds},
	{"turboci", turbos},
}

func TestBadInput(t *testing.T) {
	tables := map[string]*bytes.Buffer{}
	ran := true
	for _, g := range groups {
		table := &bytes.Buffer{}
		table.WriteString("| what is wrong | what convhost prints | exit code |\n|---|---|---|\n")
		tables[g.name] = table
		for _, c := range g.cases {
			done := false
			t.Run(g.name+"/"+c.what, func(t *testing.T) {
				w := newWorld(t, c)
				w.throughHost()
				text, code := w.throughCommand()
				fmt.Fprintf(table, "| %s | %s | %d |\n", c.what, markdown(text), code)
				done = true
			})
			ran = ran && done
		}
	}
	switch {
	case runtime.GOOS != "linux":
		t.Logf("docs/errors.md is compared on linux only: errors of the system read differently elsewhere")
	case !ran:
		t.Logf("docs/errors.md is not compared: not all cases ran to their end")
	default:
		compareTables(t, tables)
	}
}
