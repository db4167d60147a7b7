package judges

import (
	"bytes"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/host/transport"
)

// TestMount takes blobs over from another repository of Debian's registry.
func TestMount(t *testing.T) {
	addr := registry(t)
	open := func(repo string) transport.Target {
		ref, err := transport.ParseReference("docker://" + addr + "/" + repo + ":x")
		if err != nil {
			t.Fatal(err)
		}
		target, err := transport.OpenTarget(t.Context(), ref, transport.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { target.Close() })
		return target
	}
	body := bytes.Repeat([]byte("mounted "), 10_000)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(body), Size: int64(len(body))}
	err := open("team/a").Push(t.Context(), desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from string
		want bool
	}{{"team/nowhere", false}, {"team/c", false}, {"team/a", true}, {"team/a", true}} {
		b := open("team/b")
		got, err := b.(transport.Mounter).Mount(t.Context(), desc, c.from)
		if err != nil || got != c.want {
			t.Errorf("mount from %s: %v, %v; want %v", c.from, got, err, c.want)
		}
		if has, err := b.Has(t.Context(), desc); err != nil || has != c.want {
			t.Errorf("after the mount from %s it is there: %v, %v; want %v", c.from, has, err, c.want)
		}
	}
	if _, err := open("team/b").(transport.Mounter).Mount(t.Context(), desc, "Not a repository"); err == nil {
		t.Error("a name that is none was taken")
	}
}
