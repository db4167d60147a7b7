package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// A workload is an image to convert: its layers' tars, lowest first. What counts is the last one.
type workload struct {
	name   string
	layers []string
}

func runOverlaybd(layers []string, rounds int, tools string) error {
	dir, err := os.MkdirTemp("", "convhost-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "convhost")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/convhost/convhost/cmd/convhost").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if tools == "" {
		fmt.Println("-overlaybd-tools is not given: ours only")
	}
	fmt.Printf("%s, %s/%s, GOMAXPROCS %d, %d rounds\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), rounds)
	all, err := workloads(dir, layers)
	if err != nil {
		return err
	}
	for _, w := range all {
		work, err := os.MkdirTemp(dir, "run")
		if err != nil {
			return err
		}
		subjects, err := overlaybdSubjects(work, program, tools, w)
		if err == nil {
			err = compare(w.name, subjects, rounds)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		if err := os.RemoveAll(work); err != nil {
			return err
		}
	}
	return nil
}

// workloads makes the inputs. The given layers, or the tree, are the big image of which one file changes.
func workloads(dir string, layers []string) (out []workload, err error) {
	for i, l := range layers {
		if layers[i], err = plainTar(dir, l); err != nil {
			return nil, err
		}
		out = append(out, workload{filepath.Base(l), layers[i : i+1]})
	}
	small, tree, change := filepath.Join(dir, "small.tar"), filepath.Join(dir, "tree.tar"), filepath.Join(dir, "change.tar")
	if err := writeSmallFiles(small, 60_000, 5<<10); err != nil {
		return nil, err
	}
	if err := writeTree(tree, 256<<20); err != nil {
		return nil, err
	}
	big := append([]string(layers[:min(len(layers), 1)]), tree)[0]
	if err := writeChange(change, big); err != nil {
		return nil, err
	}
	return append(out,
		workload{"60,000 small files", []string{small}},
		workload{"tree of 256 MiB", []string{tree}},
		workload{"one file changed in " + filepath.Base(big), []string{big, change}}), nil
}

func overlaybdSubjects(work, program, tools string, w workload) ([]*process, error) {
	src := filepath.Join(work, "source")
	if err := writeImage(src, w.layers...); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out := []*process{pluginAlone(work, self, w.layers)}
	for _, rt := range []string{"inprocess", "native"} {
		out = append(out, &process{name: rt, run: func(ctx context.Context, s *sample) error {
			dst := filepath.Join(work, "out")
			defer os.RemoveAll(dst)
			err := s.exec(ctx, program, "convert", "--dedup", "off", "oci:"+src+":x", "oci:"+dst+":x", "--format", "overlaybd", "--runtime", rt, "--work-dir", work)
			if err != nil {
				return err
			}
			s.output, err = topLayer(dst)
			return err
		}})
	}
	if tools == "" {
		return out, nil
	}
	for _, digests := range []bool{true, false} {
		name := map[bool]string{false: "upstream", true: "+digests"}[digests]
		out = append(out, &process{name: name, reference: true, run: func(ctx context.Context, s *sample) error {
			digester := ""
			if digests {
				digester = self
			}
			return upstreamOverlaybd(ctx, s, work, tools, digester, w.layers)
		}})
	}
	return out, nil
}

// upstreamOverlaybd makes a chain of layers as accelerated-container-image's convertor does, and has their digests and those of
// the sources computed if there is a program for it: that convertor does it itself.
func upstreamOverlaybd(ctx context.Context, s *sample, work, tools, digester string, tars []string) error {
	dir, err := os.MkdirTemp(work, "upstream")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	type file struct {
		File string `json:"file"`
	}
	lowers := []file{}
	for i, tar := range tars {
		path := func(name string) string { return filepath.Join(dir, fmt.Sprint(i, name)) }
		data, index, config, layer := path("data"), path("index"), path("config"), path("layer")
		create := []string{data, index, "64", "-s", "--mkfs"}
		if i > 0 {
			create = []string{data, index, "0", "-s"}
		}
		b, err := json.Marshal(map[string]any{"lowers": lowers, "upper": map[string]string{"data": data, "index": index}, "resultFile": path("result")})
		if err != nil {
			return err
		}
		if err := os.WriteFile(config, b, 0o600); err != nil {
			return err
		}
		if err := s.exec(ctx, filepath.Join(tools, "overlaybd-create"), create...); err != nil {
			return err
		}
		if err := s.exec(ctx, filepath.Join(tools, "overlaybd-apply"), tar, config); err != nil {
			return err
		}
		if err := s.exec(ctx, filepath.Join(tools, "overlaybd-commit"), data, index, layer, "-z", "-t"); err != nil {
			return err
		}
		st, err := os.Stat(layer)
		if err != nil {
			return err
		}
		if s.output = st.Size(); digester != "" {
			if err := s.exec(ctx, digester, "-digest", tar, layer); err != nil {
				return err
			}
		}
		lowers = append(lowers, file{layer})
	}
	return nil
}

// digests computes those of files: what the tools do not do and every convertor must.
func digests(files []string) error {
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return err
		}
		fmt.Printf("%x\n", sum.Sum(nil))
	}
	return nil
}

// topLayer returns the size of the last layer of the image in a layout.
func topLayer(dir string) (int64, error) {
	var index struct{ Manifests []struct{ Digest string } }
	var manifest struct{ Layers []struct{ Size int64 } }
	err := readJSON(filepath.Join(dir, "index.json"), &index)
	if err == nil && len(index.Manifests) != 1 {
		err = fmt.Errorf("%d images in the result", len(index.Manifests))
	}
	if err == nil {
		err = readJSON(filepath.Join(dir, "blobs", "sha256", index.Manifests[0].Digest[len("sha256:"):]), &manifest)
	}
	if err == nil && len(manifest.Layers) == 0 {
		err = fmt.Errorf("no layer in the result")
	}
	if err != nil {
		return 0, err
	}
	return manifest.Layers[len(manifest.Layers)-1].Size, nil
}

func readJSON(file string, v any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}
