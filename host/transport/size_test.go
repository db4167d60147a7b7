package transport_test

import (
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/transport"
)

func TestBlobSizeRefuses(t *testing.T) {
	s := newSingle(1000)
	ref := "oci:" + filepath.Join(t.TempDir(), "image") + ":v1"
	s.write(t, ref, transport.Options{})
	src := openSource(t, ref, transport.Options{})
	for d, class := range map[digest.Digest]abi.Class{digest.FromString("absent"): abi.ErrNotFound, "": abi.ErrInvalid, "../../etc": abi.ErrInvalid, "sha256:12": abi.ErrInvalid} {
		_, err := transport.BlobSize(t.Context(), src, d)
		wantClass(t, string(d), err, class)
	}
	_, err := transport.BlobSize(t.Context(), struct{ transport.Source }{src}, digest.FromString("x"))
	wantClass(t, "another source", err, abi.ErrUnsupported)
	src.Close()
	_, err = transport.BlobSize(t.Context(), src, digest.FromString("x"))
	wantClass(t, "closed", err, abi.ErrInvalid)
}
