package graph

import (
	_ "crypto/sha256" // go-digest panics without the algorithms it is asked for
	_ "crypto/sha512"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The fields of the documents that this package reads. A key that differs from one of them only in case is refused.
var (
	indexFields      = []string{"schemaVersion", "mediaType", "manifests", "config", "layers", "fsLayers", "subject", "annotations", "artifactType"}
	manifestFields   = indexFields
	descriptorFields = []string{"mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"}
	platformFields   = []string{"architecture", "os", "os.version", "os.features", "variant"}
	configFields     = []string{"architecture", "os", "os.version", "os.features", "variant", "rootfs", "history"}
	rootFSFields     = []string{"type", "diff_ids"}
)

// staleAnnotations describe the bytes of one blob and are false for its successor. Names that end in "/" or "." are prefixes.
var staleAnnotations = []string{
	"containerd.io/uncompressed",
	"containerd.io/snapshot/",
	"containerd.io/distribution.source.",
	"containerd.io/gc.",
	"io.containers.estargz.",
	"io.github.containers.zstd-chunked.",
	"io.github.containers.tar-split-digest",
	"org.opencontainers.image.enc.",
	"io.containerd.manifest.subject",
}

// IsStaleAnnotation tells whether a descriptor's annotation describes the bytes it points to, so that it must not be
// carried over to a descriptor of other bytes: digests of uncompressed forms, keys of lazy formats, tables of contents.
func IsStaleAnnotation(key string) bool {
	for _, s := range staleAnnotations {
		if key == s || (strings.HasSuffix(s, "/") || strings.HasSuffix(s, ".")) && strings.HasPrefix(key, s) {
			return true
		}
	}
	return false
}

// NewDescriptor returns the descriptor of a blob that takes the place of old: the given media type, digest and size,
// old's platform, and old's annotations without the stale ones. It never carries data or urls, nor artifactType.
func NewDescriptor(old ocispec.Descriptor, mediaType string, dgst digest.Digest, size int64) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: size, Platform: old.Platform}
	for _, k := range slices.Sorted(maps.Keys(old.Annotations)) {
		if !IsStaleAnnotation(k) {
			if d.Annotations == nil {
				d.Annotations = map[string]string{}
			}
			d.Annotations[k] = old.Annotations[k]
		}
	}
	return d
}

// DocumentDescriptor returns the descriptor of raw: its sha256 digest and its size.
func DocumentDescriptor(mediaType string, raw []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

// checkDigest accepts what go-digest accepts: sha256, sha384 and sha512 in lower-case hex of the right length.
func checkDigest(d digest.Digest) error {
	err := d.Validate()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, digest.ErrDigestUnsupported):
		return abi.Errorf(abi.ErrUnsupported, "digest algorithm of %.80q is not supported, want sha256 or sha512", string(d))
	}
	return abi.Errorf(abi.ErrCorrupt, "%.80q is not a digest, want an algorithm, a colon and lower-case hexadecimal digits", string(d))
}

// checkDescriptor holds one descriptor against the rules that need nothing but itself.
func checkDescriptor(d ocispec.Descriptor, lim Limits) error {
	if err := checkDigest(d.Digest); err != nil {
		return err
	}
	if d.MediaType == "" {
		return abi.Errorf(abi.ErrCorrupt, "descriptor of %s has no media type", d.Digest)
	}
	if err := checkPlain("media type", d.MediaType, d.ArtifactType); err != nil {
		return err
	}
	if p := d.Platform; p != nil {
		if err := checkPlain("platform", p.OS, p.Architecture, p.Variant, p.OSVersion, strings.Join(p.OSFeatures, "")); err != nil {
			return err
		}
	}
	if d.Size < 0 {
		return abi.Errorf(abi.ErrCorrupt, "descriptor of %s: size is %d, want 0 or more", d.Digest, d.Size)
	}
	for _, u := range d.URLs {
		if p, err := url.Parse(u); err != nil || p.Scheme != "https" && p.Scheme != "http" || p.Host == "" {
			return abi.Errorf(abi.ErrCorrupt, "descriptor of %s: url %.120q is not an http or https address", d.Digest, u)
		}
	}
	if err := checkAnnotations(d.Annotations, lim); err != nil {
		return err
	}
	if d.Data == nil {
		return nil
	}
	if n := int64(len(d.Data)); n > lim.Data {
		return abi.Errorf(abi.ErrLimit, "descriptor of %s embeds %d bytes of data, the limit is %d", d.Digest, n, lim.Data)
	}
	return verify(d, d.Data, "embedded data")
}

// checkPlain accepts names that can be printed as they are: up to 1024 printable ASCII characters.
func checkPlain(what string, names ...string) error {
	for _, s := range names {
		if len(s) > 1024 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			return abi.Errorf(abi.ErrCorrupt, "%s %.80q has characters other than printable ASCII or is longer than 1024", what, s)
		}
	}
	return nil
}

func checkAnnotations(a map[string]string, lim Limits) error {
	var n int64
	for k, v := range a {
		n += int64(len(k)) + int64(len(v))
	}
	if n > lim.Annotations {
		return abi.Errorf(abi.ErrLimit, "annotations have %d bytes, the limit is %d", n, lim.Annotations)
	}
	return nil
}

// verify compares bytes with their descriptor.
func verify(d ocispec.Descriptor, b []byte, what string) error {
	if int64(len(b)) != d.Size {
		return abi.Errorf(abi.ErrDigest, "%s of %s has %d bytes, its descriptor says %d", what, d.Digest, len(b), d.Size)
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest {
		return abi.Errorf(abi.ErrDigest, "%s has digest %s, its descriptor says %s", what, got, d.Digest)
	}
	return nil
}
