package zfile

import (
	"bytes"
	"io"
	"testing"

	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

// law: any bytes are refused with a known class by Open, or by the first read of a bad block, which Check then finds too; or the
// content is read, and what is compressed from it reads the same.
func readOrRefuse(t *testing.T, b []byte) {
	o := Options{MaxBlocks: 1 << 12}
	f, err := Open(bytes.NewReader(b), int64(len(b)), o)
	errs, _ := Check(bytes.NewReader(b), int64(len(b)), o)
	if err != nil {
		vectors.Known(t, err)
		if f != nil || len(errs) == 0 {
			t.Fatal("half a result, or a check that finds nothing", errs)
		}
		return
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if (err != nil) != (len(errs) > 0) {
		t.Fatalf("read says %v, check %v", err, errs)
	}
	if err != nil {
		vectors.Known(t, err)
		return
	}
	if int64(len(got)) != f.Size() {
		t.Fatal("short", len(got), f.Size())
	}
	one, _ := compress(t, Config{}, 2, got, 1<<20)
	back := make([]byte, len(got))
	if n, err := open(t, one).ReadAt(back, 0); len(got) > 0 && (n != len(got) || err != nil || !bytes.Equal(back, got)) {
		t.Fatal(n, err)
	}
}

func FuzzOpen(f *testing.F) {
	for _, v := range vectors.Load(f, "testdata") {
		f.Add(v.Data)
	}
	f.Fuzz(readOrRefuse)
}

func FuzzRegion(f *testing.F) {
	good, h := goodForVectors(f, LZ4)
	for _, d := range damages {
		f.Add(uint32(d.at(good, h)), d.value, d.sign)
	}
	f.Fuzz(func(t *testing.T, off uint32, patch []byte, signed bool) {
		b := bytes.Clone(good)
		copy(b[int(off)%len(b):], patch)
		if signed {
			sign(b, h)
		}
		readOrRefuse(t, b)
	})
}

// law: content comes back, whatever the options and cuts; workers do not change a byte.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("some content"), uint16(900), uint8(0), uint16(7))
	f.Add([]byte{0}, uint16(60000), uint8(5), uint16(4096))
	f.Fuzz(func(t *testing.T, p []byte, times uint16, kind uint8, step uint16) {
		in := bytes.Repeat(p, int(times)+1)
		in = in[:min(len(in), 600_000)]
		c := Config{Algorithm: LZ4 + Algorithm(kind&1), BlockSize: 4096 << (kind >> 1 & 3), NoVerify: kind&8 != 0}
		b, info := compress(t, c, 1, in, int(step)+1)
		if again, _ := compress(t, c, 3, in, 1<<20); !bytes.Equal(again, b) {
			t.Fatal("workers change the output")
		}
		copy(b, info.Header)
		got := make([]byte, len(in)+1)
		if n, err := open(t, b).ReadAt(got, 0); n != len(in) || err != io.EOF || !bytes.Equal(got[:n], in) {
			t.Fatal(n, err)
		}
		if errs, notes := Check(bytes.NewReader(b), int64(len(b)), Options{}); len(errs)+len(notes) > 0 {
			t.Fatal(errs, notes)
		}
	})
}
