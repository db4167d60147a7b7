package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
)

// versionInfo is the JSON form of `convhost version`.
type versionInfo struct {
	Version  string          `json:"version"` // of the module; "devel" if built from a working tree
	Revision string          `json:"revision,omitempty"`
	ABI      string          `json:"abi"`
	Go       string          `json:"go"`
	Platform string          `json:"platform"`
	Plugins  []builtinModule `json:"plugins"`
}

// builtinModule identifies a sandboxed plugin that comes with the program.
type builtinModule struct {
	Name   string `json:"name"`
	Digest string `json:"digest"` // of the module before compression
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the versions of convhost, its contract and its plugins", Args: arguments(0, 0),
		Long:              "Prints the module's version, the version of the plugin contract, and the digests of the plugins that come with convhost.",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			plugins, err := builtinModules()
			if err != nil {
				return err
			}
			v := versionInfo{
				Version: moduleVersion(), Revision: revision(), ABI: fmt.Sprintf("%d.%d", abi.Major, abi.Minor),
				Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Plugins: plugins,
			}
			return a.result("version", v, func(t *table) {
				t.row("convhost", v.Version, v.Revision)
				t.row("contract", v.ABI)
				t.row("go", v.Go, v.Platform)
				for _, p := range v.Plugins {
					t.row("plugin "+p.Name, p.Digest)
				}
			})
		},
	}
}

// moduleVersion returns the version of this module: a tag, a pseudo-version, or "devel".
func moduleVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

// revision returns the commit that the program was built from, if Go recorded one.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	rev, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if rev == "" {
		return ""
	}
	return rev + dirty
}
