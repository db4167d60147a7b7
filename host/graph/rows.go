package graph

import (
	"fmt"
	"io"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
)

// Row is one line of a graph as a person or a program reads it: `convhost graph` prints them, indented by depth.
type Row struct {
	Depth     int           `json:"depth"`
	Role      Role          `json:"role"`
	Position  int           `json:"position"` // among its siblings, from 0
	Kind      Kind          `json:"kind"`
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"` // bytes, as declared
	Platform  string        `json:"platform,omitempty"`
	Runnable  bool          `json:"runnable,omitempty"`
	Note      string        `json:"note,omitempty"`
}

// Rows returns the whole graph, parents before children, shared parts each time.
func (g *Graph) Rows() []Row {
	rows := []Row{}
	g.Root.Walk(func(n *Node) bool {
		r := Row{Depth: n.Depth(), Role: n.Role, Position: n.Position, Kind: n.Kind, MediaType: n.Desc.MediaType,
			Digest: n.Desc.Digest, Size: n.Desc.Size, Runnable: n.Runnable, Note: n.note()}
		if n.Platform != nil {
			r.Platform = platforms.FormatAll(*n.Platform)
		}
		rows = append(rows, r)
		return true
	})
	return rows
}

func (n *Node) note() string {
	switch {
	case n.Attests != "":
		return n.Reason + ", about " + short(n.Attests)
	case n.Manifest != nil && n.Manifest.Subject != nil:
		return "subject " + short(n.Manifest.Subject.Digest)
	case n.Kind == KindForeign:
		return "may have to be fetched from elsewhere"
	case n.Kind == KindEncrypted:
		return "encrypted"
	}
	return n.Reason
}

// DOT writes the graph in Graphviz' language, each blob once.
func (g *Graph) DOT(w io.Writer) error {
	var err error
	put := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format, args...)
		}
	}
	put("digraph image {\n\tnode [shape=box];\n")
	seen := map[string]bool{}
	once := func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); !seen[line] {
			seen[line] = true
			put("%s", line)
		}
	}
	named := map[digest.Digest]bool{}
	g.Root.Walk(func(n *Node) bool {
		if id := n.Desc.Digest; !named[id] {
			named[id] = true
			label := fmt.Sprintf("%s\n%s\n%d bytes", n.Kind, short(id), n.Desc.Size)
			if n.Platform != nil {
				label += "\n" + platforms.FormatAll(*n.Platform)
			}
			once("\t%q [label=%q];\n", id, label)
		}
		if n.Parent != nil {
			once("\t%q -> %q;\n", n.Parent.Desc.Digest, n.Desc.Digest)
		}
		return err == nil
	})
	put("}\n")
	return err
}
