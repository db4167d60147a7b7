package nydus

import (
	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/nydus/rafs6"
	"github.com/convhost/convhost/sdk"
)

// blob is a layer blob, opened.
type blob struct {
	*sdk.Blob
	host abi.Host
	info abi.PartInfo
	file *rafs6.BlobFile
}

// openBlob opens part index and finds its members.
func openBlob(h abi.Host, parts []abi.PartInfo, index int) (*blob, error) {
	if index < 0 || index >= len(parts) {
		return nil, abi.Errorf(abi.ErrInvalid, "part %d of %d", index, len(parts))
	}
	b, err := sdk.OpenBlob(h, abi.RolePart, index)
	if err != nil {
		return nil, err
	}
	file, err := rafs6.OpenBlob(b, b.Size())
	return &blob{Blob: b, host: h, info: parts[index], file: file}, err
}

// id is the blob's id in a bootstrap: the hexadecimal part of its digest.
func (b *blob) id() string { return hexPart(b.info.Digest) }

func hexPart(digest string) string {
	const prefix = "sha256:"
	if len(digest) > len(prefix) && digest[:len(prefix)] == prefix {
		return digest[len(prefix):]
	}
	return digest
}

// member returns a member's bytes, decompressed and checked against the table of contents; nil if there is none.
func (b *blob) member(m *rafs6.Member) ([]byte, error) {
	if m == nil {
		return nil, nil
	}
	bad := func(class abi.Class, field, want string) error {
		return &abi.FormatError{Class: class, Format: "nydus blob", Entry: m.Name, Off: m.Offset, Field: field, Want: want}
	}
	if m.Size > abi.MaxSmallBuffer || m.Stored > abi.MaxSmallBuffer {
		return nil, bad(abi.ErrLimit, "size", "at most 1 GiB")
	}
	plain := make([]byte, m.Stored) // OpenBlob has compared it with the size of the file
	if _, err := b.ReadAt(plain, m.Offset); err != nil {
		return nil, err
	}
	if m.Codec != abi.CodecNone {
		var err error
		if plain, err = b.host.Decode(m.Codec, nil, plain, int(m.Size)); err != nil {
			return nil, bad(abi.ErrCorrupt, "compressed bytes: "+err.Error(), "")
		}
	}
	if m.HasSum {
		sum, err := b.host.Sum(abi.DigestSHA256, plain)
		if err != nil {
			return nil, err
		}
		if sum != m.Digest {
			return nil, bad(abi.ErrDigest, "SHA-256 is "+hexOf(sum), hexOf(m.Digest)+" as the table of contents says")
		}
	}
	return plain, nil
}

// boot returns the layer's own bootstrap.
func (b *blob) boot() ([]byte, error) {
	boot, err := b.member(b.file.Boot)
	if err == nil && boot == nil {
		err = &abi.FormatError{Class: abi.ErrCorrupt, Format: "nydus blob", Off: b.Size(), Field: "members", Want: "a bootstrap (image.boot)"}
	}
	return boot, err
}

// tree reads the layer's own bootstrap.
func (b *blob) tree() (*rafs6.Tree, error) {
	boot, err := b.boot()
	if err != nil {
		return nil, err
	}
	return rafs6.Open(boot)
}

// meta reads the chunk-info array and the bytes of its header; both are nil for a layer without data.
func (b *blob) meta() (array, header []byte, err error) {
	if header, err = b.member(b.file.Head); err != nil || header == nil {
		return nil, nil, err
	}
	array, err = b.member(b.file.Meta)
	return array, header, err
}
