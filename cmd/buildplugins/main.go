// Buildplugins makes the sandboxed plugins that come with the command, cmd/convhost/plugins/*.wasm.zst, from their source
// in this repository. Run it from the root of the repository after a change to a plugin, the sdk or the abi:
//
//	go run ./cmd/buildplugins
//
// With -check it builds and compares instead, and fails when a committed module is not what the source gives. The same Go
// version gives the same bytes on every machine; modules.txt records which version and which digests. With another Go
// version there is nothing to compare, and -check says so.
package main

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

const folder = "cmd/convhost/plugins"

var plugins = []struct{ name, source string }{
	{"nydus", "./plugins/nydus/convhost-plugin-nydus"},
}

func main() {
	check := flag.Bool("check", false, "compare with what is committed")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "buildplugins:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	record := []byte("# Modules of this folder, made by cmd/buildplugins: name, SHA-256 of the module before compression, Go version.\n")
	modules := map[string][]byte{}
	for _, p := range plugins {
		code, err := build(p.source)
		if err != nil {
			return err
		}
		modules[p.name] = code
		record = fmt.Appendf(record, "%s %x %s\n", p.name, sha256.Sum256(code), runtime.Version())
	}
	list := filepath.Join(folder, "modules.txt")
	if check {
		return compare(list, record, modules)
	}
	for name, code := range modules {
		z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		if err := os.WriteFile(moduleFile(name), z.EncodeAll(code, nil), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(list, record, 0o644)
}

func moduleFile(name string) string { return filepath.Join(folder, name+".wasm.zst") }

// build compiles a plugin for the sandbox. Nothing of this machine goes into the module.
func build(source string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "buildplugins")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "plugin.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-ldflags=-s -w -buildid=", "-o", out, source)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOWASM=", "GOFLAGS=", "GOEXPERIMENT=")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("build %s: %w", source, err)
	}
	return os.ReadFile(out)
}

// compare reports whether the committed modules are those of this source.
func compare(list string, record []byte, modules map[string][]byte) error {
	have, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	if !bytes.Contains(have, []byte(runtime.Version()+"\n")) {
		fmt.Printf("skipped: the modules were made with another version of Go than %s\n", runtime.Version())
		return nil
	}
	if !bytes.Equal(have, record) {
		return fmt.Errorf("%s is\n%swant\n%srun: go run ./cmd/buildplugins", list, have, record)
	}
	for name, want := range modules {
		z, err := os.ReadFile(moduleFile(name))
		if err != nil {
			return err
		}
		r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return err
		}
		got, err := r.DecodeAll(z, nil)
		r.Close()
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s is not the module that its source gives; run: go run ./cmd/buildplugins", moduleFile(name))
		}
		fmt.Printf("%s: %d bytes, as its source gives\n", moduleFile(name), len(want))
	}
	return nil
}
