package host

import (
	"context"
	"encoding/json"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/host/graph"
)

// Graph returns the descriptor graph behind a reference.
func (h *Host) Graph(ctx context.Context, ref string) (*GraphResult, error) {
	ctx, done, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	s, err := h.openSource(ctx, ref, nil)
	if err != nil {
		return nil, err
	}
	defer s.close()
	return &GraphResult{Root: s.root, Rows: s.graph.Rows()}, nil
}

// Inspect tells about the images behind a reference, ordinary and converted ones, without reading layers.
func (h *Host) Inspect(ctx context.Context, ref string) (*InspectResult, error) {
	ctx, done, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	s, err := h.openSource(ctx, ref, nil)
	if err != nil {
		return nil, err
	}
	defer s.close()
	res := &InspectResult{Reference: ref, Root: s.root}
	for _, n := range s.graph.Root.Manifests() {
		info, err := h.imageInfo(ctx, n)
		if err != nil {
			return nil, err
		}
		res.Images = append(res.Images, info)
	}
	return res, nil
}

func (h *Host) imageInfo(ctx context.Context, n *graph.Node) (ImageInfo, error) {
	info := ImageInfo{Manifest: n.Desc, Platform: platformOf(n), Reason: n.Reason, Config: n.Manifest.Config, Layers: n.Manifest.Layers,
		ArtifactType: n.Manifest.ArtifactType, Subject: n.Manifest.Subject}
	for _, l := range n.Manifest.Layers {
		info.Size += l.Size
	}
	if !n.Runnable {
		return info, nil
	}
	p, err := h.pluginFor(ctx, n, "", RuntimeDefault)
	if err != nil {
		return info, err
	}
	if info.Format = "oci"; p != nil {
		info.Format = p.info.Name
	}
	var cfg ocispec.Image
	if err := json.Unmarshal(n.ConfigNode().Raw, &cfg); err == nil { // the graph has checked the document; what does not fit is left out
		for _, d := range cfg.RootFS.DiffIDs {
			info.DiffIDs = append(info.DiffIDs, d.String())
		}
		if cfg.Created != nil {
			info.Created = cfg.Created.UTC().Format("2006-01-02T15:04:05Z")
		}
		info.Command = append(append([]string{}, cfg.Config.Entrypoint...), cfg.Config.Cmd...)
	}
	return info, nil
}
