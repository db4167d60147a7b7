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

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
)

// dump is a directory with the documents of all results, beside its place until they are published: the graph as
// directories.
//
//	index.json                      the root, if it is one
//	0-linux-amd64/manifest.json     its entry 0, with the platform if it has one
//	0-linux-amd64/config.json
//	1/index.json                    its entry 1, a nested index
//
// With several targets, each has a directory named by its place and format.
type dump struct{ tmp, dir string }

// stageDump writes the documents. The caller drops the dump in any case.
func stageDump(ctx context.Context, dir string, convs []*conversion) (_ *dump, err error) {
	if err := vacant(dir); err != nil {
		return nil, err
	}
	d := &dump{dir: dir}
	if d.tmp, err = os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), ".convhost-dump-"); err != nil {
		return nil, abi.Errorf(fileClass(err), "dump: %w", err)
	}
	defer func() {
		if err != nil {
			d.drop()
		}
	}()
	for i, c := range convs {
		sub := d.tmp
		if len(convs) > 1 {
			sub = filepath.Join(d.tmp, fmt.Sprintf("%d-%s", i, c.plugin.info.Name))
		}
		if err := c.dump(ctx, sub); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(d.tmp, 0o755); err != nil {
		return nil, abi.Errorf(abi.ErrIO, "dump: %w", err)
	}
	return d, nil
}

// appear gives the dump its name.
func (d *dump) appear() error {
	_ = os.Remove(d.dir) // an empty directory gives way
	if err := os.Rename(d.tmp, d.dir); err != nil {
		return abi.Errorf(fileClass(err), "dump: %w", err)
	}
	return nil
}

// drop removes what has not appeared.
func (d *dump) drop() { os.RemoveAll(d.tmp) }

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

// documents reads the graph that was made: of new documents, and of those of the source that stay as they are.
func (c *conversion) documents(ctx context.Context) (*graph.Graph, error) {
	f := fetcher{c.src, map[digest.Digest][]byte{}}
	for _, n := range c.rewritten.Kept {
		for _, k := range kept(n) {
			f.have[k.Desc.Digest] = k.Raw
		}
	}
	for _, d := range c.rewritten.Documents {
		f.have[d.Desc.Digest] = d.Raw
	}
	return graph.Load(ctx, f, c.rewritten.Root, graph.LoadOptions{Limits: c.host.cfg.limits.Graph})
}

// fetcher gives documents that were read or made, and else those of the source.
type fetcher struct {
	src  *source
	have map[digest.Digest][]byte
}

// Fetch implements graph.Fetcher.
func (f fetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if raw := f.have[desc.Digest]; raw != nil {
		return io.NopCloser(bytes.NewReader(raw)), nil
	}
	return f.src.t.Fetch(ctx, desc)
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
