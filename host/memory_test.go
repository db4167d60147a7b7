package host

import (
	"archive/tar"
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/sdk"
)

// sparseTar is a tar of 2 KiB with one file of size zeros, as GNU tar writes it (sparse format 1.0).
func sparseTar(t testing.TB, size int64) []byte {
	t.Helper()
	m := fmt.Sprintf("1\n%d\n0\n", size) // one region at the end, without data
	b := makeTar(t, &tar.Header{Name: "GNUSparseFile.0/zeros", Uname: m + string(make([]byte, 512-len(m)))})
	var pax bytes.Buffer
	for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=zeros", fmt.Sprintf("GNU.sparse.realsize=%d", size)} {
		n := len(kv) + 4 // two digits, space, line feed
		fmt.Fprintf(&pax, "%d %s\n", n, kv)
	}
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: int64(pax.Len())}); err != nil {
		t.Fatal(err)
	}
	h := head.Bytes()[:512]
	h[156] = 'x'
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	out := append(h, pax.Bytes()...)
	out = append(out, make([]byte, (512-pax.Len()%512)%512)...)
	return append(out, b...)
}

// heapPeak samples the heap until stop is called, which returns the highest value above the one at the start.
func heapPeak() (stop func() int64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base, peak := int64(m.HeapAlloc), int64(0)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			runtime.ReadMemStats(&m)
			peak = max(peak, int64(m.HeapAlloc)-base)
			select {
			case <-tick.C:
			case <-done:
				tick.Stop()
				return
			}
		}
	})
	return func() int64 {
		close(done)
		wg.Wait()
		return peak
	}
}

// memoryFile is the size of TestMemory's file.
var memoryFile int64 = 1 << 30

// TestMemory: memory does not grow with a file: a layer of 2 KiB that holds 1 GiB.
func TestMemory(t *testing.T) {
	const good, most = 100 << 20, 256 << 20
	e := newEnv(t, []sdk.Plugin{nydus.New()})
	s := graphtest.NewStore()
	src := e.source(s, s.Image(graphtest.Image{Layers: []graphtest.Layer{s.TarLayer(sparseTar(t, memoryFile))}}))
	stop := heapPeak()
	begin := time.Now()
	rs, err := e.Convert(t.Context(), ConvertRequest{Source: src, Targets: []Target{{Format: "nydus", Dest: e.ref("out")}}})
	peak := stop()
	e.ok(err)
	t.Logf("%d MiB of zeros in a layer of %d bytes: %s, blob of %d bytes, heap up to %d MiB", memoryFile>>20, rs[0].Manifests[0].Layers[0].Source.Size,
		time.Since(begin).Round(time.Millisecond), rs[0].Manifests[0].Layers[0].Converted.Size, peak>>20)
	switch {
	case peak > most:
		t.Errorf("heap grew by %d MiB, want at most %d", peak>>20, most>>20)
	case peak > good:
		t.Logf("more than the %d MiB that it should be", good>>20)
	}
	vs, err := e.Verify(t.Context(), VerifyRequest{Source: src, Converted: e.ref("out")})
	e.ok(err)
	same(t, "files", vs[0].Files, 2)
}
