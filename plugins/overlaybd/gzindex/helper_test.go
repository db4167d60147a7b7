package gzindex

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand"
	"testing"

	"github.com/convhost/convhost/internal/zran"
)

// build returns the index of gz and what gz decompresses to.
func build(t testing.TB, gz []byte, c Config) (meta, raw []byte) {
	t.Helper()
	meta, raw, err := tryBuild(gz, c)
	if err != nil {
		t.Fatal(err)
	}
	return meta, raw
}

func tryBuild(gz []byte, c Config) (meta, raw []byte, err error) {
	var body, out bytes.Buffer
	w := NewWriter(&body, c)
	z := zran.NewReader(bytes.NewReader(gz), zran.Options{Trailing: zran.Zeros, OnMember: w.Member, OnBlock: w.Block})
	n, err := z.WriteTo(&out)
	if err != nil {
		return nil, nil, err
	}
	info, err := w.Close(int64(len(gz)), n)
	return append(info.Header, body.Bytes()...), out.Bytes(), err
}

func open(t testing.TB, meta, gz []byte, o Options) *File {
	t.Helper()
	f, err := Open(bytes.NewReader(meta), int64(len(meta)), bytes.NewReader(gz), int64(len(gz)), o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// sample is n bytes of words and of noise, in turns.
func sample(n int) []byte {
	r := rand.New(rand.NewSource(1))
	words := []string{"usr", "share", "lib", "x86_64", "doc", "python", "\n", "/", " "}
	var b []byte
	for len(b) < n {
		for range 4000 {
			b = append(b, words[r.Intn(len(words))]...)
		}
		noise := make([]byte, 10_000)
		r.Read(noise)
		b = append(b, noise...)
	}
	return b[:n]
}

func gzipped(t testing.TB, raw []byte, level int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// flushed is a gzip file with a block for every step bytes.
func flushed(t testing.TB, raw []byte, step int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	for len(raw) > 0 {
		n := min(step, len(raw))
		if _, err := w.Write(raw[:n]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		raw = raw[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func readAll(f *File) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
}
