package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
)

// pluginInfo is the JSON form of host.PluginInfo.
type pluginInfo struct {
	Name    string         `json:"name"`
	Version string         `json:"version,omitempty"`
	Summary string         `json:"summary,omitempty"`
	Runtime host.Runtime   `json:"runtime"`
	Path    string         `json:"path,omitempty"` // empty: comes with convhost
	Digest  string         `json:"digest,omitempty"`
	ABI     string         `json:"abi,omitempty"`
	Ops     []string       `json:"operations,omitempty"`
	Chained bool           `json:"chained,omitempty"`
	Options []pluginOption `json:"options,omitempty"`
	Needs   []string       `json:"needs,omitempty"`
	Uses    []string       `json:"uses,omitempty"`
	Memory  int64          `json:"memory,omitempty"`
	Type    string         `json:"artifactType,omitempty"` // of referrers
	Dicts   bool           `json:"dicts,omitempty"`
	Error   string         `json:"error,omitempty"` // why it cannot be used
}

type pluginOption struct {
	Name    string   `json:"name"`
	Help    string   `json:"help,omitempty"`
	Default string   `json:"default,omitempty"`
	Values  []string `json:"values,omitempty"`
}

func describePlugin(p host.PluginInfo) pluginInfo {
	d := p.Description
	out := pluginInfo{Name: p.Name, Runtime: p.Runtime, Path: p.Path, Digest: p.Digest}
	if p.Err != nil {
		out.Error = p.Err.Error()
		return out
	}
	out.Version, out.Summary, out.Chained, out.Memory = d.Version, d.Summary, d.Chained, d.Memory
	out.Needs, out.Uses, out.ABI = d.Needs, d.Uses, fmt.Sprintf("%d.%d", d.Major, d.Minor)
	out.Type, out.Dicts = d.ArtifactType, d.Dicts
	for _, op := range d.Ops {
		out.Ops = append(out.Ops, op.String())
	}
	for _, o := range d.Options {
		out.Options = append(out.Options, pluginOption{o.Name, o.Help, o.Default, o.Values})
	}
	return out
}

func (a *app) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "plugin", Short: "tell about plugins", Args: noSuchCommand, RunE: showHelp,
		Long: `Plugins are files NAME.wasm and programs convhost-plugin-NAME in the directories of --plugin-dir, and those that come
with convhost. The first of a name is used.`,
	}
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "list the plugins that can be found",
		Long: "Lists the plugins that --format can name, and those that cannot be loaded with the reason.",
		Args: arguments(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.pluginList(cmd.Context()) },
	}, &cobra.Command{
		Use: "info NAME|PATH", Short: "tell about one plugin and its options",
		Long:    "Loads a plugin, by name or from its file, and tells what it says of itself: version, operations and options.",
		Example: "  convhost plugin info nydus\n  convhost plugin info ./squash.wasm --json",
		Args:    arguments(1, 1), ValidArgsFunction: a.completeFormats,
		RunE: func(cmd *cobra.Command, args []string) error { return a.pluginInfo(cmd.Context(), args[0]) },
	})
	return cmd
}

func (a *app) pluginList(ctx context.Context) error {
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		doc := struct {
			Plugins []pluginInfo `json:"plugins"`
		}{[]pluginInfo{}}
		for _, p := range e.Plugins(ctx) {
			doc.Plugins = append(doc.Plugins, describePlugin(p))
		}
		if err := ctx.Err(); err != nil {
			return abi.Errorf(abi.ErrCanceled, "list plugins: %w", err)
		}
		return a.result("plugins", doc, func(t *table) {
			t.row("NAME", "VERSION", "RUNTIME", "FROM", "SUMMARY")
			for _, p := range doc.Plugins {
				from := p.Path
				if from == "" {
					from = "built in"
				}
				summary := p.Summary
				if p.Error != "" {
					summary = "cannot be loaded: " + p.Error
				}
				t.row(p.Name, none(p.Version), string(p.Runtime), from, summary)
			}
		})
	})
}

func (a *app) pluginInfo(ctx context.Context, format string) error {
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		a.ask = hints{engine: e, formats: []string{format}}.of
		info, err := e.Plugin(ctx, format, host.Runtime(a.set.runtime))
		if err != nil {
			return err
		}
		p := describePlugin(info)
		return a.result("plugin", p, func(t *table) { printPlugin(t, p) })
	})
}

func printPlugin(t *table, p pluginInfo) {
	t.row("name", p.Name)
	t.row("version", p.Version)
	t.row("summary", p.Summary)
	t.row("runtime", string(p.Runtime))
	if p.Path != "" {
		t.row("path", p.Path)
	}
	t.row("digest", p.Digest)
	t.row("contract", p.ABI)
	t.row("operations", strings.Join(p.Ops, ", "))
	if p.Chained {
		t.row("layers", "one after the other, each needs those below it")
	}
	if p.Type != "" {
		t.row("artifact type", p.Type)
	}
	if p.Dicts {
		t.row("dictionaries", "takes files, with --dict")
	}
	if len(p.Needs) > 0 {
		t.row("needs", strings.Join(p.Needs, ", "))
	}
	if len(p.Options) == 0 {
		return
	}
	t.line("")
	t.row("OPTION", "DEFAULT", "VALUES", "MEANING")
	for _, o := range p.Options {
		t.row(o.Name, none(o.Default), none(strings.Join(o.Values, ", ")), o.Help)
	}
}
