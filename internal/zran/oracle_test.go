package zran_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/zran"
)

// result is what a decompressor makes of an input.
type result struct {
	out  []byte
	err  error
	used int64 // input bytes up to the end, or up to the error as far as known
}

// Readers are used again and again: what they did before must not matter.
var reused = map[zran.Format]*zran.Reader{zran.Gzip: zran.NewReader(nil, zran.Options{}),
	zran.Deflate: zran.NewReader(nil, zran.Options{Format: zran.Deflate})}

func ours(b []byte, opt zran.Options) result {
	z := reused[opt.Format]
	if opt.Trailing != zran.Members {
		z = zran.NewReader(nil, opt)
	}
	z.Reset(bytes.NewReader(b))
	out, err := io.ReadAll(z)
	return result{out, err, z.InputOffset()}
}

func stdFlate(b []byte) result {
	r := bytes.NewReader(b)
	out, err := io.ReadAll(flate.NewReader(r))
	used := int64(len(b) - r.Len())
	var bad flate.CorruptInputError
	if errors.As(err, &bad) {
		used = int64(bad)
	}
	return result{out, err, used}
}

func stdGzip(b []byte) result {
	r := bytes.NewReader(b)
	z, err := gzip.NewReader(r)
	if err != nil {
		return result{nil, err, 0}
	}
	out, err := io.ReadAll(z)
	return result{out, err, int64(len(b) - r.Len())}
}

// compare holds a result against the standard library's: the same bytes, the same verdict, at the same place. The place
// of a fault may differ by the two bytes that the library reads ahead for an end of block; of a cut stream it may hold back
// the last symbols.
func compare(t testing.TB, got, want result) {
	t.Helper()
	var bad flate.CorruptInputError
	var fe *abi.FormatError
	switch {
	case want.err == nil:
		if got.err != nil || !bytes.Equal(got.out, want.out) || got.used != want.used {
			t.Fatalf("%d bytes of %d, %v; want %d bytes of %d", len(got.out), got.used, got.err, len(want.out), want.used)
		}
		return
	case !errors.As(got.err, &fe):
		t.Fatalf("accepted, or no place: %v, want like %v", got.err, want.err)
	case errors.Is(want.err, io.ErrUnexpectedEOF):
		if fe.Class != abi.ErrTruncated || !bytes.HasPrefix(got.out, want.out) {
			t.Fatalf("%d bytes, %v; want %d bytes, truncated", len(got.out), got.err, len(want.out))
		}
		return
	case fe.Class != abi.ErrCorrupt:
		t.Fatalf("%v, want like %v", got.err, want.err)
	}
	if !bytes.Equal(got.out, want.out) {
		t.Fatalf("%d bytes before the fault, want %d", len(got.out), len(want.out))
	}
	if errors.As(want.err, &bad) {
		if d := want.used - fe.Off; d < 0 || d > 2 {
			t.Fatalf("fault at %d, want %d", fe.Off, want.used)
		}
	}
}

func deflated(b []byte, level int) []byte {
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, level)
	if err != nil {
		panic(err)
	}
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

func gzipped(b []byte, level int) []byte {
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, level)
	if err != nil {
		panic(err)
	}
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

// texts returns data of many kinds, all of about n bytes.
func texts(n int) map[string][]byte {
	r := rand.New(rand.NewPCG(3, 4))
	noise, text, runs, mixed, skewed := make([]byte, n), make([]byte, 0, n), make([]byte, 0, n), make([]byte, 0, n), make([]byte, n)
	for i := range noise {
		noise[i] = byte(r.Uint32())
		v := 0
		for v < 255 && r.Uint32()&3 != 0 {
			v++
		}
		skewed[i] = byte(v * 7)
	}
	words := []string{"convhost ", "layer", " of ", "the", "\n", "0123456789", "sha256:", "x"}
	for len(text) < n {
		text = append(text, words[r.IntN(len(words))]...)
		runs = append(runs, bytes.Repeat(noise[r.IntN(n-20):][:1+r.IntN(20)], 1+r.IntN(400))...)
		k := r.IntN(min(len(mixed)+1, 32768) + 1)
		if k > len(mixed) || k == 0 || r.IntN(3) == 0 {
			mixed = append(mixed, noise[r.IntN(n-50):][:r.IntN(50)]...)
		} else {
			mixed = append(mixed, mixed[len(mixed)-k:][:min(k, r.IntN(300))]...)
		}
	}
	return map[string][]byte{"noise": noise, "text": text, "runs": runs[:n], "mixed": mixed, "zeros": make([]byte, n), "skewed": skewed,
		"one": {'x'}, "nothing": nil}
}
