package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/test/ocidir"
)

// Killed at any moment, convert has published nothing or all; the same command again gives the same root and leaves no trace
// of the first. Moments are spread over the time of a whole run, from a fixed seed.
func TestKill(t *testing.T) {
	src, kills := demo, 10
	if dir := os.Getenv("CONVHOST_TESTDATA"); dir != "" {
		src, kills = "oci:"+filepath.Join(dir, "images", "debian-multi")+":amd64", 9
	}
	for format, runtimes := range formats {
		t.Run(format, func(t *testing.T) { killMany(t, format, runtimes, src, kills) })
	}
}

func killMany(t *testing.T, format string, runtimes []string, src string, kills int) {
	first := newRun(t)
	var want digest.Digest
	times := map[string]time.Duration{}
	for _, rt := range runtimes {
		first.convertTo(format, src, "oci:"+t.TempDir()+":x", "--runtime", rt) // fills the cache of compiled plugins
		start := time.Now()
		want = first.convertTo(format, src, "oci:"+t.TempDir()+":x", "--runtime", rt)
		times[rt] = time.Since(start)
	}
	moments := rand.New(rand.NewPCG(3, 5))
	for i := range kills {
		rt := runtimes[i%len(runtimes)]
		after := time.Duration((float64(i) + moments.Float64()) / float64(kills) * 1.05 * float64(times[rt]))
		t.Run(fmt.Sprintf("%02d-%s-%s", i, rt, after.Round(time.Millisecond)), func(t *testing.T) {
			kill(t, format, src, rt, after, want)
		})
	}
}

var runtimes = []string{"wasm", "native", "inprocess"}

func kill(t *testing.T, format, src, rt string, after time.Duration, want digest.Digest) {
	r, out := newRun(t), t.TempDir()
	args := []string{"convert", "--progress", "none", "--runtime", rt, "--format", format, src, "oci:" + out + ":x"}
	cmd := r.command(args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	cmd.Wait() // it was killed, or done already
	if d := published(t, out); d != "" {
		if d != want {
			t.Errorf("published is %s, want %s or nothing", d, want)
		}
		reach(t, ocidir.Open(t, out), ocidir.Open(t, out).Root("x"))
	}
	if got := r.convertTo(format, src, "oci:"+out+":x", "--runtime", rt); got != want {
		t.Errorf("the second run gives %s, want %s", got, want)
	}
	wantClean(t, out, "x", want)
	wantEmpty(t, r.tmp)
}

// An archive is there whole or not at all, and what was killed leaves nothing beside it.
func TestKillArchive(t *testing.T) {
	r, out := newRun(t), t.TempDir()
	r.convert(demo, "oci:"+t.TempDir()+":x") // fills the cache of compiled plugins
	start := time.Now()
	want := r.convert(demo, "oci-archive:"+filepath.Join(out, "x.tar:x"))
	whole := time.Since(start)
	moments := rand.New(rand.NewPCG(7, 11))
	for i := range 8 {
		after := time.Duration((float64(i) + moments.Float64()) / 8 * float64(whole))
		t.Run(fmt.Sprintf("%d-%s", i, after.Round(time.Millisecond)), func(t *testing.T) {
			r, out := newRun(t), t.TempDir()
			file := filepath.Join(out, "x.tar")
			cmd := r.command("convert", "--progress", "none", "--format", "nydus", demo, "oci-archive:"+file+":x")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			cmd.Wait() // it was killed, or done already
			if _, err := os.Stat(file); err == nil {
				r.ok("verify", demo, "oci-archive:"+file+":x", "--all-platforms")
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
			if got := r.convert(demo, "oci-archive:"+file+":x"); got != want {
				t.Errorf("the second run gives %s, want %s", got, want)
			}
			if list := files(t, out); len(list) != 1 {
				t.Errorf("debris beside the archive: %v", list)
			}
			wantEmpty(t, r.tmp)
		})
	}
}

// published returns what index.json names, if it is there.
func published(t testing.TB, dir string) digest.Digest {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	var idx ocispec.Index
	if err := json.Unmarshal(b, &idx); err != nil {
		t.Fatalf("index.json is half-made: %v\n%s", err, b)
	}
	switch len(idx.Manifests) {
	case 0:
		return ""
	case 1:
		return idx.Manifests[0].Digest
	}
	t.Fatalf("index.json names %d images", len(idx.Manifests))
	return ""
}
