package transport_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/transport"
)

// TestRealLayout resolves and reads the root of every tag of the shared real images.
func TestRealLayout(t *testing.T) {
	data := os.Getenv("CONVHOST_TESTDATA")
	if data == "" {
		t.Skip("CONVHOST_TESTDATA is not set: no real images")
	}
	dir := filepath.Join(data, "images", "debian-multi")
	all := openSource(t, "oci:"+dir, transport.Options{})
	defer all.Close()
	tags, err := all.Tags(t.Context())
	if err != nil || len(tags) == 0 {
		t.Fatalf("tags %v, %v", tags, err)
	}
	if _, err := all.Resolve(t.Context()); len(tags) > 1 && !errors.Is(err, abi.ErrInvalid) {
		t.Errorf("without a tag: %v", err)
	}
	for _, tag := range tags {
		src := openSource(t, "oci:"+dir+":"+tag, transport.Options{})
		root, err := src.Resolve(t.Context())
		if err != nil {
			t.Errorf("%s: %v", tag, err)
			continue
		}
		if b, err := fetch(t.Context(), src, root); err != nil || int64(len(b)) != root.Size {
			t.Errorf("%s: %d bytes, %v", tag, len(b), err)
		}
		src.Close()
	}
}
