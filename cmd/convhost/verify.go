package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/internal/layer/flatten"
)

const verifyHelp = `Compares the images SRC and DST file by file: type, mode, owner, time, size, link target, hard links, device numbers,
extended attributes and content. Each may be an ordinary image or a converted one. Nothing is unpacked to disk.

Exit code 0 says that there is no difference, 15 that there are some; they are listed.`

func (a *app) verifyCommand() *cobra.Command {
	var sel selection
	var req host.VerifyRequest
	cmd := &cobra.Command{
		Use: "verify SRC DST", Short: "compare two images file by file", Long: verifyHelp,
		Example: "  convhost verify oci:app:1 oci:out:1",
		Args:    arguments(2, 2), ValidArgsFunction: a.completeReferences(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			req.Source, req.Converted, req.Runtime = args[0], args[1], host.Runtime(a.set.runtime)
			if req.Select, err = sel.selection(cmd, true); err != nil {
				return err
			}
			if req.Max < 1 {
				return usage(cmd, "--max is %d, want 1 or more", req.Max)
			}
			return a.verify(cmd.Context(), req)
		},
	}
	sel.register(cmd, "compare", "; the default")
	a.imageFormat(cmd, &req.Format)
	cmd.Flags().IntVar(&req.Max, "max", 100, "list at most `N` differences of each image")
	return cmd
}

// imageFormat adds --format to a command that reads converted images.
func (a *app) imageFormat(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "format", "f", "", "read the converted image with the plugin `NAME|PATH`; default by its media types and annotations")
	must(cmd.RegisterFlagCompletionFunc("format", a.completeFormats))
}

func (a *app) verify(ctx context.Context, req host.VerifyRequest) error {
	a.refs = []string{req.Source, req.Converted}
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		a.ask = hints{engine: e, sources: []string{req.Source, req.Converted}, formats: []string{req.Format}}.of
		results, err := e.Verify(ctx, req)
		if err != nil && (abi.ClassOf(err) != abi.ErrMismatch || len(results) == 0) {
			return err
		}
		a.con.finish()
		var total int64
		for i, r := range results {
			total += int64(len(r.Differences)) + r.More
			if r.Differences == nil {
				results[i].Differences = []flatten.Difference{}
			}
		}
		doc := struct {
			Equal  bool                `json:"equal"`
			Images []host.VerifyResult `json:"images"`
		}{total == 0, results}
		if err := a.result("verified", doc, func(t *table) { printVerified(t, results) }); err != nil {
			return err
		}
		if total > 0 {
			return abi.Errorf(abi.ErrMismatch, "the images differ: %s", count(total, "difference"))
		}
		return nil
	})
}

func printVerified(t *table, results []host.VerifyResult) {
	for _, r := range results {
		name := r.Platform
		if name == "" {
			name = string(r.Source.Digest)
		}
		said := "no difference"
		if n := int64(len(r.Differences)) + r.More; n > 0 {
			said = count(n, "difference")
		}
		t.line("%s: %s, %s: %s", name, count(r.Files, "entry"), size(r.Bytes), said)
		if len(r.Differences) > 0 {
			t.row("  PATH", "WHAT", "SOURCE", "CONVERTED")
		}
		for _, d := range r.Differences {
			t.row("  /"+d.Path, d.Field, none(d.A), none(d.B))
		}
		if r.More > 0 {
			t.line("  %s", fmt.Sprintf("and %d more", r.More))
		}
	}
}

func none(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
