package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/host/graph"
)

const graphHelp = `Prints the documents and blobs behind REF as a tree: kind, digest, size, platform, and what convhost thinks of it.
Layers are not read.`

func (a *app) graphCommand() *cobra.Command {
	var dot bool
	cmd := &cobra.Command{
		Use: "graph REF", Short: "show the descriptor graph of an image", Long: graphHelp,
		Example: "  convhost graph oci:app:1\n  convhost graph --dot oci:app:1 | dot -Tsvg > app.svg",
		Args:    arguments(1, 1), ValidArgsFunction: a.completeReferences(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dot && a.set.json {
				return usage(cmd, "--dot and --json exclude each other")
			}
			return a.graph(cmd.Context(), args[0], dot)
		},
	}
	cmd.Flags().BoolVar(&dot, "dot", false, "print it in the language of Graphviz")
	return cmd
}

func (a *app) graph(ctx context.Context, ref string, dot bool) error {
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		a.ask = hints{engine: e, sources: []string{ref}}.of
		g, err := e.Graph(ctx, ref)
		if err != nil {
			return err
		}
		a.con.finish()
		if dot {
			return writeAll(a.stdout, []byte(graphDOT(g.Rows)))
		}
		draw := indents
		if isTerminal(a.stdout) {
			draw = branches
		}
		return a.result("graph", g, func(t *table) {
			lead := draw(g.Rows)
			for i, r := range g.Rows {
				t.row(lead[i]+graphKind(r), string(r.Digest), size(r.Size), r.Platform, r.Note)
			}
		})
	})
}

// graphKind names a row: by its role where that says more than its kind.
func graphKind(r graph.Row) string {
	switch r.Role {
	case graph.RoleLayer:
		return fmt.Sprintf("layer %d", r.Position)
	case graph.RoleConfig:
		return "config"
	}
	return string(r.Kind)
}

// indents shows depth by spaces.
func indents(rows []graph.Row) []string {
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = strings.Repeat("  ", r.Depth)
	}
	return out
}

// branches shows depth by lines from each row to its parent.
func branches(rows []graph.Row) []string {
	out := make([]string, len(rows))
	var open []bool // at each depth: a sibling follows further down
	for i := len(rows) - 1; i >= 0; i-- {
		d := rows[i].Depth
		for len(open) <= d {
			open = append(open, false)
		}
		var b strings.Builder
		for k := 1; k < d; k++ {
			b.WriteString(pick(open[k], "│  ", "   "))
		}
		if d > 0 {
			b.WriteString(pick(open[d], "├─ ", "└─ "))
		}
		out[i] = b.String()
		open[d] = true
		open = open[:d+1]
	}
	return out
}

func pick(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// graphDOT writes rows in Graphviz' language, each blob once.
func graphDOT(rows []graph.Row) string {
	var b strings.Builder
	b.WriteString("digraph image {\n\tnode [shape=box];\n")
	seen := map[string]bool{}
	once := func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); !seen[line] {
			seen[line] = true
			b.WriteString(line)
		}
	}
	var parents []string
	for _, r := range rows {
		id := string(r.Digest)
		if !seen[id] {
			seen[id] = true
			label := fmt.Sprintf("%s\n%s\n%s", r.Kind, short(r.Digest), size(r.Size))
			if r.Platform != "" {
				label += "\n" + clean(r.Platform)
			}
			once("\t%q [label=%q];\n", id, label)
		}
		parents = append(parents[:min(r.Depth, len(parents))], id)
		if r.Depth > 0 && len(parents) > 1 {
			once("\t%q -> %q;\n", parents[len(parents)-2], id)
		}
	}
	b.WriteString("}\n")
	return b.String()
}
