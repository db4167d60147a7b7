package graph_test

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Every layer becomes another blob, and the image gets one layer more on top.
func ExampleRewrite() {
	store := graphtest.NewStore()
	root := store.Image(graphtest.Image{History: true, Layers: []graphtest.Layer{store.Layer(map[string]string{"etc/motd": "hello\n"})}})
	ctx := context.Background()

	g, err := graph.Load(ctx, store, root, graph.LoadOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	sel, err := graph.Select(g, graph.SelectOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	convert := func(ctx context.Context, m *graph.Node) (*graph.Conversion, error) {
		c := &graph.Conversion{}
		for _, l := range m.Layers() { // here a plugin would read the layer and write blobs
			blob := graph.NewDescriptor(l.Desc, "application/vnd.oci.image.layer.example.v1", digest.FromString("blob of "+string(l.Desc.Digest)), 100)
			c.Manifest.Layers = append(c.Manifest.Layers, blob)
			c.Config.DiffIDs = append(c.Config.DiffIDs, blob.Digest)
		}
		c.Manifest.Layers = append(c.Manifest.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("top"), Size: 3})
		c.Config.DiffIDs = append(c.Config.DiffIDs, digest.FromString("top"))
		c.Config.History.Append = []ocispec.History{{CreatedBy: "example"}}
		return c, nil
	}
	out, err := graph.Rewrite(ctx, g, sel, convert, store, graph.RewriteOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	g, err = graph.Load(ctx, store, out.Root, graph.LoadOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range g.Rows() {
		fmt.Println(strings.TrimSpace(strings.Repeat("  ", r.Depth) + string(r.Kind) + " " + r.Platform))
	}
	// Output:
	// manifest linux/amd64
	// config
	// opaque
	// layer
}

// sink takes documents and forgets them.
type sink struct{}

func (sink) WriteDocument(context.Context, ocispec.Descriptor, []byte) error { return nil }

// both reads from the first store that has a blob.
type both [2]*graphtest.Store

func (b both) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if b[0].Get(d.Digest) != nil {
		return b[0].Fetch(ctx, d)
	}
	return b[1].Fetch(ctx, d)
}
