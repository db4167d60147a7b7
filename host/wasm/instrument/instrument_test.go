package instrument

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/convhost/convhost/abi"
)

// goModules builds Go programs as plugins are built, once for all tests.
var goModule = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "instrument")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	src := "package main\nimport (\"fmt\"; \"encoding/json\"; \"compress/flate\"; \"go/parser\"; \"go/token\"; \"os\"; \"regexp\"; \"text/template\")\n" +
		"//go:wasmexport convhost_v1_call\nfunc call(op int32) int32 { var v any; json.Unmarshal([]byte(\"[1]\"), &v); fmt.Println(v, regexp.MustCompile(`a`)); flate.NewReader(os.Stdin); " +
		"parser.ParseFile(token.NewFileSet(), \"\", \"package a\", 0); template.New(\"\"); return 0 }\nfunc main() {}\n"
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(src), 0o600); err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "m.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, filepath.Join(dir, "main.go"))
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.New(string(msg))
	}
	return os.ReadFile(out)
})

func rewrite(wasm []byte, lim Limits) ([]byte, error) {
	m, err := Read(wasm, lim)
	if err != nil {
		return nil, err
	}
	return m.Rewrite(abi.WasmModule, abi.WasmPoll)
}

// validates reports whether wazero accepts a module.
func validates(ctx context.Context, wasm []byte) error {
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer rt.Close(ctx)
	_, err := rt.CompileModule(ctx, wasm)
	return err
}

func TestGoModule(t *testing.T) {
	wasm, err := goModule()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	out, err := rewrite(wasm, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes become %d in %v", len(wasm), len(out), time.Since(start).Round(time.Millisecond))
	if err := validates(t.Context(), out); err != nil {
		t.Error(err)
	}
	if again, _ := rewrite(wasm, DefaultLimits()); string(again) != string(out) {
		t.Error("two runs differ")
	}
}
