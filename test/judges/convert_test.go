package judges

import (
	"fmt"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/sdk"
	"github.com/convhost/convhost/test/judge"
	"github.com/convhost/convhost/test/kitchen"
	"github.com/convhost/convhost/test/ocidir"
	"github.com/convhost/convhost/test/rawrafs"
)

// demo is the image that comes with the repository.
const demo = "../../testdata/demo/image"

func newHost(t testing.TB) *host.Host {
	t.Helper()
	h, err := host.New(host.WithWorkDir(t.TempDir()),
		host.WithBuiltin(host.Builtin{Name: "nydus", InProcess: sdk.InProcess(nydus.New())}),
		host.WithBuiltin(host.Builtin{Name: "overlaybd", InProcess: sdk.InProcess(overlaybd.New())}),
		host.WithBuiltin(host.Builtin{Name: "turboci", InProcess: sdk.InProcess(overlaybd.NewTurbo())}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

type descriptor = ocispec.Descriptor

// converted is a nydus image, taken apart without our reader.
type converted struct {
	dir    *ocidir.Dir
	blobs  []descriptor // lowest first
	boot   []byte       // merged bootstrap
	layers [][]byte     // each blob's own bootstrap
}

// convert converts source, "DIR:TAG", and takes the image for platform.
func convert(t testing.TB, h *host.Host, source, platform string, options map[string]string) *converted {
	t.Helper()
	return open(t, convertTo(t, h, "nydus", source, platform, options), "out", platform)
}

// convertTo converts source to a layout with the tag "out" and returns its directory.
func convertTo(t testing.TB, h *host.Host, format, source, platform string, options map[string]string) string {
	t.Helper()
	out := t.TempDir()
	req := host.ConvertRequest{Source: "oci:" + source, Targets: []host.Target{{Format: format, Dest: "oci:" + out + ":out", Options: options}}}
	if platform != "" {
		req.Select.Platforms = []string{platform}
	}
	if _, err := h.Convert(t.Context(), req); err != nil {
		t.Fatalf("convert %s to %s with %v: %v", source, format, options, err)
	}
	return out
}

func open(t testing.TB, dir, tag, platform string) *converted {
	t.Helper()
	c := &converted{dir: ocidir.Open(t, dir)}
	m := c.dir.Manifest(tag, platform)
	for i, l := range m.Layers {
		if i == len(m.Layers)-1 {
			c.boot = rawrafs.BootstrapLayer(c.dir.Read(l))["image/image.boot"]
			break
		}
		c.blobs = append(c.blobs, l)
		c.layers = append(c.layers, rawrafs.Member(c.dir.Read(l), "image.boot"))
	}
	return c
}

// images are sources to convert, made once for all tests: tag to layers.
var images = map[string][][]byte{
	"kitchen": {kitchen.Base(), kitchen.Edits(), kitchen.NoData()},
	"special": {kitchen.NoData(), kitchen.Special()},
	"nodata":  {kitchen.NoData()},
	"odd":     {kitchen.BottomWhiteouts(), kitchen.Base(), kitchen.Implied()},
	"one":     {kitchen.Base()},
}

// source makes the layout of an image above and returns it as "DIR:TAG".
func source(t testing.TB, tag string) string {
	t.Helper()
	return sourceOf(t, tag, images[tag]...)
}

// sourceOf makes the layout of an image with these layers and returns it as "DIR:TAG".
func sourceOf(t testing.TB, tag string, tars ...[]byte) string {
	t.Helper()
	d := ocidir.New(t)
	var layers []ocidir.Layer
	for _, tar := range tars {
		layers = append(layers, ocidir.Gzip(tar))
	}
	d.Image(tag, layers...)
	return d.Path + ":" + tag
}

// debian is a real image of four layers.
func debian(t testing.TB) string {
	return filepath.Join(judge.Testdata(t), "images", "debian-multi") + ":amd64"
}

// optionSets are all combinations of the plugin's options that change bytes; prefetch goes through its kinds beside them.
func optionSets() []map[string]string {
	var out []map[string]string
	prefetch := []string{"none", "/", "/data,/bin/sh,/nothing,/etc/changed"}
	for _, compressor := range []string{"zstd", "lz4_block", "none"} {
		for _, digester := range []string{"blake3", "sha256"} {
			for _, size := range []string{"0x1000", "0x10000", "0x100000", "0x1000000"} {
				out = append(out, map[string]string{"compressor": compressor, "digester": digester, "chunk-size": size, "prefetch": prefetch[len(out)%3]})
			}
		}
	}
	return out
}

func nameOf(o map[string]string) string {
	return fmt.Sprintf("%s-%s-%s-%d", o["compressor"], o["digester"], o["chunk-size"], len(o["prefetch"]))
}
