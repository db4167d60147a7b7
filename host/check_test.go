package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/sdk"
)

// A body that cannot be decoded is a finding of a deep check, not a failure of it; a check of the structures alone does
// not see it.
func TestDeepCheckFindsDamagedBodies(t *testing.T) {
	h, err := New(WithWorkDir(t.TempDir()), WithBuiltin(Builtin{Name: "nydus", InProcess: sdk.InProcess(nydus.New())}))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	dir := filepath.Join(t.TempDir(), "out")
	res, err := h.Convert(t.Context(), ConvertRequest{Source: "oci:../testdata/demo/image:demo", Targets: []Target{{Format: "nydus", Dest: "oci:" + dir + ":x"}}})
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(dir, "blobs", "sha256", res[0].Manifests[0].Layers[1].Converted.Digest.Encoded())
	b, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	b[1000] ^= 1 // in the first chunk
	if err := errors.Join(os.Chmod(blob, 0o644), os.WriteFile(blob, b, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, deep := range []bool{false, true} {
		got, err := h.Check(t.Context(), CheckRequest{Image: "oci:" + dir + ":x", Deep: deep, Select: Selection{Platforms: []string{"linux/amd64"}}})
		if err != nil {
			t.Fatal(err)
		}
		if found := len(got[0].Problems) > 0; found != deep {
			t.Errorf("deep %v: problems %+v", deep, got[0].Problems)
		} else if deep && !errors.Is(got[0].Problems[0].Err(), abi.ErrCorrupt) {
			t.Errorf("problem of class %v: %s", got[0].Problems[0].Class, got[0].Problems[0].Message)
		}
	}
}
