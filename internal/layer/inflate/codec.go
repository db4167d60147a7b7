package inflate

import (
	"fmt"
	"strings"
)

// Codec is a compression of layers.
type Codec uint8

// Codecs.
const (
	Plain Codec = iota
	Gzip
	Zstd
)

// String returns the suffix that media types use, or "none".
func (c Codec) String() string {
	switch c {
	case Plain:
		return "none"
	case Gzip:
		return "gzip"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("codec %d", uint8(c))
}

// SniffBytes is how many bytes [Sniff] wants to see.
const SniffBytes = 4

// Sniff tells from the first bytes how a layer is compressed. A tar never begins like a compressed file: its first bytes
// are a name or zeros.
func Sniff(head []byte) Codec {
	switch {
	case len(head) >= 3 && head[0] == 0x1f && head[1] == 0x8b && head[2] == 8:
		return Gzip
	case len(head) >= 4 && (string(head[:4]) == frameMagic || isSkippable(head)):
		return Zstd
	}
	return Plain
}

const frameMagic = "\x28\xb5\x2f\xfd"

func isSkippable(b []byte) bool { return b[0]&0xf0 == 0x50 && string(b[1:4]) == "\x2a\x4d\x18" }

// Promised returns the compression that a layer's media type names; ok is false if it is no layer type that is known.
func Promised(mediaType string) (c Codec, ok bool) {
	base, suffix, _ := strings.Cut(mediaType, "+")
	switch base {
	case "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar":
		switch suffix {
		case "":
			return Plain, true
		case "gzip":
			return Gzip, true
		case "zstd":
			return Zstd, true
		}
	case "application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar":
		return Plain, suffix == ""
	case "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":
		return Gzip, suffix == ""
	case "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return Zstd, suffix == ""
	}
	return Plain, false
}

// cutMagic tells whether head, all there is, is the beginning of what c begins with.
func cutMagic(head []byte, c Codec) bool {
	switch c {
	case Gzip:
		return strings.HasPrefix("\x1f\x8b\x08", string(head))
	case Zstd:
		return strings.HasPrefix(frameMagic, string(head)) ||
			len(head) > 0 && head[0]&0xf0 == 0x50 && strings.HasPrefix("\x2a\x4d\x18", string(head[1:]))
	}
	return false
}
