package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/host"
)

const inspectHelp = `Tells about every image behind REF: format, platform, command, layers. Works for ordinary and converted images. Layers
are not read.`

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect REF", Short: "tell about the images behind a reference", Long: inspectHelp, Example: "  convhost inspect oci:out:1 --json",
		Args: arguments(1, 1), ValidArgsFunction: a.completeReferences(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.inspect(cmd.Context(), args[0]) },
	}
}

func (a *app) inspect(ctx context.Context, ref string) error {
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		a.ask = hints{engine: e, sources: []string{ref}}.of
		res, err := e.Inspect(ctx, ref)
		if err != nil {
			return err
		}
		a.con.finish()
		return a.result("inspected", res, func(t *table) {
			t.line("%s  %s  %s", res.Reference, res.Root.Digest, res.Root.MediaType)
			for _, img := range res.Images {
				t.line("")
				printImage(t, img)
			}
		})
	})
}

func printImage(t *table, img host.ImageInfo) {
	t.row("platform", img.Platform)
	if img.Reason != "" {
		t.row("no image", img.Reason)
	}
	if img.Format != "" {
		t.row("format", img.Format)
	}
	t.row("manifest", string(img.Manifest.Digest))
	if img.ArtifactType != "" {
		t.row("artifact type", img.ArtifactType)
	}
	if img.Subject != nil {
		t.row("subject", string(img.Subject.Digest))
	}
	t.row("config", string(img.Config.Digest))
	if img.Created != "" {
		t.row("created", img.Created)
	}
	if len(img.Command) > 0 {
		t.row("command", strings.Join(img.Command, " "))
	}
	t.row("size", size(img.Size), "in "+count(len(img.Layers), "layer"))
	t.line("")
	for i, l := range img.Layers {
		t.row(fmt.Sprintf("  layer %d", i), string(l.Digest), size(l.Size), l.MediaType)
	}
}
