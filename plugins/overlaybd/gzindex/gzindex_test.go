package gzindex

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"os"
	"sync"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

// Upstream's index is read, and ours of the same layer has the same header, entries and windows; only the compressed bytes of
// windows and entries, their sizes and places, and the checksum differ.
func TestUpstream(t *testing.T) {
	theirs, err := os.ReadFile(vectors.Shared(t, "overlaybd/turboci/gzip.meta"))
	if err != nil {
		t.Fatal(err)
	}
	gz, err := os.ReadFile(vectors.Shared(t, "overlaybd/turboci/layer.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	ours, raw := build(t, gz, Config{})
	a, b := open(t, theirs, gz, Options{}), open(t, ours, gz, Options{})
	ha, hb := a.Header(), b.Header()
	hb.Size, hb.IndexStart, hb.IndexLength = ha.Size, ha.IndexStart, ha.IndexLength
	if ha != hb || ha.Entries != 8 {
		t.Errorf("header %+v, want %+v", hb, ha)
	}
	if !bytes.Equal(theirs[:offFile], ours[:offFile]) || !bytes.Equal(theirs[offRaw:offStart], ours[offRaw:offStart]) {
		t.Error("header bytes differ")
	}
	wa, wb := make([]byte, windowSize), make([]byte, windowSize)
	for k, e := range a.entries {
		got := b.entries[k]
		if got.in != e.in || got.out != e.out || got.bits != e.bits {
			t.Errorf("entry %d: %+v, want %+v", k, got, e)
		}
		if err := errors.Join(a.window(k, wa), b.window(k, wb)); err != nil || !bytes.Equal(wa, wb) {
			t.Errorf("window %d: %v", k, err)
		}
	}
	for name, meta := range map[string][]byte{"theirs": theirs, "ours": ours} {
		if errs, notes := Check(bytes.NewReader(meta), int64(len(meta)), bytes.NewReader(gz), int64(len(gz)), Options{}); len(errs)+len(notes) > 0 {
			t.Error(name, errs, notes)
		}
		got, err := readAll(open(t, meta, gz, Options{}))
		if err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	t.Logf("index of %d bytes, upstream's %d", len(ours), len(theirs))
}

// Whatever is read in whatever order is what gzip gives; every entry but the first stands before a multiple of the span or on it.
func TestRandomAccess(t *testing.T) {
	raw := sample(1300 << 10)
	for name, gz := range map[string][]byte{
		"level 1": gzipped(t, raw, 1), "level 9": gzipped(t, raw, 9), "stored": gzipped(t, raw, 0), "flushed": flushed(t, raw, 5000),
		"zeros behind": append(gzipped(t, raw, 6), make([]byte, 3000)...), "empty": gzipped(t, nil, 6),
	} {
		for _, span := range []int64{0, 200_000, 4096} {
			meta, out := build(t, gz, Config{Span: span})
			f := open(t, meta, gz, Options{Pool: NewPool(1<<20, 2)})
			if f.Size() != int64(len(out)) {
				t.Fatal(name, f.Size())
			}
			r := rand.New(rand.NewSource(span))
			for range 25 {
				off, n := r.Int63n(f.Size()+10), r.Intn(300_000)
				p := make([]byte, n)
				got, err := f.ReadAt(p, off)
				want := out[min(off, f.Size()):min(off+int64(n), f.Size())]
				if got != len(want) || !bytes.Equal(p[:got], want) || (err != nil) != (got < n) || err != nil && err != io.EOF {
					t.Fatal(name, span, off, n, got, err)
				}
			}
			if errs, notes := Check(bytes.NewReader(meta), int64(len(meta)), bytes.NewReader(gz), int64(len(gz)), Options{}); len(errs)+len(notes) > 0 {
				t.Error(name, span, errs, notes)
			}
			if span == 0 {
				span = DefaultSpan
			}
			if limit := 2*f.Size()/span + 2; int64(len(f.entries)) > limit {
				t.Errorf("%s: %d entries with a span of %d", name, len(f.entries), span)
			}
		}
	}
}

// Readers share a pool with fewer decompressors than goroutines, over two files.
func TestConcurrentReaders(t *testing.T) {
	raw := sample(2 << 20)
	gz1, gz2 := gzipped(t, raw, 6), gzipped(t, raw[1000:], 1)
	pool := NewPool(512<<10, 2)
	var files []*File
	for _, gz := range [][]byte{gz1, gz2} {
		meta, _ := build(t, gz, Config{Span: 256 << 10})
		files = append(files, open(t, meta, gz, Options{Pool: pool}))
	}
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewSource(int64(g)))
			p := make([]byte, 50_000)
			for range 40 {
				which := r.Intn(2)
				f := files[which]
				off := r.Int63n(f.Size() - int64(len(p)))
				if n, err := f.ReadAt(p, off); n != len(p) || err != nil || !bytes.Equal(p, raw[1000*which:][off:off+int64(n)]) {
					t.Error(which, off, n, err)
				}
			}
		})
	}
	wg.Wait()
	if len(pool.pages) > 4 || len(pool.cursors) > 2 || len(pool.spare) > 4 {
		t.Errorf("%d pages, %d cursors, %d spare", len(pool.pages), len(pool.cursors), len(pool.spare))
	}
}

// counting counts the bytes that are read.
type counting struct {
	io.ReaderAt
	n int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.n += int64(n)
	return n, err
}

// Reading forward in small steps decompresses everything once; reading far behind needs one stretch.
func TestReadsLittle(t *testing.T) {
	raw := sample(8 << 20)
	gz := gzipped(t, raw, 6)
	meta, _ := build(t, gz, Config{})
	src := &counting{ReaderAt: bytes.NewReader(gz)}
	f, err := Open(bytes.NewReader(meta), int64(len(meta)), src, int64(len(gz)), Options{Pool: NewPool(1<<20, 1)})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	if _, err := f.ReadAt(p, 7<<20); err != nil || src.n > int64(len(gz))/4 {
		t.Error("one read of the end read", src.n, "of", len(gz), err)
	}
	src.n = 0
	for off := int64(0); off < f.Size(); off += int64(len(p)) {
		if n, err := f.ReadAt(p, off); err != nil || !bytes.Equal(p[:n], raw[off:off+int64(n)]) {
			t.Fatal(off, n, err)
		}
	}
	if src.n > int64(len(gz))+200_000 {
		t.Error("reading forward read", src.n, "of", len(gz))
	}
}

func TestMultiMemberRefused(t *testing.T) {
	raw := sample(100_000)
	joined := append(gzipped(t, raw, 6), gzipped(t, raw, 6)...)
	for name, gz := range map[string][]byte{"two": joined, "an empty one": append(gzipped(t, raw, 6), gzipped(t, nil, 6)...)} {
		_, _, err := tryBuild(gz, Config{})
		if abi.ClassOf(err) != abi.ErrUnsupported {
			t.Error(name, err)
		}
	}
	// an index that covers the first member alone, as upstream writes it
	first := gzipped(t, raw, 6)
	meta, _ := build(t, first, Config{})
	meta = withHeader(meta, offGzip, int64(len(joined)))
	errs, _ := Check(bytes.NewReader(meta), int64(len(meta)), bytes.NewReader(joined), int64(len(joined)), Options{})
	if len(errs) != 1 || abi.ClassOf(errs[0]) != abi.ErrUnsupported {
		t.Error(errs)
	}
}

// A layer that is not the one of the index: errors, or what it holds, but no panic and no short read.
func TestForeignLayer(t *testing.T) {
	raw := sample(3 << 20)
	gz := gzipped(t, raw, 6)
	meta, _ := build(t, gz, Config{})
	if _, err := Open(bytes.NewReader(meta), int64(len(meta)), bytes.NewReader(gz[1:]), int64(len(gz)-1), Options{}); abi.ClassOf(err) != abi.ErrDigest {
		t.Error("size:", err)
	}
	bad := bytes.Clone(gz)
	copy(bad[len(bad)/2:], bytes.Repeat([]byte{0xff}, 100_000))
	f := open(t, meta, bad, Options{})
	got, err := readAll(f)
	if abi.ClassOf(err) != abi.ErrCorrupt || len(got) == len(raw) {
		t.Error("damaged:", len(got), err)
	}
	cut := bytes.Clone(gz)
	half := len(cut) / 2
	f = open(t, meta, cut, Options{})
	f.gz = bytes.NewReader(cut[:half])
	if _, err := readAll(f); abi.ClassOf(err) != abi.ErrTruncated {
		t.Error("cut:", err)
	}
	f.gz = vectors.Failing{B: gz, At: int64(half)}
	if _, err := readAll(f); abi.ClassOf(err) != abi.ErrIO || !errors.Is(err, vectors.ErrRead) {
		t.Error("disk:", err)
	}
	f.gz = bytes.NewReader(gz) // it goes on after an error
	if got, err := readAll(f); err != nil || !bytes.Equal(got, raw) {
		t.Error("again:", err)
	}
	short := withHeader(bytes.Clone(meta), offRaw, int64(len(raw)+1))
	if _, err := readAll(open(t, short, gz, Options{})); abi.ClassOf(err) != abi.ErrCorrupt {
		t.Error("longer content:", err)
	}
}

func TestWriterErrors(t *testing.T) {
	gz := gzipped(t, sample(3<<20), 6)
	for _, limit := range []int{0, 10, 40_000} {
		w := NewWriter(&full{limit}, Config{})
		err := feed(w, gz)
		if err == nil {
			_, err = w.Close(int64(len(gz)), 3<<20)
		}
		if abi.ClassOf(err) != abi.ErrIO || !errors.Is(err, errFull) {
			t.Error(limit, err)
		}
	}
	if _, err := NewWriter(io.Discard, Config{}).Close(0, 0); abi.ClassOf(err) != abi.ErrInvalid {
		t.Error("nothing read:", err)
	}
	if err := feed(NewWriter(io.Discard, Config{Span: -1}), gz); abi.ClassOf(err) != abi.ErrInvalid {
		t.Error("span:", err)
	}
	w := NewWriter(io.Discard, Config{})
	if err := feed(w, gz); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(100, 3<<20); abi.ClassOf(err) != abi.ErrInvalid {
		t.Error("size:", err)
	}
}

// Every cut of a file is refused, at Open.
func TestTruncation(t *testing.T) {
	gz := gzipped(t, sample(300_000), 6)
	meta, _ := build(t, gz, Config{Span: 50_000})
	for cut := 0; cut < len(meta); cut += 1 + cut/50 {
		_, err := Open(bytes.NewReader(meta[:cut]), int64(cut), bytes.NewReader(gz), int64(len(gz)), Options{})
		if abi.ClassOf(err) != abi.ErrTruncated {
			t.Fatal(cut, err)
		}
	}
	for _, s := range vectors.Odd(meta) {
		if errs, _ := Check(s, s.Size, bytes.NewReader(gz), int64(len(gz)), Options{}); len(errs) > 0 {
			t.Error(s.Name, errs)
		}
	}
	for at := int64(0); at < int64(len(meta)); at += 997 {
		r := vectors.Failing{B: meta, At: at}
		if errs, _ := Check(r, int64(len(meta)), bytes.NewReader(gz), int64(len(gz)), Options{}); len(errs) == 0 || abi.ClassOf(errs[0]) != abi.ErrIO {
			t.Fatal(at, errs)
		}
	}
}

var errFull = errors.New("no space left")

type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.left {
		return 0, errFull
	}
	f.left -= len(p)
	return len(p), nil
}
