package imports

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/convhost/convhost"

// rule forbids packages that match from to reach, directly or not, packages that match to.
type rule struct {
	from, to string // path.Match patterns below the module; a pattern ending in /... matches everything below; others are import paths
	why      string
}

var rules = []rule{
	{"abi", module + "/...", "the contract stands alone"},
	{"abi", "google.golang.org/...", "a plugin in the sandbox would carry 4.5 MB of protobuf"},
	{"abi", "github.com/...", "any language must be able to implement it: it needs nothing but the standard library"},
	{"host/...", module + "/sdk/...", "the host talks to plugins through abi only"},
	{"host/...", module + "/plugins/...", "the host knows no format"},
	{"host/...", module + "/cmd/...", "imports run one way"},
	{"sdk/...", module + "/host/...", "a plugin knows no store"},
	{"sdk/...", "github.com/containerd/...", "a plugin author pays for what he uses"},
	{"sdk/...", "github.com/tetratelabs/wazero/...", "a plugin author pays for what he uses"},
	{"sdk/plugintest", "github.com/containerd/...", "the kit needs the host's plugin runtimes, not its stores"},
	{"sdk", module + "/sdk/plugintest", "the kit is for tests: nothing of it gets into a plugin"},
	{"plugins/...", module + "/sdk/plugintest", "the kit is for tests: nothing of it gets into a plugin"},
	{"cmd/...", module + "/sdk/plugintest", "the kit is for tests"},
	{"plugins/...", module + "/host/...", "a plugin knows no store"},
	{"plugins/...", module + "/cmd/...", "imports run one way"},
	{"plugins/nydus/rafs6", "github.com/klauspost/...", "a codec handles bytes: compression comes in as functions"},
	{"internal/...", module + "/host/...", "internal is what host and sdk share"},
	{"internal/...", module + "/sdk/...", "internal is what host and sdk share"},
	{"internal/layer", "github.com/klauspost/...", "guests read tars with it"},
	{"internal/zran", "github.com/klauspost/...", "it takes that library's place"},
	{"plugins/overlaybd/lsmt", "github.com/klauspost/...", "a codec handles bytes: compression is ZFile's"},
	{"plugins/overlaybd/tarshell", "github.com/klauspost/...", "a codec handles bytes: compression is ZFile's"},
}

// exceptions are packages that only rules bind which name them.
var exceptions = map[string]string{
	"sdk/plugintest": "the conformance kit runs plugin files where users run them, in host/wasm and host/native; it belongs to the SDK " +
		"for plugin authors, whose tests import it and whose plugins do not",
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func load(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports", module+"/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	all := map[string]pkg{}
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return all
}

func match(pattern, importPath string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return importPath == prefix || strings.HasPrefix(importPath, prefix+"/")
	}
	ok, _ := path.Match(pattern, importPath)
	return ok
}

// chain returns how from reaches something that matches to, nil if it does not. Packages that themselves match the
// rule's from are not counted as targets.
func chain(all map[string]pkg, from, to string) []string {
	type step struct {
		path string
		via  *step
	}
	seen := map[string]bool{from: true}
	for queue := []*step{{path: from}}; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		for _, imp := range all[s.path].Imports {
			if seen[imp] {
				continue
			}
			seen[imp] = true
			next := &step{imp, s}
			if match(to, imp) {
				var out []string
				for n := next; n != nil; n = n.via {
					out = append([]string{n.path}, out...)
				}
				return out
			}
			queue = append(queue, next)
		}
	}
	return nil
}

func TestImportsRunOneWay(t *testing.T) {
	all := load(t)
	for _, r := range rules {
		used := false
		for p := range all {
			if !strings.HasPrefix(p, module+"/") || !match(module+"/"+r.from, p) {
				continue
			}
			if own := strings.TrimPrefix(p, module+"/"); exceptions[own] != "" && r.from != own {
				continue
			}
			used = true
			if c := chain(all, p, r.to); c != nil {
				t.Errorf("%s must not reach %s: %s\n\t%s", r.from, r.to, r.why, strings.Join(c, "\n\t→ "))
			}
		}
		if !used {
			t.Errorf("rule for %s matches no package", r.from)
		}
	}
}
