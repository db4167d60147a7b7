package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/convhost/convhost/host"
)

// TestSpeed prints how the sandbox compares with the same code in process, from one interleaved run on a layer of 40,000 files
// of 5 KB and on one of large files. It takes a minute: set CONVHOST_SPEED=1.
func TestSpeed(t *testing.T) {
	if os.Getenv("CONVHOST_SPEED") == "" {
		t.Skip("takes a minute: set CONVHOST_SPEED=1")
	}
	module := filepath.Join(t.TempDir(), "estargz.wasm")
	build(t, module, []string{"GOOS=wasip1", "GOARCH=wasm"}, "-buildmode=c-shared")
	var small, large []file
	for i := range 40_000 {
		small = append(small, reg("d"+strconv.Itoa(i%400)+"/f"+strconv.Itoa(i), text(uint64(i), 5000)))
	}
	for i := range 16 {
		large = append(large, reg("f"+strconv.Itoa(i), text(uint64(i), 12<<20)))
	}
	h := newHost(t)
	for name, files := range map[string][]file{"40,000 files of 5 KB": small, "16 files of 12 MB": large} {
		src := makeImage(t, files)
		best := map[string]time.Duration{}
		for range 4 {
			for _, format := range []string{"estargz", module} {
				start := time.Now()
				_, err := h.Convert(t.Context(), host.ConvertRequest{
					Source: src, Targets: []host.Target{{Format: format, Dest: "oci:" + filepath.Join(t.TempDir(), "o") + ":x"}},
				})
				if err != nil {
					t.Fatal(err)
				}
				if d := time.Since(start); best[format] == 0 || d < best[format] {
					best[format] = d
				}
			}
		}
		t.Logf("%s: in process %v, in the sandbox %v: %.2f of its speed", name, best["estargz"].Round(time.Millisecond), best[module].Round(time.Millisecond),
			best["estargz"].Seconds()/best[module].Seconds())
	}
}
