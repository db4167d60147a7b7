// Command convhost converts container images into formats that start faster, looks at them and compares them.
//
//	convhost convert oci:dir:tag oci:out:tag --format nydus
//	convhost verify oci:dir:tag oci:out:tag
//	convhost graph oci:out:tag
//
// It is a thin layer over package host: commands turn flags into requests and results into text. What a person wants
// to know stands in docs/cli.md (generated from the commands), what a script may rely on in docs/scripting.md: exit
// codes and JSON messages. How it talks to people is written at the top of terminal.go.
//
// Settings come from a configuration file, the environment and flags; see config.go. Plugins that come with the
// program are listed in builtin.go.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
