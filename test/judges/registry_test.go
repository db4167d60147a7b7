package judges

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/host/transport"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/sdk"
	"github.com/convhost/convhost/test/judge"
	"github.com/convhost/convhost/test/ocidir"
)

// registry starts Debian's docker-registry and returns its address.
func registry(t *testing.T) string {
	t.Helper()
	tool := judge.Tool(t, "docker-registry")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n", filepath.Join(dir, "data"), addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(tool, "serve", config)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		if cmd.Wait(); t.Failed() {
			t.Logf("docker-registry:\n%.3000s", log.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			return addr
		}
		select {
		case <-ctx.Done():
			t.Fatalf("docker-registry does not answer:\n%s", log.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// raw gets what a registry serves under a tag or digest, with nothing but HTTP.
func raw(t testing.TB, addr, repository, reference string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/v2/"+repository+"/manifests/"+reference, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v\n%s", req.URL, resp.Status, err, b)
	}
	return b
}

func httpHost(t testing.TB) *host.Host {
	t.Helper()
	h, err := host.New(host.WithBuiltin(host.Builtin{Name: "nydus", InProcess: sdk.InProcess(nydus.New())}), host.WithWorkDir(t.TempDir()),
		host.WithTransport(transport.Options{PlainHTTP: true}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// Push to and pull from a registry that is not ours, with a client that is not ours on the other side.
func TestRegistryAndSkopeo(t *testing.T) {
	skopeo := judge.Tool(t, "skopeo")
	addr := registry(t)
	h := httpHost(t)
	out := t.TempDir()
	results, err := h.Convert(t.Context(), host.ConvertRequest{Source: "oci:" + demo + ":demo", Select: host.Selection{All: true}, Targets: []host.Target{
		{Format: "nydus", Dest: "oci:" + out + ":nydus"},
		{Format: "nydus", Dest: "docker://" + addr + "/pushed:nydus"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	local := ocidir.Open(t, out)
	root := local.Root("nydus")
	document := local.Read(root)
	t.Run("pushed by us", func(t *testing.T) {
		if got := raw(t, addr, "pushed", "nydus"); results[1].Root.Digest != root.Digest || !bytes.Equal(got, document) {
			t.Errorf("the registry has %s, want %s", got, document)
		}
		wantSame(t, h, "docker://"+addr+"/pushed:nydus")
	})
	t.Run("inspected by skopeo", func(t *testing.T) {
		if got := judge.Run(t, skopeo, "inspect", "--raw", "--tls-verify=false", "docker://"+addr+"/pushed:nydus"); got != string(document) {
			t.Errorf("skopeo sees %s, want %s", got, document)
		}
		for _, arch := range []string{"amd64", "arm64"} {
			text := judge.Run(t, skopeo, "--override-os=linux", "--override-arch="+arch, "inspect", "--tls-verify=false", "docker://"+addr+"/pushed:nydus")
			var got struct {
				Digest, Architecture string
				Layers               []string
			}
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if m := local.Manifest("nydus", "linux/"+arch); got.Digest != root.Digest.String() || got.Architecture != arch || len(got.Layers) != len(m.Layers) {
				t.Errorf("skopeo inspect for %s: %+v", arch, got)
			}
		}
	})
	t.Run("copied by skopeo", func(t *testing.T) {
		back := t.TempDir()
		judge.Run(t, skopeo, "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", "oci:"+out+":nydus", "docker://"+addr+"/copied:nydus")
		judge.Run(t, skopeo, "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "docker://"+addr+"/copied:nydus", "oci:"+back+":back")
		b := ocidir.Open(t, back)
		if got := b.Root("back").Digest; got != root.Digest {
			t.Errorf("skopeo brings back %s, want %s", got, root.Digest)
		}
		sameBlobs(t, back, out)
		wantSame(t, h, "docker://"+addr+"/copied:nydus")
		wantSame(t, h, "oci:"+back+":back")
	})
	t.Run("source pushed by skopeo", func(t *testing.T) {
		judge.Run(t, skopeo, "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", "oci:"+demo+":demo", "docker://"+addr+"/source:demo")
		results, err := h.Convert(t.Context(), host.ConvertRequest{Source: "docker://" + addr + "/source:demo", Select: host.Selection{All: true},
			Targets: []host.Target{{Format: "nydus", Dest: "docker://" + addr + "/source:nydus"}}})
		if err != nil || results[0].Root.Digest != root.Digest {
			t.Errorf("converted to %+v, %v, want %s", results, err, root.Digest)
		}
	})
}

// TestReferrersInRegistry: docker-registry has no API for referrers, so the list stands under the tag that the distribution
// specification gives it: of the index, and of each image. skopeo reads what refers.
func TestReferrersInRegistry(t *testing.T) {
	skopeo := judge.Tool(t, "skopeo")
	addr := registry(t)
	h := httpHost(t)
	judge.Run(t, skopeo, "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", "oci:"+demo+":demo", "docker://"+addr+"/app:demo")
	results, err := h.Convert(t.Context(), host.ConvertRequest{Source: "docker://" + addr + "/app:demo", Verify: true, Select: host.Selection{All: true},
		Targets: []host.Target{{Format: "nydus", Dest: "docker://" + addr + "/app:nydus", Referrers: true}}})
	if err != nil {
		t.Fatal(err)
	}
	pairs := map[string]string{string(results[0].Source.Digest): string(results[0].Root.Digest)}
	for _, m := range results[0].Manifests {
		pairs[string(m.Source.Digest)] = string(m.Converted.Digest)
	}
	if len(pairs) != 3 {
		t.Fatalf("%d documents with a source", len(pairs))
	}
	for source, made := range pairs {
		var list, doc struct {
			ArtifactType string
			Subject      struct{ Digest string }
			Manifests    []struct{ Digest, ArtifactType string }
		}
		if err := json.Unmarshal(raw(t, addr, "app", strings.Replace(source, ":", "-", 1)), &list); err != nil {
			t.Fatal(err)
		}
		const kind = "application/vnd.nydus.image.manifest.v1+json"
		if len(list.Manifests) != 1 || list.Manifests[0].Digest != made || list.Manifests[0].ArtifactType != kind {
			t.Errorf("referrers of %s: %+v, want %s", source, list.Manifests, made)
		}
		text := judge.Run(t, skopeo, "inspect", "--raw", "--tls-verify=false", "docker://"+addr+"/app@"+made)
		if err := json.Unmarshal([]byte(text), &doc); err != nil || doc.Subject.Digest != source || doc.ArtifactType != kind {
			t.Errorf("%s has subject %s and type %s (%v), want %s", made, doc.Subject.Digest, doc.ArtifactType, err, source)
		}
	}
	wantSame(t, h, "docker://"+addr+"/app:nydus")
}

// wantSame verifies a converted demo image against its source.
func wantSame(t testing.TB, h *host.Host, ref string) {
	t.Helper()
	results, err := h.Verify(t.Context(), host.VerifyRequest{Source: "oci:" + demo + ":demo", Converted: ref, Select: host.Selection{All: true}})
	if err != nil || len(results) != 2 {
		t.Errorf("verify %s: %d images, %v", ref, len(results), err)
	}
}

// sameBlobs compares the blobs of two layouts, names and bytes.
func sameBlobs(t testing.TB, got, want string) {
	t.Helper()
	list := func(dir string) map[string]string {
		out := map[string]string{}
		files, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			out[filepath.Base(f)] = string(read(t, f))
		}
		return out
	}
	a, b := list(got), list(want)
	for name, bytes := range b {
		if a[name] != bytes {
			t.Errorf("blob %s is missing or different in %s", name, got)
		}
	}
	if len(a) != len(b) {
		t.Errorf("%d blobs in %s, want %d", len(a), got, len(b))
	}
}
