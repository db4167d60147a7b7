package ext4_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
)

// A layer's memory is bounded by the allowance for metadata, a bit for each file, and a word for each block in the scratch file.
func TestMemory(t *testing.T) {
	files := 200_000
	dev := ext4.NewOverlay(nil, 64<<30, spillFile(t))
	ap, err := ext4.Format(dev, ext4.MkfsOptions{}, ext4.Options{Scratch: spillFile(t), Memory: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, start := heap(), uint64(0), time.Now()
	for i := range files {
		e := abi.Entry{Kind: abi.KindRegular, Path: fmt.Sprintf("usr/share/package-%d/file-with-a-name-%d", i/20, i), Size: 1, Mode: 0o644}
		if err := ap.Apply(t.Context(), &e, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if i%50_000 == 49_999 {
			most = max(most, heap()-before)
		}
	}
	st, err := ap.Commit()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files: %d bytes at most, %v, %+v", files, most, time.Since(start).Round(time.Millisecond), st)
	if most > 16<<20+uint64(files)*60 {
		t.Errorf("%d bytes, want at most 16 MiB and 60 bytes a file", most)
	}
}
