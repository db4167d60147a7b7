package main

import (
	"bytes"
	"embed"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/sdk"
)

// modules are the sandboxed plugins, plugins/NAME.wasm.zst. Its README says how they are built.
//
//go:embed plugins
var modules embed.FS

// own are the plugins that come with the program. Each runs in all three runtimes: its module in the sandbox, its code
// in this process, and natively in a second process of this program (serve-plugin).
var own = []struct {
	name   string
	plugin func() sdk.Plugin
}{
	{"nydus", nydus.New},
	{"overlaybd", overlaybd.New},
	{"turboci", overlaybd.NewTurbo},
}

// builtins describes the plugins that come with the program to the host.
func builtins() ([]host.Builtin, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, abi.Errorf(abi.ErrIO, "find this program: %w", err)
	}
	var out []host.Builtin
	for _, p := range own {
		b := host.Builtin{Name: p.name, Native: []string{exe, "serve-plugin", p.name}, InProcess: sdk.InProcess(p.plugin())}
		if _, err := fs.Stat(modules, moduleFile(p.name)); err == nil {
			b.Wasm = func() ([]byte, error) { return modules.ReadFile(moduleFile(p.name)) }
		}
		out = append(out, b)
	}
	return out, nil
}

func moduleFile(name string) string { return "plugins/" + name + ".wasm.zst" }

// builtinModules returns the digests of the modules, which `plugin info` shows too.
func builtinModules() ([]builtinModule, error) {
	out := []builtinModule{}
	for _, p := range own {
		z, err := modules.ReadFile(moduleFile(p.name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		r, err := zstd.NewReader(bytes.NewReader(z), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, abi.Errorf(abi.ErrInternal, "plugin %s: %w", p.name, err)
		}
		sum := digest.SHA256.Digester()
		_, err = io.Copy(sum.Hash(), r)
		r.Close()
		if err != nil {
			return nil, abi.Errorf(abi.ErrInternal, "plugin %s: %w", p.name, err)
		}
		out = append(out, builtinModule{p.name, sum.Digest().String()})
	}
	return out, nil
}

// serveCommand is how the host runs a plugin of this program natively.
func (a *app) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "serve-plugin NAME", Short: "serve a plugin to a host", Hidden: true, Args: arguments(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, p := range own {
				if p.name == args[0] {
					sdk.Main(p.plugin()) // does not return
				}
			}
			return abi.Errorf(abi.ErrNotFound, "no plugin named %q comes with convhost", args[0])
		},
	}
}
