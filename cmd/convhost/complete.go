package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/host/transport"
)

type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

func must(err error) {
	if err != nil {
		panic(err) // a flag that does not exist: every start of the program would show it
	}
}

// forShell tells whether a command is one of those that cobra adds for shells.
func forShell(cmd *cobra.Command) bool {
	name := cmd.Name()
	return name == cobra.ShellCompRequestCmd || name == cobra.ShellCompNoDescRequestCmd || cmd.HasParent() && cmd.Parent().Name() == "completion"
}

// fixed offers a few words.
func fixed(words ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeSettings(root *cobra.Command) {
	must(root.RegisterFlagCompletionFunc("runtime", fixed(runtimes...)))
	must(root.RegisterFlagCompletionFunc("log-level", fixed(logLevels...)))
	must(root.RegisterFlagCompletionFunc("progress", fixed(progressModes...)))
	must(root.MarkPersistentFlagDirname("plugin-dir"))
	must(root.MarkPersistentFlagDirname("cache-dir"))
	must(root.MarkPersistentFlagDirname("dedup"))
	must(root.MarkPersistentFlagDirname("work-dir"))
	must(root.MarkPersistentFlagDirname("state-dir"))
	must(root.MarkPersistentFlagDirname("cert-dir"))
}

// asking opens the engine for a completion. Errors complete nothing: a shell has no place to show them.
func (a *app) asking(cmd *cobra.Command, fn func(context.Context, engine)) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if a.configure(cmd) != nil {
		return
	}
	a.set.progress, a.set.quiet = progressNone, true
	if a.set.credsFile == "-" {
		a.set.credsFile, a.set.creds, a.set.credsHost = "", "", "" // standard input is not ours yet
		a.set.flags.Lookup("creds-file").Changed = false
	}
	_ = a.withEngine(ctx, func(ctx context.Context, e engine) error {
		fn(ctx, e)
		return nil
	})
}

// completeFormats offers plugins by name; a word that looks like a path is one.
func (a *app) completeFormats(cmd *cobra.Command, args []string, word string) (out []string, _ cobra.ShellCompDirective) {
	if strings.ContainsAny(word, `/\`) || len(args) > 0 && cmd.Name() == "info" {
		return nil, cobra.ShellCompDirectiveDefault
	}
	a.asking(cmd, func(ctx context.Context, e engine) {
		for _, p := range e.Plugins(ctx) {
			if p.Err == nil {
				out = append(out, p.Name+"\t"+clean(p.Description.Summary))
			}
		}
	})
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeTargets offers FORMAT=, then references.
func (a *app) completeTargets(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	format, ref, ok := strings.Cut(word, "=")
	if !ok {
		names, directive := a.completeFormats(cmd, nil, word)
		for i, n := range names {
			name, summary, _ := strings.Cut(n, "\t")
			names[i] = name + "=\t" + summary
		}
		return names, directive | cobra.ShellCompDirectiveNoSpace
	}
	refs, directive := a.references(ref)
	for i := range refs {
		refs[i] = format + "=" + refs[i]
	}
	return refs, directive
}

// completeOptions offers the option names of the formats that stand on the line, then their values.
func (a *app) completeOptions(f *convertFlags) completer {
	return func(cmd *cobra.Command, _ []string, word string) (out []string, d cobra.ShellCompDirective) {
		formats := []string{f.format}
		for _, to := range f.to {
			format, _, _ := strings.Cut(to, "=")
			formats = append(formats, format)
		}
		name, _, hasValue := strings.Cut(word, "=")
		a.asking(cmd, func(ctx context.Context, e engine) {
			for _, format := range formats {
				if format == "" {
					continue
				}
				p, err := e.Plugin(ctx, format, host.Runtime(a.set.runtime))
				if err != nil {
					continue
				}
				for _, o := range p.Description.Options {
					if !hasValue {
						out = append(out, o.Name+"=\t"+clean(o.Help))
						continue
					}
					for _, v := range o.Values {
						if o.Name == name {
							out = append(out, name+"="+v)
						}
					}
				}
			}
		})
		return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// completeReferences offers transports, then paths, then the tags of a layout, for the first n arguments.
func (a *app) completeReferences(n int) completer {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveDefault // OUT of unpack, or nothing
		}
		return a.references(word)
	}
}

func (a *app) references(word string) (out []string, _ cobra.ShellCompDirective) {
	const stay = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	kind, path, ok := strings.Cut(word, ":")
	if !ok {
		return []string{"oci:\tdirectory in the OCI image layout", "oci-archive:\ttar of such a directory",
			"docker-archive:\twhat docker save writes", "docker://\trepository in a registry"}, stay
	}
	if kind != transport.OCI && kind != transport.OCIArchive && kind != transport.DockerArchive {
		return nil, stay
	}
	if path, _, tagged := strings.Cut(path, ":"); tagged {
		r := transport.Reference{Transport: kind, Path: path, Index: -1}
		for _, tag := range localTags(r, a.set.transportOptions(nil)) {
			out = append(out, kind+":"+path+":"+clean(tag))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
	found, _ := filepath.Glob(escapeGlob(path) + "*")
	for _, p := range found {
		st, err := os.Stat(p)
		switch {
		case err != nil || kind == transport.OCI && !st.IsDir():
		case !st.IsDir():
			out = append(out, kind+":"+p)
		case isLayout(p) && kind == transport.OCI:
			out = append(out, kind+":"+p+":")
		default:
			out = append(out, kind+":"+p+string(filepath.Separator))
		}
	}
	return out, stay
}

func isLayout(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "oci-layout"))
	return err == nil
}

func escapeGlob(path string) string {
	if filepath.Separator == '\\' {
		return path // has no escapes there
	}
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// localTags reads the names in a layout or archive, nil if it cannot.
func localTags(r transport.Reference, opts transport.Options) []string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r.Tag, r.Digest, r.Index = "", "", -1
	src, err := transport.OpenSource(ctx, r, opts)
	if err != nil {
		return nil
	}
	defer src.Close()
	names, err := src.Tags(ctx)
	if err != nil {
		return nil
	}
	return names
}
