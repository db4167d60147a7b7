package host

import (
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/graph"
)

// hostBytes names what the host adds to converted bytes of its own: its codecs, chunkers and digests. TestHostBytes says
// when it must change.
const hostBytes = "4"

// inProcess begins the identity of plugins in this process, which says nothing of their code.
const inProcess = "inprocess:"

// engineOf says what converts. The code is known by its digest: the module's, the executable's, or for a plugin in this
// process that of the running program, which is also what a built-in plugin is natively.
func (h *Host) engineOf(p *PluginInfo) (dedup.Engine, error) {
	e := dedup.Engine{Format: p.Name, Version: p.Description.Version, Code: p.Digest, Host: hostBytes}
	if strings.HasPrefix(e.Code, inProcess) || e.Code == "" {
		d, err := program()
		if err != nil {
			return e, err
		}
		e.Code = d.String()
	}
	return e, nil
}

// program returns the digest of the running program's file.
var program = sync.OnceValues(func() (digest.Digest, error) {
	name, err := os.Executable()
	if err != nil {
		return "", abi.Errorf(abi.ErrIO, "find this program: %w", err)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", abi.Errorf(abi.ErrIO, "read this program: %w", err)
	}
	defer f.Close()
	sum := digest.SHA256.Digester()
	if _, err := io.Copy(sum.Hash(), f); err != nil {
		return "", abi.Errorf(abi.ErrIO, "read this program: %w", err)
	}
	return sum.Digest(), nil
})

// withDefaults returns options with those that were left out at their defaults: naming a default makes no difference.
func withDefaults(d *abi.Description, options map[string]string) map[string]string {
	out := map[string]string{}
	for _, o := range d.Options {
		if o.Default != "" {
			out[o.Name] = o.Default
		}
	}
	maps.Copy(out, options)
	return out
}

func (u *reuse) layerKey(req *abi.ConvertRequest) dedup.Key {
	r := *req
	r.Options = withDefaults(&u.c.plugin.info.Description, req.Options)
	k := dedup.LayerKey{Engine: u.engine, Request: r}
	return k.Key()
}

// manifestKey is what the plugin will learn when it finishes an image, with the layers' requests: what else there is
// follows from them.
func (u *reuse) manifestKey(n *graph.Node) dedup.Key {
	d := &u.c.plugin.info.Description
	merge := u.c.mergeRequest(n)
	merge.Options = withDefaults(d, merge.Options)
	for _, info := range layerInfos(n, true, true) {
		merge.Layers = append(merge.Layers, abi.MergeLayer{Layer: info})
	}
	k := dedup.ManifestKey{Engine: u.engine, Source: n.Desc.Digest, Merge: merge, Output: u.c.output()}
	for _, info := range layerInfos(n, d.Chained, false) {
		req := u.c.layerRequest(info, nil)
		req.Options = withDefaults(d, req.Options)
		k.Layers = append(k.Layers, req)
	}
	return k.Key()
}

// output says how the documents are made, but for what makes no difference to them.
func (c *conversion) output() string {
	o := c.rewriting()
	o.Parallel = 0
	return fmt.Sprintf("%+v", o)
}

func partOf(p dedup.Part) part {
	return part{
		Part:   abi.Part{Name: p.Name, MediaType: p.MediaType, Digest: p.Digest.String(), Size: p.Size, Annotations: p.Annotations, Aux: p.Aux},
		desc:   ocispec.Descriptor{MediaType: p.MediaType, Digest: p.Digest, Size: p.Size, Annotations: p.Annotations},
		diffID: p.DiffID,
	}
}

func recordOf(p part) dedup.Part {
	return dedup.Part{Name: p.Name, MediaType: p.desc.MediaType, Digest: p.desc.Digest, Size: p.desc.Size, DiffID: p.diffID,
		Annotations: p.Annotations, Aux: p.Aux}
}

// imageOf turns a record back into what finish returned for n.
func imageOf(n *graph.Node, m *dedup.Manifest) ([]*converted, *finished, error) {
	nodes := n.Layers()
	if len(m.LayerWarnings) != 0 && len(m.LayerWarnings) != len(nodes) {
		return nil, nil, abi.Errorf(abi.ErrCorrupt, "it has warnings for %d layers, the image has %d", len(m.LayerWarnings), len(nodes))
	}
	layers := make([]*converted, len(nodes))
	for i := range nodes {
		layers[i] = &converted{source: nodes[i].Desc, reused: true}
		if len(m.LayerWarnings) > 0 {
			layers[i].warnings = m.LayerWarnings[i]
		}
	}
	f := &finished{reused: true, resp: abi.MergeResponse{
		OSFeatures: m.OSFeatures, ConfigMediaType: m.ConfigMediaType, Annotations: m.Annotations, ArtifactType: m.ArtifactType, Warnings: m.Warnings,
	}}
	for _, l := range m.Layers {
		if l.Source >= len(nodes) {
			return nil, nil, abi.Errorf(abi.ErrCorrupt, "it names source layer %d of %d", l.Source, len(nodes))
		}
		f.layers = append(f.layers, outLayer{
			desc:   ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, Annotations: l.Annotations},
			diffID: l.DiffID, source: l.Source, createdBy: l.CreatedBy, comment: l.Comment,
		})
	}
	return layers, f, nil
}

// manifestOf is the reverse.
func manifestOf(m *madeImage, target ocispec.Descriptor) *dedup.Manifest {
	out := &dedup.Manifest{
		Converted:  dedup.Target{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size},
		OSFeatures: m.f.resp.OSFeatures, ConfigMediaType: m.f.resp.ConfigMediaType, Annotations: m.f.resp.Annotations,
		ArtifactType: m.f.resp.ArtifactType, Warnings: m.f.resp.Warnings,
	}
	warned := false
	for _, l := range m.layers {
		out.LayerWarnings = append(out.LayerWarnings, l.warnings)
		warned = warned || len(l.warnings) > 0
	}
	if !warned {
		out.LayerWarnings = nil
	}
	for _, l := range m.f.layers {
		out.Layers = append(out.Layers, dedup.ManifestLayer{MediaType: l.desc.MediaType, Digest: l.desc.Digest, Size: l.desc.Size,
			DiffID: l.diffID, Annotations: l.desc.Annotations, Source: l.source, CreatedBy: l.createdBy, Comment: l.comment})
	}
	return out
}
