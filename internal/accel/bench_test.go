package accel

import (
	"bytes"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/pierrec/lz4/v4"
)

func benchPlan(b *testing.B, spec abi.PlanSpec, data []byte, file int) {
	pool := newPool(b, 0, 0)
	b.SetBytes(int64(len(data)))
	buf := make([]byte, 4096*abi.CompletionSize)
	for b.Loop() {
		q := pool.NewQueue(b.Context(), Limits{})
		p := mustPlan(b, q, spec, q.NewSink(io.Discard))
		r := bytes.NewReader(data)
		for tag := uint64(0); r.Len() > 0; tag++ {
			if _, err := q.Stream(p, r, int64(min(file, r.Len())), tag); err != nil {
				b.Fatal(err)
			}
			if tag%1000 == 0 {
				must[int](b)(q.Collect(buf, 0))
			}
		}
		must[abi.PlanInfo](b)(q.ClosePlan(p))
		if err := q.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(pool.Stats().Peak)/1e6, "peakMB")
}

// benchLoop is what a plain program does on one core: the same work for each chunk, one after the other.
func benchLoop(b *testing.B, data []byte, file int) {
	b.SetBytes(int64(len(data)))
	var c lz4.Compressor
	out := make([]byte, lz4.CompressBlockBound(file))
	for b.Loop() {
		seen := map[[32]byte]bool{}
		for p := data; len(p) > 0; {
			chunk := p[:min(file, len(p))]
			p = p[len(chunk):]
			if d := sha256.Sum256(chunk); !seen[d] {
				seen[d] = true
				n, _ := c.CompressBlock(chunk, out)
				io.Discard.Write(out[:n])
			}
		}
	}
}

var (
	lz4Spec  = abi.PlanSpec{ChunkSize: 1 << 20, Digest: abi.DigestSHA256, Codec: abi.CodecLZ4Block, KeepRaw: true, Dedup: abi.DedupPlan}
	zstdSpec = abi.PlanSpec{ChunkSize: 1 << 20, Digest: abi.DigestSHA256, Codec: abi.CodecZstd, KeepRaw: true, Dedup: abi.DedupPlan}
)

// rootfs returns 128 MiB that are like a root file system: machine code and text, most of it not repeated. It is the
// test program itself and the sources of Go's library, which are there wherever this runs.
func rootfs(b *testing.B) []byte {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	data := must[[]byte](b)(os.ReadFile(self))
	root := must[[]byte](b)(exec.Command("go", "env", "GOROOT").Output())
	src := os.DirFS(filepath.Join(strings.TrimSpace(string(root)), "src"))
	fs.WalkDir(src, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && len(data) < 128<<20 {
			if f, err := fs.ReadFile(src, path); err == nil {
				data = append(data, f...)
			}
		}
		return nil
	})
	for n := len(data); len(data) < 128<<20; { // other bytes, same statistics: no duplicates
		data = append(data, data[len(data)-n+7])
	}
	return data
}

func BenchmarkRootfsLZ4(b *testing.B)  { benchPlan(b, lz4Spec, rootfs(b), 700<<10) }
func BenchmarkRootfsZstd(b *testing.B) { benchPlan(b, zstdSpec, rootfs(b), 700<<10) }
func BenchmarkRootfsLoop(b *testing.B) { benchLoop(b, rootfs(b), 700<<10) }
func BenchmarkSmallLZ4(b *testing.B)   { benchPlan(b, lz4Spec, rootfs(b), 5000) }
func BenchmarkSmallZstd(b *testing.B)  { benchPlan(b, zstdSpec, rootfs(b), 5000) }
func BenchmarkSmallLoop(b *testing.B)  { benchLoop(b, rootfs(b), 5000) }
