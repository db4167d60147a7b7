package nydus

import (
	"encoding/binary"
	"strings"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/sdk"
)

// findBootstrap returns the number of the bootstrap layer among the layers of a converted image.
func findBootstrap(parts []abi.PartInfo) (int, error) {
	for i, p := range parts {
		if _, ok := p.Annotations[annotationBoot]; ok {
			return i, nil
		}
	}
	return 0, abi.Errorf(abi.ErrCorrupt, "image has no layer with the annotation %s", annotationBoot)
}

// readBootstrap takes the merged bootstrap out of its layer, a gzip-compressed tar.
func readBootstrap(h abi.Host, parts []abi.PartInfo) ([]byte, error) {
	i, err := findBootstrap(parts)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(parts[i].MediaType, "+encrypted") {
		return nil, abi.Errorf(abi.ErrUnsupported, "not supported yet: encrypted bootstrap layer (%s)", parts[i].MediaType)
	}
	b, err := sdk.OpenBlob(h, abi.RolePart, i)
	if err != nil {
		return nil, err
	}
	if b.Size() < 18 || b.Size() > abi.MaxSmallBuffer {
		return nil, &abi.FormatError{Class: abi.ErrCorrupt, Format: "nydus bootstrap layer", Off: b.Size(), Field: "size", Want: "18 bytes to 1 GiB"}
	}
	stored := make([]byte, b.Size())
	if _, err := b.ReadAt(stored, 0); err != nil {
		return nil, err
	}
	if err := b.Close(); err != nil {
		return nil, err
	}
	tar, err := gunzip(h, stored)
	if err != nil {
		return nil, err
	}
	return findInTar(tar)
}

// gunzip decompresses a gzip member, whose last four bytes tell its size.
func gunzip(h abi.Host, p []byte) ([]byte, error) {
	if p[0] != 0x1f || p[1] != 0x8b {
		return p, nil // a plain tar
	}
	size := binary.LittleEndian.Uint32(p[len(p)-4:])
	if int64(size) > abi.MaxSmallBuffer || int64(size) > 1100*int64(len(p)) {
		return nil, &abi.FormatError{Class: abi.ErrLimit, Format: "nydus bootstrap layer", Off: int64(len(p)) - 4, Field: "decompressed size", Want: "at most 1 GiB"}
	}
	return h.Decode(abi.CodecGzip, nil, p, int(size))
}

// findInTar returns the bootstrap among the members.
func findInTar(p []byte) ([]byte, error) {
	r := layer.NewReader(&sliceReader{p}, layer.Limits{})
	var e abi.Entry
	for {
		if err := r.Next(&e); err != nil {
			if abi.ClassOf(err) != abi.ErrInternal {
				return nil, err
			}
			return nil, abi.Errorf(abi.ErrCorrupt, "nydus bootstrap layer: no member %s", bootFile)
		}
		if e.Kind == abi.KindRegular && (e.Path == bootFile || e.Path == legacyBootFile) {
			return p[e.BodyOff : e.BodyOff+e.Size : e.BodyOff+e.Size], nil
		}
	}
}
