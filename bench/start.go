package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/convhost/convhost/host"
)

// measureStart prints what it takes from nothing to the first answer of a sandboxed plugin, packed as the command brings it:
// first with an empty cache, then with what that left there.
func measureStart(dir string, rounds int) error {
	work, err := os.MkdirTemp(dir, "start")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	packed, err := packedPlugin(work)
	if err != nil {
		return err
	}
	var took []time.Duration
	for range 1 + rounds {
		d, err := startOnce(filepath.Join(work, "cache"), packed)
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	first, rest := took[0], took[1:]
	slices.Sort(rest)
	fmt.Printf("loading the plugin: %.2f s the first time, then %.1f ms [%.1f..%.1f]\n", first.Seconds(),
		milliseconds(rest[len(rest)/2]), milliseconds(rest[0]), milliseconds(rest[len(rest)-1]))
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func packedPlugin(work string) ([]byte, error) {
	_, file, err := buildPlugins(work)
	if err != nil {
		return nil, err
	}
	code, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return z.EncodeAll(code, nil), nil
}

func startOnce(cache string, packed []byte) (time.Duration, error) {
	begin := time.Now()
	h, err := host.New(host.WithCacheDir(cache), host.WithBuiltin(host.Builtin{
		Name: "nydus", Wasm: func() ([]byte, error) { return packed, nil },
	}))
	if err != nil {
		return 0, err
	}
	defer h.Close()
	for _, p := range h.Plugins(context.Background()) {
		if p.Err != nil {
			return 0, p.Err
		}
	}
	return time.Since(begin), nil
}
