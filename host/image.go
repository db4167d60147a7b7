package host

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/internal/session"
)

// view is one image, opened for the operations of a plugin: every layer is a part, and so is what layers refer to.
type view struct {
	parts  []abi.PartInfo
	grants []session.Part
	done   func()
}

// openView opens all layers of a manifest for p.
func (s *source) openView(ctx context.Context, n *graph.Node, p *plugin) (*view, error) {
	v := &view{done: func() {}}
	for i, l := range n.Layers() {
		err := v.open(ctx, s, l.Desc, abi.PartInfo{Layer: i, MediaType: l.Desc.MediaType, Annotations: l.Desc.Annotations})
		if err != nil {
			v.done()
			return nil, err
		}
	}
	err := s.eachRef(ctx, refsOf(&p.info.Description, n.Manifest.Layers), func(desc ocispec.Descriptor, info abi.PartInfo) error {
		return v.open(ctx, s, desc, info)
	})
	if err != nil {
		v.done()
		return nil, err
	}
	return v, nil
}

// open adds a blob.
func (v *view) open(ctx context.Context, s *source, desc ocispec.Descriptor, info abi.PartInfo) error {
	r, err := s.readerAt(ctx, desc)
	if err != nil {
		return err
	}
	prev := v.done
	v.done = func() { r.Close(); prev() }
	info.Digest, info.Size = string(desc.Digest), desc.Size
	v.grants, v.parts = append(v.grants, session.Part{At: r, Size: desc.Size}), append(v.parts, info)
	return nil
}

// marked reports whether a manifest is of the format that d describes.
func marked(d *abi.Description, m *ocispec.Manifest) bool {
	for _, mark := range d.Markers {
		if mark.MediaType == "" && mark.Annotation == "" {
			continue
		}
		for _, l := range m.Layers {
			_, has := l.Annotations[mark.Annotation]
			if (mark.MediaType == "" || mark.MediaType == l.MediaType) && (mark.Annotation == "" || has) {
				return true
			}
		}
	}
	return false
}

// plainAnnotations begin the keys of annotations that builders put on layers of ordinary images.
var plainAnnotations = []string{"org.opencontainers.image.", "buildkit/", "org.mobyproject.", "com.docker."}

// ordinary reports whether nothing about a manifest's layers hints at a format: they are tars without annotations that
// could be a marker.
func ordinary(m *ocispec.Manifest) bool {
	for _, l := range m.Layers {
		if _, tar := graph.CompressionOf(l.MediaType); !tar {
			return false
		}
		for key := range l.Annotations {
			if !slices.ContainsFunc(plainAnnotations, func(p string) bool { return strings.HasPrefix(key, p) }) {
				return false
			}
		}
	}
	return true
}

// pluginFor returns the plugin for a converted image: the one that is named, or the one whose marker the image carries;
// nil for an ordinary image. Plugins that come with the program or run already are asked first; the others of the search
// path are started only for an image that may be of some format and is of none of those.
func (h *Host) pluginFor(ctx context.Context, n *graph.Node, format string, rt Runtime) (*plugin, error) {
	if format != "" {
		p, err := h.plugins.get(ctx, format, rt)
		if err != nil || marked(&p.info.Description, n.Manifest) {
			return p, err
		}
		return nil, nil
	}
	var broken []string
	asked := map[candidate]bool{}
	near := func(c candidate) bool { asked[c] = !h.plugins.far(ctx, c); return asked[c] }
	rest := func(c candidate) bool { return !asked[c] }
	for i, pick := range []func(candidate) bool{near, rest} {
		if i > 0 && ordinary(n.Manifest) {
			break // no need to start programs to learn that nobody claims it
		}
		for _, info := range h.plugins.some(ctx, pick) {
			if info.Err != nil {
				broken = append(broken, info.Name)
				continue
			}
			if marked(&info.Description, n.Manifest) {
				return h.plugins.get(ctx, info.Name, rt)
			}
		}
	}
	if len(broken) > 0 {
		h.cfg.log.Warn("plugins that could not be loaded were not asked whether an image is theirs", "plugins", strings.Join(broken, ", "))
	}
	return nil, nil
}

// pickImages returns the images that a selection means.
func pickImages(g *graph.Graph, sel Selection, one bool) ([]*graph.Node, error) {
	var all []*graph.Node
	seen := map[string]bool{}
	for _, n := range g.Root.Manifests() {
		if n.Runnable && !seen[string(n.Desc.Digest)] {
			seen[string(n.Desc.Digest)] = true
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		return nil, abi.Errorf(abi.ErrUnsupported, "%s holds no image that a runtime could start: %s", g.Root.Desc.Digest, reason(g))
	}
	out, err := matching(all, sel, one)
	switch {
	case err != nil:
		return nil, err
	case one && len(out) > 1:
		return nil, abi.Errorf(abi.ErrInvalid, "%d images match, name one platform: %s", len(out), platformList(out))
	}
	return out, nil
}

func matching(all []*graph.Node, sel Selection, one bool) ([]*graph.Node, error) {
	switch {
	case sel.All || len(all) == 1 && len(sel.Platforms) == 0:
		return all, nil
	case len(sel.Platforms) > 0:
		var want []platforms.Matcher
		for _, p := range sel.Platforms {
			spec, err := platforms.Parse(p)
			if err != nil {
				return nil, abi.Errorf(abi.ErrInvalid, "platform %q: %w", p, err)
			}
			want = append(want, platforms.OnlyStrict(spec))
		}
		for i, m := range want {
			if !slices.ContainsFunc(all, func(n *graph.Node) bool { return runsOn(n, m) }) {
				return nil, abi.Errorf(abi.ErrNotFound, "no image for %s; there are: %s", sel.Platforms[i], platformList(all))
			}
		}
		return slices.DeleteFunc(slices.Clone(all), func(n *graph.Node) bool {
			return !slices.ContainsFunc(want, func(m platforms.Matcher) bool { return runsOn(n, m) })
		}), nil
	case one:
		here := platforms.DefaultSpec()
		if here.OS != "windows" {
			here.OS, here.OSVersion = "linux", "" // in a virtual machine, where there are no other images
		}
		host := platforms.OnlyStrict(here)
		for _, n := range all {
			if runsOn(n, host) {
				return []*graph.Node{n}, nil
			}
		}
	}
	return all, nil
}

// runsOn matches the platform of an image without the features that formats add to it.
func runsOn(n *graph.Node, m platforms.Matcher) bool {
	if n.Platform == nil {
		return false
	}
	p := *n.Platform
	p.OSFeatures = nil
	return m.Match(p)
}

func platformList(nodes []*graph.Node) string {
	var names []string
	for _, n := range nodes {
		names = append(names, platformOf(n))
	}
	return strings.Join(names, ", ")
}

func platformOf(n *graph.Node) string {
	if n.Platform == nil {
		return ""
	}
	return platforms.Format(*n.Platform) // features of a format are not part of what an image runs on
}

func reason(g *graph.Graph) string {
	for _, n := range g.Root.Manifests() {
		if n.Reason != "" {
			return n.Reason
		}
	}
	return "it has no manifests"
}

func digestOf(s string) digest.Digest { return digest.Digest(s) }
