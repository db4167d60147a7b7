package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
)

const rootHelp = `convhost converts container images into formats that start faster, compares and unpacks what came out, and shows
what is inside. The formats are plugins, which run in a sandbox.

Images are named by references; see "convhost help references". Settings that all commands have can be flags,
environment variables or lines of a file; see "convhost help config". Scripts should use --json and the exit codes;
see "convhost help exit-codes".`

const referencesHelp = `An image is named by the place where it is, as skopeo does it:

  oci:DIR[:TAG]                        a directory in the OCI image layout
  oci-archive:FILE[:TAG]               a tar of such a directory
  docker-archive:FILE[:NAME:TAG]       what docker save writes
  docker://HOST/REPOSITORY[:TAG]       a repository in a registry, with docker's credentials
  docker://HOST/REPOSITORY@DIGEST

The tag may be left out where there is only one. Sources may also be named by @DIGEST, or in layouts and archives by
their place, from 0: oci:DIR:@0.
`

const exitHelp = `  0  done; verify: no difference; check: no problem
  1  a fault of convhost itself
  2  the request is wrong: a flag, a reference, an option, the configuration
  3  not supported by the format, the plugin or this version
  4  bytes break the rules of their format
  5  bytes end too early
  6  bytes do not have the promised digest or size
  7  a limit was reached
  8  an image, blob, plugin or file is not there
  9  something is there already, or changed meanwhile
 10  not allowed: permissions or credentials
 11  a plugin broke the contract
 12  a time limit was reached
 14  disk, network or registry failed
 15  verify: the images differ
130  interrupted

A first Ctrl-C (or SIGTERM) stops in an orderly way, a second one at once. Nothing half-made stays visible either way.
`

// rootCommand builds the tree of commands.
func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "convhost", Short: "convert container images into other formats", Long: rootHelp,
		SilenceErrors: true, SilenceUsage: true,
		Args: noSuchCommand, RunE: showHelp,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if forShell(cmd) {
				return nil // a shell that starts must not fail over a setting; questions of shells configure themselves
			}
			return a.configure(cmd)
		},
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, "%w", err) })
	root.SetUsageTemplate(usageTemplate)
	a.set.register(root.PersistentFlags())
	root.PersistentFlags().SortFlags = false
	a.completeSettings(root)
	root.AddCommand(a.convertCommand(), a.verifyCommand(), a.unpackCommand(), a.checkCommand(), a.attachCommand(), a.detachCommand(), a.attachmentsCommand(), a.graphCommand(),
		a.inspectCommand(), a.dedupCommand(), a.pluginCommand(), a.versionCommand(), a.serveCommand(),
		topic("references", "how images are named", referencesHelp),
		topic("config", "configuration file and environment", configHelp),
		topic("exit-codes", "what the exit codes say", exitHelp),
		topic("options", "flags that all commands have", root.PersistentFlags().FlagUsages()))
	return root
}

const usageTemplate = `Usage:{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{else}}
  {{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{if and .HasParent .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasHelpSubCommands}}

More help:{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  {{.Parent.CommandPath}} help {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{else}}

Flags that all commands have: {{.Root.Name}} help options{{end}}
`

func topic(name, short, text string) *cobra.Command {
	return &cobra.Command{Use: name, Short: short, Long: strings.TrimRight(text, "\n")}
}

// showHelp is what a command that only holds others does.
func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// noSuchCommand refuses arguments of a command that only holds others.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	cmd.SuggestionsMinimumDistance = 2
	if len(args) == 0 {
		return nil
	}
	err := abi.Errorf(abi.ErrInvalid, "there is no command %q", cmd.CommandPath()+" "+args[0])
	if names := cmd.SuggestionsFor(args[0]); len(names) > 0 {
		return withHint(err, "did you mean %s", strings.Join(names, " or "))
	}
	return withHint(err, "%s --help lists the commands", cmd.CommandPath())
}

// arguments checks the number of arguments against their names: upper case in Use, as in "verify SRC DST".
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		names := strings.Fields(cmd.Use)[1:]
		switch {
		case len(args) < least:
			return usage(cmd, "%s is missing", names[len(args)])
		case len(args) > most:
			return usage(cmd, "unexpected argument %q", args[most])
		}
		return nil
	}
}

// selection holds --platform and --all-platforms.
type selection struct {
	platforms []string
	all       bool
}

func (s *selection) register(cmd *cobra.Command, what, def string) {
	cmd.Flags().StringSliceVar(&s.platforms, "platform", nil, fmt.Sprintf("of an index, %s the images for `OS/ARCH[/VARIANT]` (repeatable, or with commas)", what))
	cmd.Flags().BoolVar(&s.all, "all-platforms", false, fmt.Sprintf("of an index, %s all images%s", what, def))
	must(cmd.RegisterFlagCompletionFunc("platform", fixed("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/riscv64", "windows/amd64")))
}
