package main

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
)

const convertHelp = `Converts the image SRC with the plugin for a format and writes the result to DST. SRC stays as it is.

--format names a plugin ("convhost plugin list") or the file of one. Several formats are made in one pass over the
source with --to FORMAT=DST instead of DST and --format.

If SRC is an index, all its images that can run are converted and DST is an index again; --platform narrows that.
Attestations speak of the source's bytes and are dropped, unless --attestations keep.

DST gets its name last: until then, or after an error, nothing is visible there. With --dry-run it may be left out.`

const convertExamples = `  convhost convert oci:app:1 oci:out:1 --format nydus
  convhost convert docker://registry.example/app:1 docker://registry.example/app:1-nydus --format nydus --verify
  convhost convert oci:app:1 --to nydus=oci:out:nydus --to ./squash.wasm=oci:out:squash --platform linux/amd64
  convhost convert oci:app:1 --format nydus --dry-run --verify --dump-manifest ./documents`

type convertFlags struct {
	format       string
	to           []string
	options      []string
	sel          selection
	attestations string
	mediaTypes   string
	referrers    bool
	dicts        []string
	verify       bool
	dryRun       bool
	dump         string
	keepWork     bool
}

func (a *app) convertCommand() *cobra.Command {
	var f convertFlags
	cmd := &cobra.Command{
		Use: "convert SRC DST", Short: "convert an image into another format", Long: convertHelp, Example: convertExamples,
		Args: arguments(1, 2), ValidArgsFunction: a.completeReferences(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(cmd, args, host.Runtime(a.set.runtime))
			if err != nil {
				return err
			}
			return a.convert(cmd.Context(), req)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVarP(&f.format, "format", "f", "", "make DST with the plugin `NAME|PATH`: its name or its file")
	fs.StringArrayVar(&f.to, "to", nil, "one of several targets `FORMAT=DST`, instead of DST and --format (repeatable)")
	fs.StringArrayVarP(&f.options, "option", "o", nil, "set the plugin's option `[FORMAT:]NAME=VALUE`; with FORMAT, only for that one of several targets (repeatable)")
	f.sel.register(cmd, "convert", "; the default")
	fs.Var(oneOf(&f.attestations, string(host.AttestationsDrop), []string{string(host.AttestationsDrop), string(host.AttestationsKeep)}),
		"attestations", "`drop|keep` attestations of converted images")
	fs.Var(oneOf(&f.mediaTypes, string(host.MediaTypesSource), mediaTypes), "media-types",
		"write documents with the media types of `source|oci|docker`; source: as it has them, and OCI's where Docker's cannot say it")
	fs.BoolVar(&f.referrers, "referrer", false, "let manifests and indexes refer to those they were made of (artifact type and subject); makes them OCI's")
	fs.StringArrayVar(&f.dicts, "dict", nil, "let the plugin read the file `[FORMAT:]PATH`: a base layer, a dictionary (repeatable)")
	fs.BoolVar(&f.verify, "verify", false, "compare every converted image with its source before it is published")
	fs.BoolVar(&f.dryRun, "dry-run", false, "do everything but publish; DST may be left out")
	fs.StringVar(&f.dump, "dump-manifest", "", "write the new index, manifests and configs into the directory `DIR`, which must be new or empty")
	fs.BoolVar(&f.keepWork, "keep-work", false, "leave the working directory behind and say where it is")
	must(cmd.MarkFlagDirname("dump-manifest"))
	must(cmd.RegisterFlagCompletionFunc("media-types", fixed(mediaTypes...)))
	must(cmd.RegisterFlagCompletionFunc("format", a.completeFormats))
	must(cmd.RegisterFlagCompletionFunc("to", a.completeTargets))
	must(cmd.RegisterFlagCompletionFunc("option", a.completeOptions(&f)))
	must(cmd.RegisterFlagCompletionFunc("attestations", fixed("drop", "keep")))
	return cmd
}

var mediaTypes = []string{string(host.MediaTypesSource), string(host.MediaTypesOCI), string(host.MediaTypesDocker)}

// request makes a request of the flags.
func (f *convertFlags) request(cmd *cobra.Command, args []string, rt host.Runtime) (host.ConvertRequest, error) {
	req := host.ConvertRequest{Source: args[0], Attestations: host.Attestations(f.attestations), Verify: f.verify,
		DryRun: f.dryRun, DumpDir: f.dump, KeepWork: f.keepWork}
	var err error
	if req.Select, err = f.sel.selection(cmd, true); err != nil {
		return req, err
	}
	switch {
	case len(f.to) == 0 && len(args) < 2 && !f.dryRun:
		return req, usage(cmd, "DST is missing")
	case len(f.to) == 0 && f.format == "":
		return req, withHint(abi.Errorf(abi.ErrInvalid, "--format is missing"), "convhost plugin list shows the formats")
	case len(f.to) == 0:
		req.Targets = []host.Target{{Format: f.format, Runtime: rt}}
		if len(args) > 1 {
			req.Targets[0].Dest = args[1]
		}
	case len(args) > 1 || f.format != "":
		return req, usage(cmd, "--to takes the place of DST and --format: give one or the other")
	}
	for _, to := range f.to {
		format, dest, ok := strings.Cut(to, "=")
		if format == "" || (!ok || dest == "") && !f.dryRun {
			return req, usage(cmd, "--to %q: want FORMAT=DST", to)
		}
		if slices.ContainsFunc(req.Targets, func(t host.Target) bool { return t.Dest == dest && dest != "" }) {
			return req, usage(cmd, "--to %q: %s is the target of another format already", to, dest)
		}
		req.Targets = append(req.Targets, host.Target{Format: format, Dest: dest, Runtime: rt})
	}
	f.addFamily(req.Targets)
	return req, f.addOptions(cmd, req.Targets)
}

// addFamily gives each target what is said of all, and its dictionaries. A path that begins like a format of this run is
// written with ./ in front.
func (f *convertFlags) addFamily(targets []host.Target) {
	for i := range targets {
		t := &targets[i]
		t.MediaTypes, t.Referrers = host.MediaTypes(f.mediaTypes), f.referrers
		for _, d := range f.dicts {
			if path, ok := strings.CutPrefix(d, t.Format+":"); ok {
				t.Dicts = append(t.Dicts, path)
			} else if !slices.ContainsFunc(targets, func(o host.Target) bool { return strings.HasPrefix(d, o.Format+":") }) {
				t.Dicts = append(t.Dicts, d)
			}
		}
	}
}

// addOptions gives each target its options.
func (f *convertFlags) addOptions(cmd *cobra.Command, targets []host.Target) error {
	for i := range targets {
		targets[i].Options = map[string]string{}
	}
	for _, o := range f.options {
		key, value, ok := strings.Cut(o, "=")
		format, name := "", key
		if i := strings.LastIndex(key, ":"); i >= 0 {
			format, name = key[:i], key[i+1:]
		}
		if !ok || name == "" {
			return usage(cmd, "--option %q: want NAME=VALUE or FORMAT:NAME=VALUE", o)
		}
		used := false
		for _, t := range targets {
			if format != "" && format != t.Format {
				continue
			}
			if old, has := t.Options[name]; has && old != value {
				return usage(cmd, "--option %q: %s is %q already", o, name, old)
			}
			t.Options[name], used = value, true
		}
		if !used {
			return usage(cmd, "--option %q: there is no target of the format %q", o, format)
		}
	}
	return nil
}

// selection turns the flags into what the host wants. byDefault says that all images of an index are meant without flags.
func (s *selection) selection(cmd *cobra.Command, byDefault bool) (host.Selection, error) {
	all := s.all
	if all && len(s.platforms) > 0 {
		return host.Selection{}, usage(cmd, "--platform and --all-platforms exclude each other")
	}
	var out host.Selection
	for _, p := range s.platforms {
		if p = strings.TrimSpace(p); p == "" {
			return out, usage(cmd, "--platform is empty, want OS/ARCH[/VARIANT]")
		}
		out.Platforms = append(out.Platforms, p)
	}
	out.All = all || byDefault && len(out.Platforms) == 0
	return out, nil
}

func (a *app) convert(ctx context.Context, req host.ConvertRequest) error {
	a.targets, a.refs = len(req.Targets), []string{req.Source}
	for _, t := range req.Targets {
		a.refs = append(a.refs, t.Dest)
	}
	if !req.DryRun {
		done, err := a.remember(ctx)
		if err != nil {
			return err
		}
		defer done()
	}
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		h := hints{engine: e, sources: []string{req.Source}}
		for _, t := range req.Targets {
			h.formats, h.targets = append(h.formats, t.Format), append(h.targets, t.Dest)
		}
		a.ask = h.of
		results, err := e.Convert(ctx, req)
		if err != nil {
			return err
		}
		a.con.finish()
		for _, r := range results {
			for i, m := range r.Manifests {
				if m.Layers == nil { // was of this format already
					r.Manifests[i].Layers = []host.LayerResult{}
				}
				for _, w := range m.Warnings {
					a.con.warn(strings.TrimPrefix(m.Platform+": "+w, ": "))
				}
			}
		}
		doc := struct {
			Results []host.Result `json:"results"`
		}{results}
		return a.result("converted", doc, func(t *table) { printResults(t, results) })
	})
}

// layersOf counts the layers of a result.
func layersOf(m host.ManifestResult, reused int) string {
	text := count(len(m.Layers), "layer")
	switch {
	case reused == len(m.Layers):
		text += ", reused"
	case reused > 0:
		text += ", " + strconv.Itoa(reused) + " reused"
	}
	return text
}

func printResults(t *table, results []host.Result) {
	for _, r := range results {
		t.line("%s  %s  %s", pick(r.DryRun, "not published", r.Dest), r.Root.Digest, r.Format)
		for _, m := range r.Manifests {
			var from, to int64
			reused := 0
			for _, l := range m.Layers {
				if l.Reused {
					reused++
				}
				to += l.Converted.Size
				if l.Source != nil {
					from += l.Source.Size
				}
			}
			if m.Already {
				t.row("  "+m.Platform, string(m.Converted.Digest), "already "+r.Format)
				continue
			}
			t.row("  "+m.Platform, string(m.Converted.Digest), layersOf(m, reused), size(from)+" → "+size(to))
		}
		for _, d := range r.Dropped {
			t.row("  dropped", string(d.Descriptor.Digest), d.Reason)
		}
	}
}
