package turbo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

type file struct {
	name, body string
	kind       byte
}

func archive(t testing.TB, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o444, Size: int64(len(f.body)), Typeflag: f.kind}
		if f.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func content(t testing.TB, m Member) string {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(m, 0, m.Size))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What is written is what archive/tar reads, and comes back.
func TestRoundTrip(t *testing.T) {
	for _, c := range []struct{ fs, meta, index string }{{"ext4", "blocks of metadata", "an index"}, {"erofs", "", ""}, {"ext4", strings.Repeat("x", 100_000), ""}} {
		in := Contents{FS: c.fs, Meta: strings.NewReader(c.meta), MetaSize: int64(len(c.meta))}
		want := []file{{name: c.fs + ".fs.meta", body: c.meta}, {name: ".turbo.ociv1"}}
		if c.index != "" {
			in.Index, in.IndexSize = strings.NewReader(c.index), int64(len(c.index))
			want = append(want, file{name: "gzip.meta", body: c.index})
		}
		var out bytes.Buffer
		if err := Write(&out, in); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), archive(t, want...)) {
			t.Error(c.fs, "not the members in their order")
		}
		for _, b := range [][]byte{out.Bytes(), gzipped(t, out.Bytes())} {
			l, err := Read(bytes.NewReader(b), Options{})
			if err != nil || len(l.Notes) > 0 || l.FS != c.fs || content(t, l.Meta) != c.meta || (l.Index != nil) != (c.index != "") {
				t.Fatal(c.fs, l, err)
			}
			if l.Index != nil && content(t, *l.Index) != c.index {
				t.Error("index differs")
			}
		}
	}
}

func TestRefused(t *testing.T) {
	meta, marker := file{name: "ext4.fs.meta", body: "m"}, file{name: ".turbo.ociv1"}
	for name, c := range map[string]struct {
		files []file
		class abi.Class // 0: accepted
		notes int
	}{
		"leading dot":     {[]file{{name: "./ext4.fs.meta", body: "m"}, {name: "./.turbo.ociv1"}}, 0, 0},
		"root directory":  {[]file{{name: "./", kind: tar.TypeDir}, meta, marker}, 0, 0},
		"no marker":       {[]file{meta}, 0, 1},
		"something else":  {[]file{meta, marker, {name: "layer.metadata", body: "x"}}, 0, 1},
		"both systems":    {[]file{{name: "erofs.fs.meta", body: "e"}, meta, marker}, 0, 1},
		"no metadata":     {[]file{marker}, abi.ErrCorrupt, 0},
		"empty":           {nil, abi.ErrCorrupt, 0},
		"metadata twice":  {[]file{meta, meta, marker}, abi.ErrCorrupt, 0},
		"a link":          {[]file{{name: "ext4.fs.meta", kind: tar.TypeSymlink}}, abi.ErrCorrupt, 0},
		"too much":        {[]file{{name: "ext4.fs.meta", body: strings.Repeat("m", 101)}}, abi.ErrLimit, 0},
		"too much in two": {[]file{meta, {name: "gzip.meta", body: strings.Repeat("m", 100)}}, abi.ErrLimit, 0},
	} {
		l, err := Read(bytes.NewReader(gzipped(t, archive(t, c.files...))), Options{MaxBytes: 100})
		if c.class != 0 {
			if l != nil || abi.ClassOf(err) != c.class {
				t.Error(name, err)
			}
			continue
		}
		if err != nil || len(l.Notes) != c.notes || l.FS != "ext4" || content(t, l.Meta) != "m" {
			t.Error(name, l, err)
		}
	}
}

// Every cut is refused, and so is every damage to the checksum.
func TestTruncation(t *testing.T) {
	plain := archive(t, file{name: "ext4.fs.meta", body: strings.Repeat("blocks", 200)}, file{name: ".turbo.ociv1"}, file{name: "gzip.meta", body: "index"})
	b := gzipped(t, plain)
	for cut := range b {
		if l, err := Read(bytes.NewReader(b[:cut]), Options{}); l != nil || !errors.Is(err, abi.ErrCorrupt) {
			t.Fatal(cut, err)
		}
	}
	for cut := 0; cut < len(plain)-2048; cut += 13 {
		if l, err := Read(bytes.NewReader(plain[:cut]), Options{}); l != nil && content(t, l.Meta) != strings.Repeat("blocks", 200) || l == nil && !errors.Is(err, abi.ErrCorrupt) {
			t.Fatal(cut, err)
		}
	}
	bad := bytes.Clone(b)
	bad[len(bad)-6] ^= 1
	if _, err := Read(bytes.NewReader(bad), Options{}); abi.ClassOf(err) != abi.ErrCorrupt {
		t.Error(err)
	}
}

var errDisk = errors.New("the disk is gone")

type failing struct{ memory }

func (*failing) Write([]byte) (int, error) { return 0, errDisk }

type failingReader struct{ r io.Reader }

func (f failingReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err == io.EOF {
		err = errDisk
	}
	return n, err
}

// Errors of the caller's readers and writers are ErrIO, whatever they are wrapped in.
func TestOuterErrors(t *testing.T) {
	b := gzipped(t, archive(t, file{name: "ext4.fs.meta", body: "blocks"}))
	_, err := Read(bytes.NewReader(b), Options{NewSpool: func() Spool { return &failing{} }})
	if abi.ClassOf(err) != abi.ErrIO || !errors.Is(err, errDisk) {
		t.Error(err)
	}
	for _, cut := range []int{0, 1, 30, len(b)} {
		if _, err := Read(failingReader{bytes.NewReader(b[:cut])}, Options{}); abi.ClassOf(err) != abi.ErrIO || !errors.Is(err, errDisk) {
			t.Error(cut, err)
		}
	}
	one := func() io.Reader { return strings.NewReader("m") }
	for name, c := range map[string]struct {
		c     Contents
		w     io.Writer
		class abi.Class
	}{
		"file system": {Contents{FS: "xfs", Meta: one(), MetaSize: 1}, io.Discard, abi.ErrInvalid},
		"too short":   {Contents{FS: "ext4", Meta: one(), MetaSize: 2}, io.Discard, abi.ErrInvalid},
		"too long":    {Contents{FS: "ext4", Meta: one()}, io.Discard, abi.ErrInvalid},
		"negative":    {Contents{FS: "ext4", Meta: one(), MetaSize: -1}, io.Discard, abi.ErrInvalid},
		"reader":      {Contents{FS: "ext4", Meta: failingReader{one()}, MetaSize: 1}, io.Discard, abi.ErrIO},
		"writer":      {Contents{FS: "ext4", Meta: one(), MetaSize: 1}, &failing{}, abi.ErrIO},
	} {
		if err := Write(c.w, c.c); abi.ClassOf(err) != c.class {
			t.Error(name, err)
		}
	}
}

// law: any bytes are refused with a known class, or hold members that come back when they are written again.
func FuzzRead(f *testing.F) {
	good := archive(f, file{name: "ext4.fs.meta", body: "blocks"}, file{name: ".turbo.ociv1"}, file{name: "gzip.meta", body: "index"})
	f.Add(good)
	f.Add(gzipped(f, good))
	f.Add(archive(f, file{name: "erofs.fs.meta", body: "blocks"}, file{name: "x"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Read(bytes.NewReader(b), Options{MaxBytes: 1 << 20})
		if err != nil {
			vectors.Known(t, err)
			return
		}
		c := Contents{FS: l.FS, Meta: io.NewSectionReader(l.Meta, 0, l.Meta.Size), MetaSize: l.Meta.Size}
		if l.Index != nil {
			c.Index, c.IndexSize = io.NewSectionReader(l.Index, 0, l.Index.Size), l.Index.Size
		}
		var out bytes.Buffer
		if err := Write(&out, c); err != nil {
			t.Fatal(err)
		}
		again, err := Read(&out, Options{})
		if err != nil || len(again.Notes) > 0 || again.FS != l.FS || content(t, again.Meta) != content(t, l.Meta) {
			t.Fatal(again, err)
		}
	})
}
