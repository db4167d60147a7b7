package tarshell

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"

	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

// law: any bytes are refused with a known class, or are no shell, or have a payload inside the file that comes back from a shell
// of ours, in which archive/tar finds it too.
func findOrRefuse(t *testing.T, b []byte) {
	s, ok, err := Find(bytes.NewReader(b), int64(len(b)))
	errs, _ := Check(bytes.NewReader(b), int64(len(b)))
	if ok != (len(errs) == 0) {
		t.Fatal("check says", errs, "find", err)
	}
	if err != nil {
		vectors.Known(t, err)
	}
	if !ok {
		if s != (Shell{}) {
			t.Fatal("half a result")
		}
		return
	}
	if s.Offset != HeaderSize && s.Offset != PlainSize || s.Size < 0 || s.Offset+s.Size > int64(len(b)) {
		t.Fatalf("%+v leaves the file of %d bytes", s, len(b))
	}
	payload := b[s.Offset : s.Offset+s.Size]
	again := wrap(t, payload, false)
	s2, ok, err := Find(bytes.NewReader(again), int64(len(again)))
	if !ok || err != nil || s2.Size != s.Size {
		t.Fatal(s2, ok, err)
	}
	r := tar.NewReader(bytes.NewReader(again))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, payload) {
		t.Fatal(err)
	}
}

func FuzzFind(f *testing.F) {
	for _, v := range vectors.Load(f, "testdata") {
		f.Add(v.Data)
	}
	f.Fuzz(findOrRefuse)
}

func FuzzRegion(f *testing.F) {
	good := wrap(f, bytes.Repeat([]byte("1234"), 25), false)
	for _, d := range damages {
		f.Add(uint16(d.off), []byte(d.value), d.sign >= 0)
	}
	f.Fuzz(func(t *testing.T, off uint16, patch []byte, signed bool) {
		b := bytes.Clone(good)
		copy(b[int(off)%len(b):], patch)
		if signed {
			for _, at := range []int{0, 1024} {
				copy(b[at+148:], blankOctal(sumOf(b[at:at+512])))
			}
		}
		findOrRefuse(t, b)
	})
}

func FuzzWriter(f *testing.F) {
	f.Add([]byte("payload"), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, payload []byte, plain bool) {
		b := wrap(t, payload, plain)
		s, ok, err := Find(bytes.NewReader(b), int64(len(b)))
		if !ok || err != nil || !bytes.Equal(b[s.Offset:s.Offset+s.Size], payload) {
			t.Fatal(s, ok, err)
		}
		findOrRefuse(t, b)
	})
}
