package zfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os/exec"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// content is n bytes of text, noise and zeros in turn.
func content(n int) []byte {
	r := rand.New(rand.NewSource(int64(n)))
	var b []byte
	for len(b) < n {
		switch part := make([]byte, 1+r.Intn(9000)); r.Intn(3) {
		case 0:
			r.Read(part)
			b = append(b, part...)
		case 1:
			b = append(b, part...)
		default:
			for k := range 300 {
				b = fmt.Appendf(b, "line %d of %d\n", k, len(b))
			}
		}
	}
	return b[:n]
}

func compress(t testing.TB, c Config, workers int, in []byte, step int) ([]byte, Info) {
	t.Helper()
	var out bytes.Buffer
	w, err := NewParallelWriter(&out, c, workers)
	if err != nil {
		t.Fatal(err)
	}
	for ; len(in) > 0; in = in[min(step, len(in)):] {
		if n, err := w.Write(in[:min(step, len(in))]); err != nil || n != min(step, len(in)) {
			t.Fatal(n, err)
		}
	}
	info, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != int64(out.Len()) {
		t.Fatalf("info says %d bytes, got %d", info.Size, out.Len())
	}
	return out.Bytes(), info
}

func open(t testing.TB, b []byte) *File {
	t.Helper()
	f, err := Open(bytes.NewReader(b), int64(len(b)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRoundTrip(t *testing.T) {
	for _, a := range []Algorithm{LZ4, Zstd} {
		for _, bs := range []int{4096, 8192, 16384, 32768} {
			for _, n := range []int{0, 1, bs - 1, bs, bs + 1, 700_001} {
				for _, plain := range []bool{false, true} {
					in := content(n)
					c := Config{Algorithm: a, BlockSize: bs, NoVerify: plain}
					b, info := compress(t, c, 1, in, 1<<20)
					if again, _ := compress(t, c, 8, in, 3001); !bytes.Equal(again, b) {
						t.Errorf("%v %d %d: 8 workers differ", a, bs, n)
					}
					for _, whole := range []bool{false, true} {
						if whole {
							copy(b, info.Header)
						}
						got, err := io.ReadAll(io.NewSectionReader(open(t, b), 0, int64(n)))
						if err != nil || !bytes.Equal(got, in) {
							t.Errorf("%v %d %d: %v", a, bs, n, err)
						}
						if errs, notes := Check(bytes.NewReader(b), int64(len(b)), Options{}); len(errs)+len(notes) > 0 {
							t.Errorf("%v %d %d: %v %v", a, bs, n, errs, notes)
						}
					}
				}
			}
		}
	}
}

func TestReadAt(t *testing.T) {
	in := content(500_000)
	b, _ := compress(t, Config{}, 1, in, 1<<20)
	for _, cacheBlocks := range []int{-1, 1, 0} {
		f, err := Open(bytes.NewReader(b), int64(len(b)), Options{CacheBlocks: cacheBlocks})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for seed := range int64(4) {
			wg.Go(func() {
				r := rand.New(rand.NewSource(seed))
				for range 300 {
					off, p := r.Intn(len(in)), make([]byte, r.Intn(1<<r.Intn(20)))
					n, err := f.ReadAt(p, int64(off))
					want := min(len(p), len(in)-off)
					if n != want || (n < len(p)) != (err == io.EOF) || !bytes.Equal(p[:n], in[off:off+n]) {
						t.Errorf("%d bytes at %d: %d, %v", len(p), off, n, err)
					}
				}
			})
		}
		wg.Wait()
		if n, err := f.ReadAt(make([]byte, 1), int64(len(in))); n != 0 || err != io.EOF {
			t.Error(n, err)
		}
		if _, err := f.ReadAt(make([]byte, 1), -1); !errors.Is(err, abi.ErrInvalid) {
			t.Error(err)
		}
	}
}

// TestLibzstd reads frames of the reference encoder and has ours read by its tool.
func TestLibzstd(t *testing.T) {
	want := vectors.Layer(t, "libzstd.content")
	f := open(t, vectors.Layer(t, "libzstd.zfile"))
	got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatal(err)
	}
	tool, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("no zstd tool to judge our frames")
	}
	for _, n := range []int{1, 4096} {
		frame, err := appendBlock(nil, content(n), Zstd, false)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(tool, "-dc")
		cmd.Stdin = bytes.NewReader(frame)
		if out, err := cmd.Output(); err != nil || !bytes.Equal(out, content(n)) {
			t.Error(n, err)
		}
	}
}

// bigBlocks makes a file by hand, with a block size that the Writer refuses.
func bigBlocks(t testing.TB, bs int, in []byte, a Algorithm) []byte {
	t.Helper()
	b := make([]byte, HeaderSize)
	var table []byte
	for at := 0; at < len(in); at += bs {
		start := len(b)
		var err error
		if b, err = appendBlock(b, in[at:min(at+bs, len(in))], a, true); err != nil {
			t.Fatal(err)
		}
		table = binary.LittleEndian.AppendUint32(table, uint32(len(b)-start))
	}
	h := Header{Flags: flagData | flagSealed | flagDigest, IndexOffset: int64(len(b)), Blocks: int64(len(table) / 4), Length: int64(len(in)), IndexCRC: rawCRC(0, table)}
	c := Config{BlockSize: bs, Algorithm: a}
	b = append(append(b, table...), encodeHeader(h, c)...)
	h.Flags = flagHeader | flagData | flagComplete | flagDigest
	copy(b, encodeHeader(h, c))
	return b
}

func TestBlockSizesOnlyRead(t *testing.T) {
	in := content(300_000)
	for _, bs := range []int{512, 1024, 2048, 65536} {
		for _, a := range []Algorithm{LZ4, Zstd} {
			f := open(t, bigBlocks(t, bs, in, a))
			if got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size())); err != nil || !bytes.Equal(got, in) {
				t.Error(bs, a, err)
			}
		}
	}
}

// Old files have garbage in what means nothing, like the base layer that upstream ships.
func TestOldGarbage(t *testing.T) {
	in := content(20_000)
	b, _ := compress(t, Config{}, 1, in, 1<<20)
	for _, at := range []int{0, len(b) - HeaderSize} {
		b[at+offFlags] |= 0x40
		b[at+offFlags+1], b[at+offFlags+4] = 0x0b, 0x7f
		b[at+offRes1], b[at+80], b[at+offPad] = 1, 2, 3
	}
	b[offFlags] &^= flagDigest
	copy(b[offIndex:], "garbage ")
	if got, err := io.ReadAll(io.NewSectionReader(open(t, b), 0, int64(len(in)))); err != nil || !bytes.Equal(got, in) {
		t.Error(err)
	}
	if errs, notes := Check(bytes.NewReader(b), int64(len(b)), Options{}); len(errs) != 0 || len(notes) < 4 {
		t.Error(errs, notes)
	}
}

func TestTruncation(t *testing.T) {
	in := content(30_000)
	b, info := compress(t, Config{}, 1, in, 1<<20)
	size := int64(len(b))
	index := open(t, b).head.IndexOffset
	for range 2 { // header as written first, then complete
		for _, cut := range vectors.Edges(size, 0, 24, HeaderSize, index, index+4, size-HeaderSize, size) {
			if f, err := Open(bytes.NewReader(b[:cut]), cut, Options{}); !errors.Is(err, abi.ErrTruncated) || f != nil {
				t.Errorf("cut at %d: %v", cut, err)
			}
			_, err := Open(vectors.Failing{B: b, At: cut}, size, Options{})
			if needed := cut < size-HeaderSize || open(t, b).head.Flags&flagHeader == 0; !needed && err == nil {
				continue // the trailer of a complete header
			}
			if !errors.Is(err, vectors.ErrRead) || abi.ClassOf(err) != abi.ErrIO {
				t.Errorf("fails at %d: %v", cut, err)
			}
		}
		copy(b, info.Header)
	}
	f := open(t, b)
	f.r = bytes.NewReader(b[:1000])
	if n, err := f.ReadAt(make([]byte, 30_000), 0); n != 0 || !errors.Is(err, abi.ErrTruncated) {
		t.Error(n, err)
	}
	for _, r := range vectors.Odd(b) {
		f, err := Open(r, r.Size, Options{})
		if err != nil {
			t.Fatal(r.Name, err)
		}
		if got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size())); err != nil || !bytes.Equal(got, in) {
			t.Error(r.Name, err)
		}
	}
}

func TestWriterErrors(t *testing.T) {
	for _, c := range []Config{{Algorithm: 9}, {BlockSize: 65536}, {BlockSize: 2048}, {BlockSize: 12288}} {
		if _, err := NewWriter(io.Discard, c); !errors.Is(err, abi.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, workers := range []int{1, 4} {
		w, err := NewParallelWriter(&fails{after: 100_000}, Config{}, workers)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(content(4 << 20))
		if _, err2 := w.Close(); !errors.Is(err2, vectors.ErrRead) || abi.ClassOf(err2) != abi.ErrIO || (err != nil && err.Error() != err2.Error()) {
			t.Error(err, err2)
		}
		w, _ = NewParallelWriter(io.Discard, Config{MaxBlocks: 100}, workers)
		w.Write(content(1 << 20))
		if _, err := w.Close(); !errors.Is(err, abi.ErrLimit) {
			t.Error(err)
		}
		if _, err := w.Write([]byte{1}); err == nil {
			t.Error("write after close")
		}
		w, _ = NewParallelWriter(io.Discard, Config{}, workers)
		w.Write(content(4 << 20)) // dropped without Close: goleak sees what it leaves
	}
	if _, err := NewParallelWriter(io.Discard, Config{}, 0); !errors.Is(err, abi.ErrInvalid) {
		t.Error(err)
	}
}

// fails takes some bytes and then fails.
type fails struct{ after int }

func (f *fails) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, vectors.ErrRead
	}
	return len(p), nil
}
