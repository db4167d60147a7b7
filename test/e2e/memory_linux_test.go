package e2e

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/test/judge"
	"github.com/convhost/convhost/test/kitchen"
	"github.com/convhost/convhost/test/ocidir"
)

const mib = 1 << 20

// peak converts to nydus and returns the most memory that the process had, in bytes.
func (r *run) peak(src, dst string, args ...string) int64 {
	r.t.Helper()
	return r.peakOf("nydus", src, dst, args...)
}

func (r *run) peakOf(format, src, dst string, args ...string) int64 {
	r.t.Helper()
	cmd := r.command(append([]string{"convert", "--progress", "none", "--format", format, src, dst}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	most, err := watch(cmd.Process.Pid, ended)
	if err != nil {
		r.t.Fatalf("convert %s: %v\n%s", src, err, out.String())
	}
	r.t.Logf("convert %s: %d MiB, %s", strings.Join(append([]string{filepath.Base(src)}, args...), " "), most>>20, time.Since(start).Round(10*time.Millisecond))
	return most
}

// watch returns the most memory that a process, or one that it started, has had until it ends. What wait tells of it would be that of this process, if
// that is larger: a child begins with what its parent has had.
func watch(pid int, ended <-chan error) (most int64, err error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if most == 0 && err == nil {
				err = errors.New("its memory was not seen")
			}
			return most, err
		case <-tick.C:
			for _, p := range append(children(pid), pid) {
				most = max(most, peakNow(p))
			}
		}
	}
}

// children lists the processes that a process has started: native plugins.
func children(pid int) (out []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range tasks {
		list, _ := os.ReadFile(name) // it may have ended
		for _, f := range strings.Fields(string(list)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// peakNow returns the most memory that a process has had so far, in bytes; 0 if it has ended.
func peakNow(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			return n << 10
		}
	}
	return 0
}

func wantAtMost(t testing.TB, what string, got, most int64) {
	t.Helper()
	if got > most {
		t.Errorf("%s: peak memory is %d MiB, want at most %d", what, got>>20, most>>20)
	}
}

func TestMemoryDebian(t *testing.T) {
	src := "oci:" + filepath.Join(judge.Testdata(t), "images", "debian-multi") + ":amd64"
	newRun(t).convert(demo, "oci:"+t.TempDir()+":x") // fills the cache of compiled plugins
	for _, args := range [][]string{{}, {"--runtime", "inprocess"}, {"--option", "compressor=lz4_block"}} {
		wantAtMost(t, fmt.Sprint(args), newRun(t).peak(src, "oci:"+t.TempDir()+":x", args...), 160*mib)
	}
	wantAtMost(t, "overlaybd", newRun(t).peakOf("overlaybd", src, "oci:"+t.TempDir()+":x", "--runtime", "inprocess"), 256*mib)
	wantAtMost(t, "turboci", newRun(t).peakOf("turboci", src, "oci:"+t.TempDir()+":x", "--runtime", "inprocess", "--verify"), 256*mib)
}

// large makes an image of one layer from a generator, without holding it. It skips the test where large ones are not asked for.
func large(t testing.TB, generate func(*tar.Writer) error) string {
	t.Helper()
	if os.Getenv("CONVHOST_LARGE") != "1" {
		t.Skip("skipped: CONVHOST_LARGE is not 1")
	}
	d := ocidir.New(t)
	name := filepath.Join(d.Path, "layer")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	stored, plain := sha256.New(), sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(f, stored), mib)
	z, err := gzip.NewWriterLevel(buf, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(io.MultiWriter(z, plain))
	for _, step := range []func() error{func() error { return generate(w) }, w.Close, z.Close, buf.Flush, f.Close} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	size, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.NewDigest(digest.SHA256, stored), Size: size.Size()}
	if err := os.Rename(name, d.Blob(desc.Digest)); err != nil {
		t.Fatal(err)
	}
	d.ImageOf("large", []ocispec.Descriptor{desc}, []digest.Digest{digest.NewDigest(digest.SHA256, plain)})
	return "oci:" + d.Path + ":large"
}

// A million files of one layer, most of them tiny.
func TestMemoryMillionFiles(t *testing.T) {
	const count = 1_000_000
	src := large(t, func(w *tar.Writer) error {
		for i := range count {
			if i%1000 == 0 {
				if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%03d/", i/1000), Typeflag: tar.TypeDir, Mode: 0o755, ModTime: kitchen.Mtime}); err != nil {
					return err
				}
			}
			body := fmt.Appendf(nil, "file %d\n", i)[:i%3*3]
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%03d/file-%07d", i/1000, i), Mode: 0o644, Size: int64(len(body)), ModTime: kitchen.Mtime}); err != nil {
				return err
			}
			if _, err := w.Write(body); err != nil {
				return err
			}
		}
		return nil
	})
	newRun(t).convert(demo, "oci:"+t.TempDir()+":x") // fills the cache of compiled plugins
	for _, rt := range runtimes {
		wantAtMost(t, "1,000,000 files, "+rt, newRun(t).peak(src, "oci:"+t.TempDir()+":x", "--runtime", rt), 256*mib+count*3<<9)
	}
	wantAtMost(t, "1,000,000 files, overlaybd", newRun(t).peakOf("overlaybd", src, "oci:"+t.TempDir()+":x", "--runtime", "inprocess"), 256*mib)
	wantAtMost(t, "1,000,000 files, turboci", newRun(t).peakOf("turboci", src, "oci:"+t.TempDir()+":x", "--runtime", "inprocess"), 256*mib)
}

// Four gigabytes in a few files, most of them zeros.
func TestMemoryGigabytes(t *testing.T) {
	src := large(t, func(w *tar.Writer) error {
		zeros := make([]byte, mib-4096)
		for i := range 4 {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("file%d", i), Mode: 0o644, Size: 1 << 30, ModTime: kitchen.Mtime}); err != nil {
				return err
			}
			for k := range 1024 {
				for _, p := range [][]byte{kitchen.Noise(uint64(i*1024+k), 4096), zeros} {
					if _, err := w.Write(p); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	newRun(t).convert(demo, "oci:"+t.TempDir()+":x") // fills the cache of compiled plugins
	for _, rt := range runtimes {
		wantAtMost(t, "4 GiB, "+rt, newRun(t).peak(src, "oci:"+t.TempDir()+":x", "--runtime", rt), 256*mib)
	}
	wantAtMost(t, "4 GiB, overlaybd", newRun(t).peakOf("overlaybd", src, "oci:"+t.TempDir()+":x", "--runtime", "inprocess"), 256*mib)
	wantAtMost(t, "4 GiB, turboci", newRun(t).peakOf("turboci", src, "oci:"+t.TempDir()+":x", "--runtime", "inprocess"), 256*mib)
}
