package graph

import (
	"cmp"
	"context"
	"fmt"

	"github.com/convhost/convhost/abi"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations by which BuildKit marks what it says about an image.
const (
	annReferenceType   = "vnd.docker.reference.type"
	annReferenceDigest = "vnd.docker.reference.digest"
	attestationType    = "application/vnd.docker.attestation.manifest.v1+json"
)

// knownPlatform returns a platform that says something: nil if architecture or os is missing.
func knownPlatform(p *ocispec.Platform) *ocispec.Platform {
	if p == nil || p.Architecture == "" || p.OS == "" {
		return nil
	}
	return p
}

func unknownPlatform(p *ocispec.Platform) bool {
	return p != nil && p.OS == "unknown" && p.Architecture == "unknown"
}

// markAttestation fills in Attestation and Attests from what the reference and the manifest say.
func (n *Node) markAttestation() {
	n.Attestation = unknownPlatform(n.Platform) || n.Desc.Annotations[annReferenceType] != "" ||
		n.Desc.ArtifactType == attestationType || n.Manifest != nil && n.Manifest.ArtifactType == attestationType
	if d := digest.Digest(n.Desc.Annotations[annReferenceDigest]); n.Attestation && checkDigest(d) == nil {
		n.Attests = d
	} else if n.Manifest != nil && n.Manifest.Subject != nil {
		n.Attests = n.Manifest.Subject.Digest
	}
}

// judge decides whether a manifest is a runnable image; for that it reads the config of those that may be.
func (l *loader) judge(ctx context.Context, n *Node) error {
	n.markAttestation()
	if n.Desc.Platform != nil && n.Platform == nil {
		l.warn(n, "platform lacks architecture or os; the config's is used")
	}
	if n.Reason = n.notAnImage(); n.Reason != "" {
		return nil
	}
	c := n.ConfigNode()
	if err := l.config(ctx, c); err != nil {
		return l.at(c, err)
	}
	cfg := c.Config
	if unknownPlatform(&cfg.Platform) {
		n.Attestation, n.Reason = true, "attestation (platform of the config is unknown/unknown)"
		return nil
	}
	if a, b := len(cfg.RootFS.DiffIDs), len(n.Manifest.Layers); a != b {
		if t := n.artifactType(); t != "" {
			n.Reason = "artifact of type " + t
			return nil
		}
		return l.at(c, abi.Errorf(abi.ErrCorrupt, "config has %d diff_ids, the manifest has %d layers", a, b))
	}
	if a, b := len(cfg.layerItems()), len(n.Manifest.Layers); len(cfg.History) > 0 && a != b {
		l.warn(c, "history names %d layers, the manifest has %d", a, b)
	}
	if len(n.Manifest.Layers) > warnLayers {
		l.warn(n, "%d layers are more than some hosts can mount (%d)", len(n.Manifest.Layers), warnLayers)
	}
	if own := knownPlatform(&cfg.Platform); n.Platform == nil {
		n.Platform = own
	} else if own != nil && !samePlatform(*n.Platform, *own) {
		l.warn(n, "config says %s/%s", own.OS, own.Architecture)
	}
	n.Runnable, n.Attests = true, "" // the subject of an image says where it comes from
	return nil
}

func samePlatform(a, b ocispec.Platform) bool {
	return a.OS == b.OS && a.Architecture == b.Architecture
}

func (n *Node) artifactType() string { return cmp.Or(n.Manifest.ArtifactType, n.Desc.ArtifactType) }

// mayBeConverted tells whether an artifact looks like an image of a lazy format that refers to the image it was made of:
// runtimes start such ones, whatever the artifact type. Its config has to confirm that.
func (n *Node) mayBeConverted() bool {
	m := n.Manifest
	return m.ArtifactType != "" && m.Subject != nil && KindOf(m.Config.MediaType) == KindConfig && len(m.Layers) > 0
}

// notAnImage says why a manifest is something else than an image, "" if it may be one.
func (n *Node) notAnImage() string {
	m := n.Manifest
	switch {
	case n.Attestation:
		return "attestation"
	case n.artifactType() != "" && !n.mayBeConverted():
		return "artifact of type " + n.artifactType()
	case KindOf(m.Config.MediaType) == KindEmpty:
		return "artifact: its config is the empty value"
	case KindOf(m.Config.MediaType) != KindConfig:
		return "its config is " + m.Config.MediaType + ", not an image config"
	}
	for i, d := range m.Layers {
		if !KindOf(d.MediaType).IsLayer() {
			return fmt.Sprintf("layer %d is %s, not a layer of a file system", i, d.MediaType)
		}
	}
	return ""
}

// config reads the image config of n, which is a config node.
func (l *loader) config(ctx context.Context, n *Node) error {
	if first, ok := l.docs[n.Desc.Digest]; ok {
		n.Raw, n.Config = first.Raw, first.Config
		return nil
	}
	raw, err := l.read(ctx, n.Desc, l.lim.Config)
	if err != nil {
		return err
	}
	cfg, err := parseConfig(raw)
	if err != nil {
		return err
	}
	n.Raw, n.Config = raw, cfg
	l.docs[n.Desc.Digest] = n
	l.g.Documents++
	return nil
}
