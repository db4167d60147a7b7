package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
)

// dump writes the documents of all results below dir, which appears when they are complete: the graph as directories.
//
//	index.json                      the root, if it is one
//	0-linux-amd64/manifest.json     its entry 0, with the platform if it has one
//	0-linux-amd64/config.json
//	1/index.json                    its entry 1, a nested index
//
// With several targets, each has a directory named by its place and format.
func (h *Host) dump(ctx context.Context, dir string, convs []*conversion) error {
	if err := vacant(dir); err != nil {
		return err
	}
	parent := filepath.Dir(filepath.Clean(dir))
	tmp, err := os.MkdirTemp(parent, ".convhost-dump-")
	if err != nil {
		return abi.Errorf(fileClass(err), "dump: %w", err)
	}
	defer os.RemoveAll(tmp)
	for i, c := range convs {
		sub := tmp
		if len(convs) > 1 {
			sub = filepath.Join(tmp, fmt.Sprintf("%d-%s", i, c.plugin.info.Name))
		}
		if err := c.dump(ctx, sub); err != nil {
			return err
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return abi.Errorf(abi.ErrIO, "dump: %w", err)
	}
	_ = os.Remove(dir) // an empty directory gives way
	if err := os.Rename(tmp, dir); err != nil {
		return abi.Errorf(fileClass(err), "dump: %w", err)
	}
	return nil
}

// vacant refuses a directory that holds something.
func vacant(dir string) error {
	names, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return abi.Errorf(fileClass(err), "dump: %w", err)
	case len(names) > 0:
		return abi.Errorf(abi.ErrExists, "dump: %s is not empty", dir)
	}
	return nil
}

// documents reads the graph that was made, wherever its documents are: in the store, or unchanged in the source.
func (c *conversion) documents(ctx context.Context) (*graph.Graph, error) {
	return graph.Load(ctx, fetcher{c}, c.rewritten.Root, graph.LoadOptions{Limits: c.host.cfg.limits.Graph})
}

type fetcher struct{ c *conversion }

// Fetch implements graph.Fetcher.
func (f fetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	for _, d := range f.c.rewritten.Documents {
		if d.Desc.Digest == desc.Digest {
			return io.NopCloser(bytes.NewReader(d.Raw)), nil
		}
	}
	return f.c.src.t.Fetch(ctx, desc)
}

func (c *conversion) dump(ctx context.Context, dir string) error {
	g, err := c.documents(ctx)
	if err != nil {
		return err
	}
	return dumpNode(g.Root, dir)
}

func dumpNode(n *graph.Node, dir string) error {
	name := ""
	switch n.Kind {
	case graph.KindIndex:
		name = "index.json"
	case graph.KindManifest:
		name = "manifest.json"
	case graph.KindConfig:
		name = "config.json"
	}
	if name == "" || n.Raw == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return abi.Errorf(fileClass(err), "dump: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), n.Raw, 0o644); err != nil {
		return abi.Errorf(fileClass(err), "dump: %w", err)
	}
	for i, child := range n.Children {
		sub := dir
		if child.Role == graph.RoleEntry {
			sub = filepath.Join(dir, entryName(i, child))
		}
		if err := dumpNode(child, sub); err != nil {
			return err
		}
	}
	return nil
}

// entryName is a file name for an entry of an index. Platforms are printable, but may hold anything else.
func entryName(i int, n *graph.Node) string {
	name := fmt.Sprint(i)
	if p := platformOf(n); p != "" && len(p) <= 100 {
		name += "-" + strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' {
				return r
			}
			return '-'
		}, p)
	}
	return name
}
