package wasm

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
)

// TestDocumented holds abi.md against the imports: each is there, with its number and kinds of parameters.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../abi/abi.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]*) \\|").FindAllStringSubmatch(string(text), -1) {
		params := ""
		for p := range strings.SplitSeq(m[2], ",") {
			if strings.Contains(p, "*i64*") {
				params += "I"
			} else {
				params += "i"
			}
		}
		rows[m[1]] = params
	}
	if len(hostFuncs) != len(abi.WasmImports) {
		t.Errorf("%d functions, %d imports", len(hostFuncs), len(abi.WasmImports))
	}
	for _, f := range abi.WasmImports {
		if rows[f.Name] != f.Params {
			t.Errorf("abi.md documents %s with parameters %q, it has %q", f.Name, rows[f.Name], f.Params)
		}
		if hostFuncs[f.Name] == nil {
			t.Errorf("import %s has no function", f.Name)
		}
	}
}
