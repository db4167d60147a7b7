package graph

import (
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/convhost/convhost/abi"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Action is what happens to an entry of an index, or to the root.
type Action string

// The actions.
const (
	Convert Action = "convert"
	Keep    Action = "keep" // bytes stay, the entry stays
	Drop    Action = "drop" // the entry does not appear in the converted index
)

// Decision is the action for one reference, and why.
type Decision struct {
	Node   *Node
	Action Action
	Reason string
	stale  bool // says something about an image that is converted: false as soon as that changed
}

// Selection is the result of Select.
type Selection struct {
	Decisions []Decision // every manifest and every entry of unknown kind, in document order
	Convert   []*Node    // the manifests to convert, each digest once
	of        map[*Node]*Decision
}

// Of returns the decision for a node; indexes have none, they follow their entries.
func (s *Selection) Of(n *Node) (Decision, bool) {
	if d, ok := s.of[n]; ok {
		return *d, true
	}
	return Decision{}, false
}

// AttestationPolicy says what becomes of attestations, SBOMs and signatures inside an index whose image changed: they
// speak of the old digest. Those of images that stay as they are stay too, and those of dropped images go.
type AttestationPolicy string

// The policies.
const (
	DropAttestations AttestationPolicy = ""     // they are recorded as dropped; the source index still has them
	KeepAttestations AttestationPolicy = "keep" // as they are: they still name the source image
)

// SelectOptions say which manifests are converted. The zero value means: the only manifest, or of an index the best
// one for this machine (for linux of the same architecture where images cannot run natively).
type SelectOptions struct {
	All          bool               // every runnable image
	Platforms    []ocispec.Platform // the images for these platforms, each must exist; not used with All
	Host         *ocispec.Platform  // instead of this machine's platform
	KeepOthers   bool               // images that are not selected stay unconverted in the index; else they are dropped
	Attestations AttestationPolicy
}

// Select decides for every manifest of a graph. Only runnable images are converted; artifacts and entries of unknown
// kinds are kept, unless they say something about an image that changes.
//
// ErrNotFound if a platform has no image (the message lists the platforms there are), ErrUnsupported if the root is
// a manifest that is not an image, or nothing in the index is.
func Select(g *Graph, opts SelectOptions) (*Selection, error) {
	images := runnable(g)
	if len(images) == 0 {
		if g.Root.Kind == KindManifest {
			return nil, abi.Errorf(abi.ErrUnsupported, "%s: not a runnable image: %s", g.Root.place(), g.Root.Reason)
		}
		return nil, abi.Errorf(abi.ErrUnsupported, "%s: no entry is a runnable image%s", g.Root.place(), whyNone(g))
	}
	chosen, err := choose(g, images, opts)
	if err != nil {
		return nil, err
	}
	s := &Selection{of: map[*Node]*Decision{}}
	action := map[digest.Digest]Action{} // of images, by digest; converting wins over dropping
	seen := map[digest.Digest]bool{}
	g.Root.Walk(func(n *Node) bool {
		if n.Kind == KindIndex && n.Index != nil || n.Role == RoleConfig || n.Role == RoleLayer {
			return true
		}
		d := decide(n, chosen, opts)
		if d.Action == Convert && !seen[n.Desc.Digest] {
			seen[n.Desc.Digest] = true
			s.Convert = append(s.Convert, n)
		}
		if action[n.Desc.Digest] != Convert {
			action[n.Desc.Digest] = d.Action
		}
		s.Decisions = append(s.Decisions, d)
		return true
	})
	for i := range s.Decisions {
		d := &s.Decisions[i]
		if d.Node.Attestation || d.Node.Attests != "" {
			attest(d, action, opts)
		}
		s.of[d.Node] = d
	}
	return s, nil
}

// whyNone says for the first entry why it is not an image.
func whyNone(g *Graph) string {
	if len(g.Root.Children) == 0 {
		return ": it is empty"
	}
	first := g.Root.Children[0]
	switch {
	case first.Reason != "":
		return "; the first: " + first.Reason
	case !first.Kind.Document():
		return "; the first has the media type " + first.Desc.MediaType
	}
	return ""
}

func runnable(g *Graph) (out []*Node) {
	for _, n := range g.Root.Manifests() {
		if n.Runnable {
			out = append(out, n)
		}
	}
	return out
}

// choose returns the manifests that are converted.
func choose(g *Graph, images []*Node, opts SelectOptions) (map[*Node]bool, error) {
	chosen := map[*Node]bool{}
	if opts.All || g.Root.Kind == KindManifest && len(opts.Platforms) == 0 {
		for _, n := range images {
			chosen[n] = true
		}
		return chosen, nil
	}
	if len(opts.Platforms) == 0 {
		host := hostPlatform()
		if opts.Host != nil {
			host = *opts.Host
		}
		return chosen, take(g, images, host, platforms.Only(host), chosen)
	}
	for _, p := range opts.Platforms {
		if err := take(g, images, p, platforms.OnlyStrict(p), chosen); err != nil {
			return nil, err
		}
	}
	return chosen, nil
}

// hostPlatform is the platform whose images a machine runs: Linux ones in a virtual machine where there are no others.
func hostPlatform() ocispec.Platform {
	p := platforms.DefaultSpec()
	if runtime.GOOS != "windows" {
		p.OS, p.OSVersion = "linux", ""
	}
	return p
}

// take adds the images that match want best, all that are equally good.
func take(g *Graph, images []*Node, want ocispec.Platform, m platforms.MatchComparer, chosen map[*Node]bool) error {
	var best []*Node
	var have []string
	for _, n := range images {
		if n.Platform == nil {
			continue
		}
		have = append(have, platforms.FormatAll(*n.Platform))
		if !m.Match(*n.Platform) {
			continue
		}
		switch {
		case len(best) == 0 || m.Less(*n.Platform, *best[0].Platform):
			best = []*Node{n}
		case !m.Less(*best[0].Platform, *n.Platform):
			best = append(best, n)
		}
	}
	if len(best) == 0 {
		slices.Sort(have)
		return abi.Errorf(abi.ErrNotFound, "%s: no image for %s; there are %s", g.Root.Path(), platforms.FormatAll(want),
			strings.Join(slices.Compact(have), ", "))
	}
	for _, n := range best {
		chosen[n] = true
	}
	return nil
}

func decide(n *Node, chosen map[*Node]bool, opts SelectOptions) Decision {
	unread := n.Kind.Document() && n.Raw == nil
	switch {
	case chosen[n]:
		return Decision{Node: n, Action: Convert, Reason: "selected"}
	case (n.Runnable || unread) && !opts.KeepOthers:
		return Decision{Node: n, Action: Drop, Reason: "platform not selected"}
	case n.Runnable || unread:
		return Decision{Node: n, Action: Keep, Reason: "platform not selected"}
	case n.Kind == KindManifest:
		return Decision{Node: n, Action: Keep, Reason: n.Reason}
	}
	return Decision{Node: n, Action: Keep, Reason: "media type " + n.Desc.MediaType + " is passed on"}
}

// attest decides for what says something about another manifest: by what becomes of that one.
func attest(d *Decision, action map[digest.Digest]Action, opts SelectOptions) {
	about := d.Node.Attests
	of, known := action[about]
	switch {
	case known && of == Keep:
		d.Action, d.Reason = Keep, "about "+short(about)+", which is kept"
	case known && of == Drop:
		d.Action, d.Reason = Drop, "about "+short(about)+", which is dropped"
	case about != "" && !known:
		d.Action, d.Reason = Keep, "about "+short(about)+", which is not in this graph"
	case opts.Attestations == KeepAttestations:
		d.Action, d.Reason = Keep, "about the source image, kept as asked"
	case about == "":
		d.Action, d.Reason = Drop, "attestation that does not say about what"
	default:
		d.Action, d.Reason, d.stale = Drop, "about the source image "+short(about)+", not about the converted one", true
	}
	action[d.Node.Desc.Digest] = d.Action
}
