package inflate_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/inflate"
	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func gz(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

func zs(b []byte, opts ...zstd.EOption) []byte {
	w, err := zstd.NewWriter(nil, append(opts, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		panic(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// data is compressible, but not too much.
func data(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefgh"[r.IntN(8)]
	}
	return b
}

func skippable(n int) []byte {
	return append([]byte{0x53, 0x2a, 0x4d, 0x18, byte(n), byte(n >> 8), 0, 0}, make([]byte, n)...)
}

func readAll(t testing.TB, r io.Reader, opt inflate.Options) ([]byte, *inflate.Stream, error) {
	t.Helper()
	s, err := inflate.Open(t.Context(), r, opt)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	b, err := io.ReadAll(struct{ io.Reader }{s})
	return b, s, err
}

func TestCodecs(t *testing.T) {
	big := data(1<<18 + 77)
	half := big[:1<<17]
	for name, c := range map[string]struct {
		stored, raw []byte
		codec       inflate.Codec
	}{
		"plain":              {big, big, inflate.Plain},
		"plain, short":       {[]byte("ab"), []byte("ab"), inflate.Plain},
		"plain, empty":       {nil, nil, inflate.Plain},
		"gzip":               {gz(big), big, inflate.Gzip},
		"gzip, empty":        {gz(nil), nil, inflate.Gzip},
		"gzip, two members":  {append(gz(half), gz(big[1<<17:])...), big, inflate.Gzip},
		"gzip, padded":       {append(gz(big), make([]byte, 100000)...), big, inflate.Gzip},
		"gzip, one zero":     {append(gz(big), 0), big, inflate.Gzip},
		"zstd":               {zs(big), big, inflate.Zstd},
		"zstd, two frames":   {append(zs(half), zs(big[1<<17:])...), big, inflate.Zstd},
		"zstd, skippable":    {bytes.Join([][]byte{skippable(3), zs(half), skippable(0), zs(big[1<<17:]), skippable(9000)}, nil), big, inflate.Zstd},
		"zstd, no checksum":  {zs(big, zstd.WithEncoderCRC(false)), big, inflate.Zstd},
		"zstd, single":       {zs(half, zstd.WithSingleSegment(true)), half, inflate.Zstd},
		"zstd, padded":       {append(zs(big), make([]byte, 70000)...), big, inflate.Zstd},
		"zstd, 2 zeros":      {append(zs(big), 0, 0), big, inflate.Zstd},
		"zstd, zeros":        {zs(make([]byte, 1<<20)), make([]byte, 1<<20), inflate.Zstd},
		"zstd, small frames": {bytes.Repeat(zs([]byte("x")), 500), bytes.Repeat([]byte("x"), 500), inflate.Zstd},
	} {
		opt := inflate.Options{StoredDigest: digest.FromBytes(c.stored), StoredSize: int64(len(c.stored)), DiffID: digest.FromBytes(c.raw)}
		for how, r := range map[string]io.Reader{"whole": bytes.NewReader(c.stored), "half": iotest.HalfReader(bytes.NewReader(c.stored)),
			"one byte": iotest.OneByteReader(bytes.NewReader(c.stored)), "data with EOF": iotest.DataErrReader(bytes.NewReader(c.stored))} {
			b, s, err := readAll(t, r, opt)
			if err != nil || !bytes.Equal(b, c.raw) || s.Codec() != c.codec {
				t.Errorf("%s, %s: %d bytes, want %d; %v", name, how, len(b), len(c.raw), err)
				continue
			}
			res, ok := s.Result()
			want := inflate.Result{Codec: c.codec, StoredSize: int64(len(c.stored)), StoredSHA256: sha256.Sum256(c.stored),
				RawSize: int64(len(c.raw)), RawSHA256: sha256.Sum256(c.raw)}
			if !ok || res != want {
				t.Errorf("%s, %s: %v %+v, want %+v", name, how, ok, res, want)
			}
		}
	}
}

func TestWriteTo(t *testing.T) {
	raw := data(1 << 20)
	s, err := inflate.Open(t.Context(), bytes.NewReader(gz(raw)), inflate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var head [10]byte
	io.ReadFull(s, head[:])
	var buf bytes.Buffer
	if n, err := io.Copy(&buf, s); err != nil || n != 1<<20-10 || !bytes.Equal(buf.Bytes(), raw[10:]) {
		t.Error(n, err)
	}
	if _, ok := s.Result(); !ok {
		t.Error("no result")
	}
}

// Every cut of a compressed layer is truncation, whatever else is promised, and what came out before is right.
func TestTruncation(t *testing.T) {
	raw := data(900)
	for name, b := range map[string][]byte{"gzip": gz(raw), "gzip two": append(gz(raw[:100]), gz(raw[100:])...), "zstd": zs(raw),
		"zstd frames": append(append(zs(raw[:100]), skippable(20)...), zs(raw[100:])...)} {
		media := "application/vnd.oci.image.layer.v1.tar+" + strings.Fields(name)[0]
		for n := range b {
			got, _, err := readAll(t, bytes.NewReader(b[:n]), inflate.Options{MediaType: media})
			if !bytes.HasPrefix(raw, got) {
				t.Fatalf("%s cut at %d: other bytes", name, n)
			}
			whole := false // cuts between members leave a shorter valid file: only the digest tells
			switch name {
			case "gzip two":
				whole = n == len(gz(raw[:100]))
			case "zstd frames":
				a := len(zs(raw[:100]))
				whole = n == a || n == a+28
			}
			if whole != (err == nil) || err != nil && !errors.Is(err, abi.ErrTruncated) {
				t.Fatalf("%s cut at %d of %d: %v", name, n, len(b), err)
			}
			opt := inflate.Options{StoredDigest: digest.FromBytes(b), StoredSize: int64(len(b))}
			if _, _, err := readAll(t, bytes.NewReader(b[:n]), opt); !errors.Is(err, abi.ErrTruncated) {
				t.Fatalf("%s cut at %d with a promise: %v", name, n, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	raw := data(100000)
	g, z := gz(raw), zs(raw)
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[(at+len(b))%len(b)] ^= 0x55
		return b
	}
	zeros := make([]byte, 1<<20)
	window := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 31 << 3, 1, 0, 0}
	for name, c := range map[string]struct {
		b    []byte
		lim  inflate.Limits
		want abi.Class
		off  int64 // -1: anything
	}{
		"gzip garbage":         {append(bytes.Clone(g), "garbage"...), inflate.Limits{}, abi.ErrCorrupt, int64(len(g))},
		"gzip zeros, garbage":  {append(append(bytes.Clone(g), 0, 0), 'x'), inflate.Limits{}, abi.ErrCorrupt, int64(len(g) + 2)},
		"gzip, second broken":  {append(bytes.Clone(g), 0x1f, 0x8b, 9, 0, 0, 0, 0, 0, 0, 0), inflate.Limits{}, abi.ErrCorrupt, int64(len(g))},
		"gzip crc":             {flip(g, -6), inflate.Limits{}, abi.ErrCorrupt, int64(len(g))},
		"gzip length":          {flip(g, -2), inflate.Limits{}, abi.ErrCorrupt, int64(len(g))},
		"gzip data":            {flip(g, 10), inflate.Limits{}, abi.ErrCorrupt, -1},
		"zstd garbage":         {append(bytes.Clone(z), "garbage"...), inflate.Limits{}, abi.ErrCorrupt, int64(len(z))},
		"zstd short garbage":   {append(bytes.Clone(z), 'g'), inflate.Limits{}, abi.ErrCorrupt, int64(len(z))},
		"zstd zeros, garbage":  {append(bytes.Clone(z), 0, 0, 0, 0, 1), inflate.Limits{}, abi.ErrCorrupt, int64(len(z) + 4)},
		"zstd checksum":        {flip(z, -1), inflate.Limits{}, abi.ErrCorrupt, -1},
		"zstd data":            {flip(z, 100), inflate.Limits{}, abi.ErrCorrupt, -1},
		"zstd window":          {window, inflate.Limits{}, abi.ErrLimit, 0},
		"zstd block type":      {[]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0, 7, 0, 0}, inflate.Limits{}, abi.ErrCorrupt, 6},
		"zstd dictionary":      {[]byte{0x28, 0xb5, 0x2f, 0xfd, 1, 0, 9, 1, 0, 0}, inflate.Limits{}, abi.ErrUnsupported, -1},
		"zstd reserved":        {[]byte{0x28, 0xb5, 0x2f, 0xfd, 8, 0, 1, 0, 0}, inflate.Limits{}, abi.ErrCorrupt, -1},
		"gzip bomb":            {gz(zeros), inflate.Limits{Raw: 1<<20 - 1}, abi.ErrLimit, -1},
		"gzip ratio":           {gz(zeros), inflate.Limits{Ratio: 10, RatioFloor: 1000}, abi.ErrLimit, -1},
		"zstd bomb":            {zs(zeros), inflate.Limits{Raw: 1000}, abi.ErrLimit, -1},
		"zstd ratio":           {zs(zeros), inflate.Limits{RatioFloor: 1 << 19}, abi.ErrLimit, -1},
		"plain beyond a limit": {zeros, inflate.Limits{Raw: 1000}, abi.ErrLimit, -1},
	} {
		b, s, err := readAll(t, bytes.NewReader(c.b), inflate.Options{Limits: c.lim})
		if abi.ClassOf(err) != c.want {
			t.Errorf("%s: %d bytes, %v; want class %v", name, len(b), err, c.want)
		}
		var fe *abi.FormatError
		if c.off >= 0 && (!errors.As(err, &fe) || fe.Off != c.off) {
			t.Errorf("%s: %v, want offset 0x%x", name, err, c.off)
		}
		if s != nil {
			if _, ok := s.Result(); ok {
				t.Errorf("%s: a result", name)
			}
		}
	}
}

func TestPromises(t *testing.T) {
	raw := data(5000)
	b := gz(raw)
	good := inflate.Options{StoredDigest: digest.FromBytes(b), StoredSize: int64(len(b)), DiffID: digest.FromBytes(raw)}
	for name, c := range map[string]struct {
		edit func(*inflate.Options)
		want abi.Class
		says string
	}{
		"good":     {func(o *inflate.Options) {}, 0, ""},
		"sha512":   {func(o *inflate.Options) { o.StoredDigest = digest.SHA512.FromBytes(b) }, 0, ""},
		"stored":   {func(o *inflate.Options) { o.StoredDigest = digest.FromBytes(raw) }, abi.ErrDigest, string(digest.FromBytes(b))},
		"diff ID":  {func(o *inflate.Options) { o.DiffID = digest.FromBytes(b) }, abi.ErrDigest, string(digest.FromBytes(raw))},
		"larger":   {func(o *inflate.Options) { o.StoredSize-- }, abi.ErrDigest, "promised"},
		"shorter":  {func(o *inflate.Options) { o.StoredSize++ }, abi.ErrTruncated, fmt.Sprint(len(b))},
		"no hash":  {func(o *inflate.Options) { o.DiffID = "sha256:abc" }, abi.ErrInvalid, "abc"},
		"no algor": {func(o *inflate.Options) { o.StoredDigest = "md5:" + digest.Digest(strings.Repeat("a", 32)) }, abi.ErrInvalid, "md5"},
	} {
		opt := good
		c.edit(&opt)
		_, _, err := readAll(t, bytes.NewReader(b), opt)
		if abi.ClassOf(err) != c.want || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want class %v", name, err, c.want)
		}
	}
}

func TestMediaType(t *testing.T) {
	const docker = "application/vnd.docker.image.rootfs.diff.tar"
	for _, c := range []struct {
		media  string
		stored []byte
		warns  bool
		want   abi.Class
	}{
		{docker, gz([]byte("x")), true, 0}, {docker + ".gzip", gz([]byte("x")), false, 0}, {docker + ".gzip", []byte("plain"), true, 0},
		{"application/vnd.oci.image.layer.v1.tar+zstd", zs([]byte("x")), false, 0}, {"application/x-strange", gz(nil), false, 0},
		{"application/vnd.oci.image.layer.v1.tar+gzip", nil, false, abi.ErrTruncated},
		{"application/vnd.oci.image.layer.v1.tar+zstd", []byte("\x28\xb5"), false, abi.ErrTruncated},
		{"application/vnd.oci.image.layer.v1.tar", nil, false, 0},
	} {
		_, s, err := readAll(t, bytes.NewReader(c.stored), inflate.Options{MediaType: c.media})
		if abi.ClassOf(err) != c.want || err == nil && (s.Warning() != "") != c.warns {
			t.Errorf("%s with %q: %v", c.media, c.stored, err)
		}
	}
}

func TestSourceError(t *testing.T) {
	cause := errors.New("wire cut")
	for _, b := range [][]byte{data(1000), gz(data(1000)), zs(data(1000))} {
		for _, n := range []int{0, 2, 100, len(b)} {
			_, _, err := readAll(t, io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(cause)), inflate.Options{})
			if !errors.Is(err, cause) || abi.ClassOf(err) != abi.ErrIO {
				t.Errorf("after %d: %v", n, err)
			}
		}
	}
}

// Close and cancel leave no goroutine (TestMain checks), wherever the reader stands.
func TestCloseAndCancel(t *testing.T) {
	b := gz(data(8 << 20))
	for _, n := range []int64{0, 1, 300 << 10, 8 << 20} {
		s, err := inflate.Open(t.Context(), bytes.NewReader(b), inflate.Options{})
		if err != nil {
			t.Fatal(err)
		}
		io.CopyN(io.Discard, s, n)
		s.Close()
		s.Close()
		if _, err := s.Read(make([]byte, 1)); n < 8<<20 && abi.ClassOf(err) != abi.ErrInvalid {
			t.Error("read after Close:", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := inflate.Open(ctx, bytes.NewReader(b), inflate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Read(make([]byte, 1))
	cancel()
	if _, err := io.Copy(io.Discard, s); !errors.Is(err, context.Canceled) || abi.ClassOf(err) != abi.ErrCanceled {
		t.Error(err)
	}
	s.Close()
	ctx, cancel = context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	pr, pw := io.Pipe()
	go func() {
		<-ctx.Done()
		pw.CloseWithError(ctx.Err())
	}()
	go pw.Write(b[:1000])
	if s, err = inflate.Open(ctx, pr, inflate.Options{}); err == nil {
		_, err = io.Copy(io.Discard, s)
		s.Close()
	}
	if abi.ClassOf(err) != abi.ErrTimeout {
		t.Error(err)
	}
}

// The judges' own files: what gzip and zstd write, we read.
func TestTools(t *testing.T) {
	raw := data(1 << 20)
	for _, args := range [][]string{{"gzip", "-9"}, {"gzip", "-1"}, {"zstd", "-19"}, {"zstd", "-1", "--no-check"}, {"zstd", "--long=27"}, {"zstd", "--ultra", "-22"}} {
		bin, err := exec.LookPath(args[0])
		if err != nil {
			t.Logf("skipped %v: not on this machine", args)
			continue
		}
		cmd := exec.Command(bin, append(args[1:], "-c")...)
		cmd.Stdin = bytes.NewReader(raw)
		b, err := cmd.Output()
		if err != nil {
			t.Fatal(args, err)
		}
		if got, _, err := readAll(t, bytes.NewReader(b), inflate.Options{}); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%v: %d bytes, %v", args, len(got), err)
		}
	}
}

// Any bytes: an error of a known class or the same bytes again from one-byte reads; what gzip of the standard library
// reads without an error, we read to the same bytes.
func FuzzOpen(f *testing.F) {
	for _, b := range [][]byte{nil, []byte("plain"), gz([]byte("hello")), append(gz([]byte("a")), gz([]byte("b"))...), zs([]byte("hello")),
		append(skippable(5), zs(make([]byte, 5000))...), zs(data(3000)), append(gz(nil), 0, 0, 0)} {
		f.Add(b)
	}
	opt := inflate.Options{Limits: inflate.Limits{Raw: 1 << 20, Window: 1 << 20}, BufferBytes: 1000}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, s, err := readAll(t, bytes.NewReader(b), opt)
		switch c := abi.ClassOf(err); {
		case err != nil && !errors.Is(err, abi.ErrCorrupt) && c != abi.ErrLimit && c != abi.ErrUnsupported:
			t.Fatalf("class %v: %v", c, err)
		}
		again, _, err2 := readAll(t, iotest.OneByteReader(bytes.NewReader(b)), opt)
		if fmt.Sprint(err) != fmt.Sprint(err2) || err == nil && !bytes.Equal(got, again) {
			t.Fatalf("whole: %v; one byte at a time: %v", err, err2)
		}
		if s == nil || s.Codec() != inflate.Gzip {
			return
		}
		r, gerr := gzip.NewReader(bytes.NewReader(b))
		if gerr != nil {
			return
		}
		want, gerr := io.ReadAll(io.LimitReader(r, 1<<20+1))
		if gerr == nil && len(want) <= 1<<20 && (err != nil || !bytes.Equal(got, want)) {
			t.Fatalf("compress/gzip reads %d bytes, we %d: %v", len(want), len(got), err)
		}
	})
}

func BenchmarkGzip(b *testing.B) {
	raw := data(32 << 20)
	stored := gz(raw)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		s, err := inflate.Open(context.Background(), bytes.NewReader(stored), inflate.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, s); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// BenchmarkLibrary is the decompressor alone: the mark for BenchmarkGzip.
func BenchmarkLibrary(b *testing.B) {
	raw := data(32 << 20)
	stored := gz(raw)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		r, err := kgzip.NewReader(bytes.NewReader(stored))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
	}
}
