package tarshell

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

func wrap(t testing.TB, payload []byte, plain bool) []byte {
	t.Helper()
	var buf bytes.Buffer
	open := NewWriter
	if plain {
		open = NewPlainWriter
	}
	w, err := open(&buf, int64(len(payload)))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(w, bytes.NewReader(payload)); err != nil || n != int64(len(payload)) {
		t.Fatal(n, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Upstream's layers are taken out of their shells, and put back byte for byte.
func TestUpstream(t *testing.T) {
	for name, size := range map[string]int64{"hello-world.overlaybd": 639491, "layer1.overlaybd": 639470, "layer2.overlaybd": 582913} {
		b := vectors.Layer(t, name)
		s, ok, err := Find(bytes.NewReader(b), int64(len(b)))
		if err != nil || !ok || s != (Shell{HeaderSize, size, Name}) {
			t.Fatal(name, s, ok, err)
		}
		if !bytes.Equal(wrap(t, b[s.Offset:s.Offset+s.Size], false), b) || TotalSize(size) != int64(len(b)) {
			t.Error(name, "differs")
		}
		if errs, notes := Check(bytes.NewReader(b), int64(len(b))); len(errs)+len(notes) > 0 {
			t.Error(name, errs, notes)
		}
	}
	meta := vectors.Layer(t, "ext4.fs.meta")
	if s, ok, err := Find(bytes.NewReader(meta), int64(len(meta))); ok || err != nil || s != (Shell{}) {
		t.Error("a bare ZFile:", s, ok, err)
	}
}

// archive/tar is the judge of what we write, and the author of the plain form.
func TestArchiveTar(t *testing.T) {
	for _, n := range []int{0, 1, 511, 512, 513, 100_000} {
		payload := bytes.Repeat([]byte("ZFile"), n/5+1)[:n]
		for _, plain := range []bool{false, true} {
			b := wrap(t, payload, plain)
			r := tar.NewReader(bytes.NewReader(b))
			h, err := r.Next()
			if err != nil || h.Name != Name || h.Size != int64(n) || h.Typeflag != tar.TypeReg {
				t.Fatal(h, err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, payload) {
				t.Error(n, err)
			}
			if _, err := r.Next(); err != io.EOF {
				t.Error(err)
			}
			s, ok, err := Find(bytes.NewReader(b), int64(len(b)))
			if err != nil || !ok || !bytes.Equal(b[s.Offset:s.Offset+s.Size], payload) {
				t.Error(n, plain, s, ok, err)
			}
			if errs, notes := Check(bytes.NewReader(b), int64(len(b))); len(errs)+len(notes) > 0 {
				t.Error(n, plain, errs, notes)
			}
		}
		var want bytes.Buffer
		w := tar.NewWriter(&want)
		if err := errors.Join(w.WriteHeader(&tar.Header{Name: Name, Mode: 0o444, Size: int64(n), Typeflag: tar.TypeReg}), second(w.Write(payload)), w.Close()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(wrap(t, payload, true), want.Bytes()) {
			t.Error(n, "plain form differs from archive/tar's")
		}
	}
}

func second(_ int, err error) error { return err }

func TestBigSizes(t *testing.T) {
	for _, n := range []int64{1<<33 - 1, 1 << 33, 1 << 40, 1<<62 - 1, 98, 99, 990} {
		h := Header(n)
		if got, err := paxSize(bytes.TrimRight(h[512:1024], "\x00")); err != nil || got != n {
			t.Error(n, got, err)
		}
		tr, err := tar.NewReader(bytes.NewReader(h)).Next()
		if err != nil || tr.Size != n {
			t.Error(n, tr, err)
		}
	}
	if _, err := PlainHeader(1 << 33); !errors.Is(err, abi.ErrInvalid) {
		t.Error(err)
	}
	if _, err := NewWriter(io.Discard, -1); !errors.Is(err, abi.ErrInvalid) {
		t.Error(err)
	}
}

func TestNotAShell(t *testing.T) {
	gnu := wrap(t, []byte("x"), true)
	copy(gnu[257:], "ustar  \x00")
	sum := wrap(t, []byte("x"), false)
	sum[3] ^= 1
	for name, b := range map[string][]byte{"empty": nil, "short": make([]byte, 511), "zeros": make([]byte, 512), "gnu": gnu, "checksum": sum} {
		if _, ok, err := Find(bytes.NewReader(b), int64(len(b))); ok || err != nil {
			t.Error(name, ok, err)
		}
		if errs, _ := Check(bytes.NewReader(b), int64(len(b))); len(errs) == 0 {
			t.Error(name, "check finds nothing")
		}
	}
}

func TestSignedChecksum(t *testing.T) {
	b := wrap(t, []byte("x"), true)
	b[20] = 0xe9
	_, signed := headerView(b).sums()
	copy(b[148:], blankOctal(signed))
	if _, ok, err := Find(bytes.NewReader(b), int64(len(b))); !ok || err != nil {
		t.Error(ok, err)
	}
}

func TestTruncation(t *testing.T) {
	payload := []byte("some payload")
	for _, plain := range []bool{false, true} {
		b := wrap(t, payload, plain)
		size := int64(len(b))
		start := size - 512 - endSize
		for _, cut := range vectors.Edges(size, 0, 512, 1024, start, start+int64(len(payload)), size-endSize, size) {
			s, ok, err := Find(bytes.NewReader(b[:cut]), cut)
			switch {
			case cut < 512:
				if ok || err != nil {
					t.Error(cut, s, err)
				}
			case cut < start+int64(len(payload)):
				if ok || !errors.Is(err, abi.ErrTruncated) || s != (Shell{}) {
					t.Errorf("cut at %d: %v %v", cut, s, err)
				}
			default: // the runtime does not look at what follows, Check does
				if _, notes := Check(bytes.NewReader(b[:cut]), cut); !ok || err != nil || len(notes) != 1 || !errors.Is(notes[0], abi.ErrTruncated) {
					t.Error(cut, ok, err, notes)
				}
			}
			if cut < start {
				if _, _, err := Find(vectors.Failing{B: b, At: cut}, size); !errors.Is(err, vectors.ErrRead) || abi.ClassOf(err) != abi.ErrIO {
					t.Errorf("fails at %d: %v", cut, err)
				}
			}
		}
		for _, r := range vectors.Odd(b) {
			if _, ok, err := Find(r, r.Size); !ok || err != nil {
				t.Error(r.Name, ok, err)
			}
		}
		b[size-1] = 7
		if _, notes := Check(bytes.NewReader(b), size); len(notes) != 1 {
			t.Error(notes)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	for name, f := range map[string]func(w *Writer) error{
		"too much":   func(w *Writer) error { return second(w.Write(make([]byte, 11))) },
		"too little": func(w *Writer) error { w.Write(make([]byte, 9)); return w.Close() },
		"twice":      func(w *Writer) error { w.Write(make([]byte, 10)); w.Close(); return w.Close() },
		"closed":     func(w *Writer) error { w.Write(make([]byte, 10)); w.Close(); return second(w.Write([]byte{1})) },
	} {
		w, err := NewWriter(io.Discard, 10)
		if err != nil {
			t.Fatal(err)
		}
		if err := f(w); !errors.Is(err, abi.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewWriter(failing{}, 1); !errors.Is(err, vectors.ErrRead) || abi.ClassOf(err) != abi.ErrIO {
		t.Error(err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, vectors.ErrRead }
