package wasm

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/wasm/instrument"
)

// Module is a compiled plugin.
type Module struct {
	rt       *Runtime
	compiled wazero.CompiledModule
	digest   digest.Digest
	spare    spare
}

// Load checks code against the contract, instruments and compiles it, or takes it from the cache. Errors:
// ErrUnsupported for another version of the contract, unknown imports and WebAssembly extensions, ErrCorrupt for what
// is no valid module, ErrPlugin for missing exports, ErrLimit for one that is too large or too expensive to compile.
func (r *Runtime) Load(ctx context.Context, code []byte) (*Module, error) {
	return r.LoadPacked(ctx, code, func(code []byte) ([]byte, error) { return code, nil })
}

// LoadPacked is Load for a module that is compressed. unpack is called when the cache does not know file; its errors come
// back as they are. Digest is that of what unpack returned.
func (r *Runtime) LoadPacked(ctx context.Context, file []byte, unpack func(file []byte) ([]byte, error)) (*Module, error) {
	if err := ctx.Err(); err != nil {
		return nil, abi.Errorf(abi.ClassOf(err), "load plugin: %w", err)
	}
	checked, err := r.check(file, unpack)
	if err != nil {
		return nil, err
	}
	compiled, err := r.compile(ctx, checked.code)
	if err != nil {
		return nil, err
	}
	m := &Module{rt: r, compiled: compiled, digest: digest.NewDigestFromBytes(digest.SHA256, checked.sum[:])}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.modules = append(r.modules, m)
	return m, nil
}

// compile takes a module from the cache or compiles it on all cores. A damaged cache is emptied and filled again.
func (r *Runtime) compile(ctx context.Context, code []byte) (wazero.CompiledModule, error) {
	ctx = experimental.WithCompilationWorkers(context.WithoutCancel(ctx), runtime.GOMAXPROCS(0))
	compiled, err := r.rt.CompileModule(ctx, code)
	if err != nil && strings.Contains(err.Error(), "compilationcache:") {
		files, _ := filepath.Glob(filepath.Join(r.cfg.CacheDir, "wazero-*", "*"))
		for _, f := range files {
			_ = os.Remove(f) // what cannot be removed fails again below
		}
		r.cfg.Log.Warn("the cache of compiled plugins was damaged and has been emptied", "directory", r.cfg.CacheDir, "error", err)
		if compiled, err = r.rt.CompileModule(ctx, code); err != nil && strings.Contains(err.Error(), "compilationcache:") {
			return nil, abi.Errorf(abi.ErrIO, "cache of compiled plugins %s: %w", r.cfg.CacheDir, err)
		}
	}
	if err != nil {
		return nil, abi.Errorf(abi.ErrCorrupt, "wasm module: %w", err)
	}
	return compiled, nil
}

// Digest returns the identity of the plugin: the SHA-256 of its code before it was checked, "sha256:…".
func (m *Module) Digest() string { return m.digest.String() }

// Close frees the compiled code. No call may be running.
func (m *Module) Close() error {
	m.drop()
	m.rt.mu.Lock()
	m.rt.modules = slices.DeleteFunc(m.rt.modules, func(other *Module) bool { return other == m })
	m.rt.mu.Unlock()
	return m.compiled.Close(context.Background())
}

// checkContract holds imports and exports against the contract, before anything is compiled.
func (r *Runtime) checkContract(m *instrument.Module) error {
	if err := checkVersion(m); err != nil {
		return err
	}
	for _, im := range m.Imports {
		if err := checkImport(im); err != nil {
			return err
		}
	}
	exports := map[string]instrument.Export{}
	for _, e := range m.Exports {
		exports[e.Name] = e
	}
	if e, ok := exports[abi.WasmMemory]; !ok || e.Kind != instrument.KindMemory {
		return abi.Errorf(abi.ErrPlugin, "wasm module: memory %q is not exported", abi.WasmMemory)
	}
	for _, want := range []struct{ name, typ string }{{abi.WasmInitialize, "() -> ()"}, {abi.WasmCall, "(i32) -> (i32)"}} {
		e, ok := exports[want.name]
		_, command := exports["_start"]
		switch {
		case !ok && command:
			return abi.Errorf(abi.ErrPlugin, "wasm module: export %q is missing, but there is \"_start\": it was built as a program; build it as a reactor (go build -buildmode=c-shared)", want.name)
		case !ok || e.Kind != instrument.KindFunc:
			return abi.Errorf(abi.ErrPlugin, "wasm module: function %q is not exported", want.name)
		case e.Type.String() != want.typ:
			return abi.Errorf(abi.ErrPlugin, "wasm module: export %q is %s, want %s", want.name, e.Type, want.typ)
		}
	}
	if m.MemoryMin*pageSize > r.cfg.MemoryLimit {
		return r.limitError()
	}
	return nil
}

// checkVersion finds the major version that a module speaks by the names of its imports and exports.
func checkVersion(m *instrument.Module) error {
	family := strings.TrimRight(abi.WasmModule, "0123456789")
	for _, im := range m.Imports {
		if strings.HasPrefix(im.Module, family) && im.Module != abi.WasmModule {
			return abi.Errorf(abi.ErrUnsupported, "plugin is made for %.40s, this host speaks %s", im.Module, abi.WasmModule)
		}
	}
	for _, e := range m.Exports {
		if e.Name != abi.WasmCall && strings.HasPrefix(e.Name, "convhost_v") && strings.HasSuffix(e.Name, "_call") {
			return abi.Errorf(abi.ErrUnsupported, "plugin exports %.40s, this host calls %s", e.Name, abi.WasmCall)
		}
	}
	return nil
}

// checkImport allows the functions of the contract and of WASI with their exact types.
func checkImport(im instrument.Import) error {
	if im.Kind != instrument.KindFunc {
		return abi.Errorf(abi.ErrUnsupported, "wasm module: imports %.80q of %.80q, which is no function", im.Name, im.Module)
	}
	var want string
	switch im.Module {
	case abi.WasmModule:
		for _, f := range abi.WasmImports {
			if f.Name == im.Name {
				want = signature(f.Params, f.Result)
			}
		}
	case abi.WasmWASI:
		if f, ok := wasiFuncs[im.Name]; ok {
			want = signature(f.params, f.result)
		}
	}
	if want == "" {
		return abi.Errorf(abi.ErrUnsupported, "wasm module: imports %.80q of %.80q, which this host does not have", im.Name, im.Module)
	}
	if got := im.Type.String(); got != want {
		return abi.Errorf(abi.ErrUnsupported, "wasm module: imports %.80q of %.80q as %s, this host has %s", im.Name, im.Module, got, want)
	}
	return nil
}

// signature prints a function type as instrument.FuncType does.
func signature(params, result string) string {
	conv := strings.NewReplacer("i", "\x7f", "I", "\x7e")
	return instrument.FuncType{Params: conv.Replace(params), Results: conv.Replace(result)}.String()
}
