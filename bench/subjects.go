package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/sdk"
)

// ours are the three runtimes, on an image of the layers.
func ours(work, layer, compressor string) ([]*subject, func(), error) {
	src := filepath.Join(work, "source")
	if err := writeImage(src, strings.Split(layer, ",")...); err != nil {
		return nil, nil, err
	}
	native, module, err := buildPlugins(work)
	if err != nil {
		return nil, nil, err
	}
	h, err := host.New(host.WithWorkDir(work), host.WithBuiltin(host.Builtin{
		Name: "nydus", InProcess: sdk.InProcess(nydus.New()), Native: []string{native},
		Wasm: func() ([]byte, error) { return os.ReadFile(module) },
	}))
	if err != nil {
		return nil, nil, err
	}
	var out []*subject
	for _, rt := range []host.Runtime{host.RuntimeInProcess, host.RuntimeWasm, host.RuntimeNative} {
		out = append(out, &subject{name: string(rt), run: func(ctx context.Context) (int64, error) {
			dst, err := os.MkdirTemp(work, "out")
			if err != nil {
				return 0, err
			}
			defer os.RemoveAll(dst)
			res, err := h.Convert(ctx, host.ConvertRequest{Source: "oci:" + src + ":x", Targets: []host.Target{{
				Format: "nydus", Runtime: rt, Dest: "oci:" + filepath.Join(dst, "image") + ":x", Options: map[string]string{"compressor": compressor},
			}}})
			if err != nil {
				return 0, err
			}
			var blobs int64
			for _, l := range res[0].Manifests[0].Layers {
				if l.Source != nil {
					blobs += l.Converted.Size
				}
			}
			return blobs, nil
		}})
	}
	return out, func() { h.Close() }, nil
}

func buildPlugins(work string) (native, module string, err error) {
	native, module = filepath.Join(work, "convhost-plugin-nydus"), filepath.Join(work, "nydus.wasm")
	const source = "github.com/convhost/convhost/plugins/nydus/convhost-plugin-nydus"
	cmd := exec.Command("go", "build", "-o", native, source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("%w: %s", err, out)
	}
	cmd = exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", module, source)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("%w: %s", err, out)
	}
	return native, module, nil
}

// nydusImage is upstream's builder.
func nydusImage(work, layer, compressor, path string) *subject {
	return &subject{name: "nydus-image", run: func(ctx context.Context) (int64, error) {
		blob := filepath.Join(work, "upstream.blob")
		defer os.Remove(blob)
		cmd := exec.CommandContext(ctx, path, "create", "--log-level", "error", "--type", "tar-rafs", "--blob", blob,
			"--blob-inline-meta", "--features", "blob-toc", "--fs-version", "6", "--whiteout-spec", "none",
			"--compressor", compressor, "--digester", "blake3", "--chunk-size", "0x100000", layer)
		if strings.HasSuffix(layer, ".gz") {
			cmd.Args[5] = "targz-rafs"
		}
		cmd.Stdin = strings.NewReader("/\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%w: %s", err, out)
		}
		st, err := os.Stat(blob)
		if err != nil {
			return 0, err
		}
		return st.Size(), nil
	}}
}

// writeImage writes an OCI layout with one image of the layers in files, tag x.
func writeImage(dir string, files ...string) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	put := func(b []byte) map[string]any {
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		if err := os.WriteFile(filepath.Join(blobs, name), b, 0o644); err != nil {
			panic(err)
		}
		return map[string]any{"digest": "sha256:" + name, "size": len(b)}
	}
	text := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return b
	}
	var layers []any
	var diffIDs []string
	for _, file := range files {
		l, diffID, err := putLayer(blobs, file)
		if err != nil {
			return err
		}
		layers, diffIDs = append(layers, l), append(diffIDs, diffID)
	}
	config := put(text(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}}))
	config["mediaType"] = "application/vnd.oci.image.config.v1+json"
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	m := put(text(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": layers}))
	m["mediaType"], m["annotations"] = manifestType, map[string]string{"org.opencontainers.image.ref.name": "x"}
	index := text(map[string]any{"schemaVersion": 2, "manifests": []any{m}})
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

// putLayer copies a layer among the blobs, piece by piece: what this process once needed counts for those that it starts, too.
func putLayer(blobs, file string) (desc map[string]any, diffID string, err error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, "", err
	}
	defer in.Close()
	out, err := os.CreateTemp(blobs, "layer")
	if err != nil {
		return nil, "", err
	}
	defer out.Close()
	sum, mediaType := sha256.New(), "application/vnd.oci.image.layer.v1.tar"
	size, err := io.Copy(io.MultiWriter(out, sum), in)
	if err != nil {
		return nil, "", err
	}
	digest := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if err := os.Rename(out.Name(), filepath.Join(blobs, digest[7:])); err != nil {
		return nil, "", err
	}
	diffID = digest
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return nil, "", err
	}
	if z, err := gzip.NewReader(in); err == nil {
		mediaType += "+gzip"
		sum.Reset()
		if _, err := io.Copy(sum, z); err != nil {
			return nil, "", err
		}
		diffID = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	}
	return map[string]any{"digest": digest, "size": size, "mediaType": mediaType}, diffID, nil
}

// writeSmallFiles writes a tar of n files of about size bytes in directories of 200: the worst case for costs by the entry.
func writeSmallFiles(path string, n, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(1, 2))
	w := tar.NewWriter(f)
	words := strings.Fields("the layer holds many small files whose content is text that compresses about as well as source code does in practice")
	var body bytes.Buffer
	for i := range n {
		if i%200 == 0 {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%04d/", i/200), Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				return err
			}
		}
		body.Reset()
		for want := size/2 + r.IntN(size); body.Len() < want; {
			fmt.Fprintf(&body, "%s%x ", words[r.IntN(len(words))], r.IntN(4096))
		}
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%04d/f%05d.txt", i/200, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(body.Len())}); err != nil {
			return err
		}
		if _, err := w.Write(body.Bytes()); err != nil {
			return err
		}
	}
	return w.Close()
}
