package main

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
)

const checkHelp = `Lets the plugin of a converted image examine it: is every structure of the format as it has to be? Without --deep,
bodies of files are not read. Exit code 0 says that there is no problem, 4 that there are some; they are listed.`

// checkedImage is the JSON form of host.CheckResult.
type checkedImage struct {
	Format   string            `json:"format"`
	Platform string            `json:"platform,omitempty"`
	Manifest any               `json:"manifest"`
	Problems []checkProblem    `json:"problems"`
	Facts    map[string]string `json:"facts,omitempty"`
}

type checkProblem struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	Format  string `json:"format,omitempty"`
	Entry   string `json:"entry,omitempty"`
	Field   string `json:"field,omitempty"`
	Offset  int64  `json:"offset"` // -1 if unknown
	Got     string `json:"got,omitempty"`
	Want    string `json:"want,omitempty"`
}

func (a *app) checkCommand() *cobra.Command {
	var sel selection
	var req host.CheckRequest
	cmd := &cobra.Command{
		Use: "check REF", Short: "examine a converted image", Long: checkHelp, Example: "  convhost check oci:out:1 --deep",
		Args: arguments(1, 1), ValidArgsFunction: a.completeReferences(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			req.Image, req.Runtime = args[0], host.Runtime(a.set.runtime)
			if req.Select, err = sel.selection(cmd, true); err != nil {
				return err
			}
			return a.check(cmd.Context(), req)
		},
	}
	sel.register(cmd, "examine", "; the default")
	a.imageFormat(cmd, &req.Format)
	cmd.Flags().BoolVar(&req.Deep, "deep", false, "read every file's body too")
	return cmd
}

func (a *app) check(ctx context.Context, req host.CheckRequest) error {
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		a.ask = hints{engine: e, sources: []string{req.Image}, formats: []string{req.Format}}.of
		results, err := e.Check(ctx, req)
		if err != nil {
			return err
		}
		a.con.finish()
		doc := struct {
			OK     bool           `json:"ok"`
			Images []checkedImage `json:"images"`
		}{OK: true, Images: []checkedImage{}}
		problems := 0
		for _, r := range results {
			img := checkedImage{Format: r.Format, Platform: r.Platform, Manifest: r.Manifest, Problems: []checkProblem{}, Facts: r.Facts}
			for _, p := range r.Problems {
				img.Problems = append(img.Problems, checkProblem{p.Class.Error(), p.Message, p.Format, p.Entry, p.Field, p.Off, p.Got, p.Want})
			}
			problems += len(r.Problems)
			doc.Images = append(doc.Images, img)
		}
		doc.OK = problems == 0
		if err := a.result("checked", doc, func(t *table) { printChecked(t, results) }); err != nil {
			return err
		}
		if problems > 0 {
			return abi.Errorf(abi.ErrCorrupt, "%s has %s", req.Image, count(problems, "problem"))
		}
		return nil
	})
}

func printChecked(t *table, results []host.CheckResult) {
	for _, r := range results {
		name := r.Platform
		if name == "" {
			name = string(r.Manifest.Digest)
		}
		said := "no problem"
		if n := len(r.Problems); n > 0 {
			said = count(n, "problem")
		}
		t.line("%s: %s: %s", name, r.Format, said)
		for _, k := range slices.Sorted(maps.Keys(r.Facts)) {
			t.row("  "+k, r.Facts[k])
		}
		for _, p := range r.Problems {
			t.line("  %s: %s", p.Class.Error(), p.Message)
		}
	}
}
