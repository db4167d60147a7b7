package zran_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/zran"
)

var levels = []int{flate.HuffmanOnly, flate.NoCompression, 1, 6, 9}

// Whatever the standard library compressed comes out again, through every kind of reader.
func TestRoundTrip(t *testing.T) {
	for name, raw := range texts(400_000) {
		for _, level := range levels {
			b := append(deflated(raw, level), "behind"...)
			compare(t, ours(b, zran.Options{Format: zran.Deflate}), result{raw, nil, int64(len(b) - 6)})
			g := gzipped(raw, level)
			compare(t, ours(g, zran.Options{}), result{raw, nil, int64(len(g))})
			var buf bytes.Buffer
			n, err := zran.NewReader(iotest.DataErrReader(bytes.NewReader(g)), zran.Options{}).WriteTo(&buf)
			if err != nil || n != int64(len(raw)) || !bytes.Equal(buf.Bytes(), raw) {
				t.Errorf("%s, level %d: %d bytes, %v", name, level, n, err)
			}
		}
	}
}

func TestReaders(t *testing.T) {
	for name, raw := range texts(30_000) {
		g := append(gzipped(raw, 6), gzipped(raw, 1)...)
		want := append(bytes.Clone(raw), raw...)
		for how, r := range map[string]io.Reader{"one byte": iotest.OneByteReader(bytes.NewReader(g)), "half": iotest.HalfReader(bytes.NewReader(g)),
			"data with EOF": iotest.DataErrReader(bytes.NewReader(g)), "one byte out": bytes.NewReader(g)} {
			z := io.Reader(zran.NewReader(r, zran.Options{}))
			if how == "one byte out" {
				z = iotest.OneByteReader(z)
			}
			if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %s: %d bytes, %v", name, how, len(got), err)
			}
		}
	}
}

// Every cut is found, and what came out before is right.
func TestTruncation(t *testing.T) {
	for name, raw := range texts(250) {
		for _, level := range levels {
			b := deflated(raw, level)
			for n := range b {
				compare(t, ours(b[:n], zran.Options{Format: zran.Deflate}), stdFlate(b[:n]))
			}
			g := append(gzipped(raw, level), gzipped(raw, level)...)
			for n := range g {
				if n == 0 {
					continue // the library says io.EOF
				}
				got, want := ours(g[:n], zran.Options{}), stdGzip(g[:n])
				if n < len(g)/2 || n > len(g)/2 {
					compare(t, got, want)
				} else if got.err != nil {
					t.Errorf("%s: first member: %v", name, got.err)
				}
			}
		}
	}
}

// A source that blocks is asked only when there is nothing to hand over.
func TestDoesNotWait(t *testing.T) {
	var buf bytes.Buffer
	w, _ := flate.NewWriter(&buf, 6)
	pr, pw := io.Pipe()
	defer pr.Close()
	z := zran.NewReader(pr, zran.Options{Format: zran.Deflate})
	for i := range 20 {
		want := bytes.Repeat([]byte(fmt.Sprint("message ", i)), 1+i*50)
		w.Write(want)
		w.Flush()
		go pw.Write(bytes.Clone(buf.Bytes()))
		got := make([]byte, len(want))
		if _, err := io.ReadFull(z, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("message %d: %q, %v", i, got, err)
		}
		buf.Reset()
	}
}

func TestSourceErrors(t *testing.T) {
	g := gzipped(texts(50_000)["text"], 6)
	boom := errors.New("boom")
	classed := abi.Errorf(abi.ErrDenied, "no")
	for _, c := range []struct {
		err  error
		want abi.Class
	}{{boom, abi.ErrIO}, {classed, abi.ErrDenied}, {io.ErrUnexpectedEOF, abi.ErrTruncated}, {io.ErrNoProgress, abi.ErrIO}} {
		_, err := io.ReadAll(zran.NewReader(io.MultiReader(bytes.NewReader(g[:len(g)/2]), iotest.ErrReader(c.err)), zran.Options{}))
		if !errors.Is(err, c.err) || abi.ClassOf(err) != c.want {
			t.Errorf("%v: %v", c.err, err)
		}
	}
	if _, err := io.ReadAll(zran.NewReader(nothing{}, zran.Options{})); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, nil }

func TestRest(t *testing.T) {
	raw := texts(100_000)["text"]
	b := append(gzipped(raw, 6), "what follows"...)
	for _, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b)), iotest.DataErrReader(bytes.NewReader(b))} {
		z := zran.NewReader(r, zran.Options{Trailing: zran.Ignore})
		if n, err := io.Copy(io.Discard, z); err != nil || n != int64(len(raw)) {
			t.Fatal(n, err)
		}
		if rest, err := io.ReadAll(z.Rest()); string(rest) != "what follows" || err != nil || z.InputOffset() != int64(len(b)-12) {
			t.Errorf("%q, %v, offset %d", rest, err, z.InputOffset())
		}
	}
}

func TestTrailing(t *testing.T) {
	g := gzipped([]byte("abc"), 6)
	n := int64(len(g))
	for name, c := range map[string]struct {
		behind string
		opt    zran.Trailing
		class  abi.Class
		off    int64
	}{
		"nothing":               {"", zran.Members, 0, 0},
		"zeros not wanted":      {"\x00", zran.Members, abi.ErrCorrupt, n},
		"zeros":                 {string(make([]byte, 200_000)), zran.Zeros, 0, 0},
		"zeros, then something": {"\x00\x00\x00x", zran.Zeros, abi.ErrCorrupt, n + 3},
		"zeros, then a member":  {"\x00" + string(g), zran.Zeros, abi.ErrCorrupt, n + 1},
		"garbage":               {"x", zran.Zeros, abi.ErrCorrupt, n},
		"half a magic":          {"\x1f", zran.Zeros, abi.ErrTruncated, n + 1},
		"another magic":         {"\x1fx", zran.Zeros, abi.ErrCorrupt, n},
		"another method":        {"\x1f\x8b\x07", zran.Zeros, abi.ErrCorrupt, n},
		"a cut header":          {"\x1f\x8b\x08\x00\x00", zran.Zeros, abi.ErrTruncated, n + 5},
		"ignored":               {"x", zran.Ignore, 0, 0},
	} {
		got := ours(append(bytes.Clone(g), c.behind...), zran.Options{Trailing: c.opt})
		var fe *abi.FormatError
		if string(got.out) != "abc" || abi.ClassOf(got.err) != c.class || errors.As(got.err, &fe) && fe.Off != c.off {
			t.Errorf("%s: %q, %v", name, got.out, got.err)
		}
	}
	if got := ours(nil, zran.Options{Trailing: zran.Zeros}); abi.ClassOf(got.err) != abi.ErrTruncated {
		t.Error("empty:", got.err)
	}
}
