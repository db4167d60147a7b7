package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve-plugin" { // the host runs a copy of this program under another name
		main()
	}
	testscript.Main(m, map[string]func(){"convhost": main})
}

// TestScripts runs the command from outside, one script for each behaviour.
func TestScripts(t *testing.T) {
	cache := t.TempDir() // of compiled plugins, for all scripts
	if out, err := command(t, cache, "plugin", "list").CombinedOutput(); err != nil {
		t.Fatalf("plugin list: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, "HOME="+env.WorkDir+"/home", "XDG_CONFIG_HOME="+env.WorkDir+"/config",
				"XDG_CACHE_HOME="+cache, "TMPDIR="+env.WorkDir+"/tmp", "AppData="+env.WorkDir+"/config", "LocalAppData="+cache,
				"CONVHOST_DEDUP=off") // scripts must not find what others converted
			return os.MkdirAll(env.WorkDir+"/tmp", 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mkimage": mkimage,
			"code":    code,
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "sandbox": // the sandboxed build of the plugin was embedded
				own, err := builtinModules()
				return len(own) > 0, err
			case "root":
				return os.Getuid() == 0, nil
			}
			return false, errors.New("unknown condition")
		},
	})
}

// command is the program under test.
func command(t *testing.T, cache string, args ...string) *exec.Cmd {
	cmd := exec.Command("convhost", args...) // testscript.Main put it on the path
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "AppData="+home, "XDG_CACHE_HOME="+cache, "LocalAppData="+cache)
	return cmd
}

// code runs a program and compares its exit code: code N program args…
func code(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg {
		ts.Fatalf("usage: code N program args…")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%s: %v", strings.Join(args[1:], " "), err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
