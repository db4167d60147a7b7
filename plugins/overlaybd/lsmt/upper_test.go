package lsmt

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"testing"

	"github.com/convhost/convhost/abi"
)

// memFile is an UpperFile.
type memFile struct{ b []byte }

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.b).ReadAt(p, off)
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(f.b) {
		f.b = append(f.b, make([]byte, need-len(f.b))...)
	}
	return copy(f.b[off:], p), nil
}

func (f *memFile) Sync() error { return nil }

func (f *memFile) size() int64 { return int64(len(f.b)) }

// upperCase applies operations to an Upper and to plain bytes, and compares them on every way of reading them again.
func upperCase(t *testing.T, size int64, ops []byte) {
	base := make([]byte, size)
	rand.New(rand.NewSource(size)).Read(base)
	want := bytes.Clone(base)
	data, index := new(memFile), new(memFile)
	u, err := CreateUpper(bytes.NewReader(base), data, index, Config{VirtualSize: size, Comment: "of a test"})
	if err != nil {
		t.Fatal(err)
	}
	for len(ops) >= 4 {
		off := int64(ops[0])<<8 | int64(ops[1])
		off = off * 64 % size
		n := min(int64(ops[2])*256+int64(ops[3]), size-off)
		fill := ops[3]
		switch ops[0] % 8 {
		case 0:
			err = u.Zero(off, n)
			clear(want[off : off+n])
		case 1:
			u, err = OpenUpper(bytes.NewReader(base), size, data, data.size(), index, index.size())
		default:
			_, err = u.WriteAt(bytes.Repeat([]byte{fill}, int(n)), off)
			copy(want[off:off+n], bytes.Repeat([]byte{fill}, int(n)))
		}
		if err != nil {
			t.Fatal(err)
		}
		ops = ops[4:]
	}
	sameBytes(t, "the upper", u, want)
	if u, err = OpenUpper(bytes.NewReader(base), size, data, data.size(), index, index.size()); err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "the upper that was opened again", u, want)
	l, err := OpenAppend(data, data.size(), index, index.size(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	lower, err := Open(bytes.NewReader(baseLayer(t, base)), int64(len(baseLayer(t, base))), Options{})
	if err != nil {
		t.Fatal(err)
	}
	dev, err := Stack(lower, l)
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "the stack", dev, want)
	var sealed bytes.Buffer
	top, err := Stack(l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Commit(&sealed, top, Config{}); err != nil {
		t.Fatal(err)
	}
	s := open(t, sealed.Bytes())
	if dev, err = Stack(lower, s); err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "the committed stack", dev, want)
}

func baseLayer(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, Config{VirtualSize: int64(len(b))})
	if err == nil {
		err = w.Data(0, b)
	}
	if err == nil {
		_, err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func sameBytes(t *testing.T, what string, r io.ReaderAt, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := r.ReadAt(got, 0); n != len(got) {
		t.Fatalf("%s: %d bytes, %v", what, n, err)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %d, want %d", what, i, got[i], want[i])
		}
	}
	for _, cut := range []int{1, 511, 4097} { // and in the middle of blocks
		if n, err := r.ReadAt(got[:cut], int64(len(want)-cut)); n != cut || !bytes.Equal(got[:cut], want[len(want)-cut:]) {
			t.Errorf("%s: the last %d bytes: %d, %v", what, cut, n, err)
		}
	}
}

func TestUpper(t *testing.T) {
	for seed := range int64(40) {
		r := rand.New(rand.NewSource(seed))
		ops := make([]byte, 4*(1+r.Intn(60)))
		r.Read(ops)
		upperCase(t, []int64{1 << 20, 1<<20 + 512, 4608, 3<<20 + 1024}[seed%4], ops)
	}
}

func FuzzUpper(f *testing.F) {
	f.Add([]byte{2, 0, 16, 0, 0, 0, 32, 0, 1, 0, 0, 0, 3, 7, 1, 1})
	f.Fuzz(func(t *testing.T, ops []byte) { upperCase(t, 1<<18+512, ops[:min(len(ops), 400)]) })
}

// Writing the same blocks again does not make the files longer, and writing in order takes one entry for 8 MiB.
func TestUpperGrowth(t *testing.T) {
	data, index := new(memFile), new(memFile)
	u, err := CreateUpper(bytes.NewReader(make([]byte, 1<<24)), data, index, Config{VirtualSize: 1 << 24})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for off := int64(0); off < 4<<20; off += 4096 {
			if _, err := u.WriteAt(bytes.Repeat([]byte{1}, 4096), off); err != nil {
				t.Fatal(err)
			}
		}
	}
	if data.size() != 4<<20+HeaderSize || index.size() != HeaderSize+entrySize {
		t.Errorf("files have %d and %d bytes", data.size(), index.size())
	}
	if err := u.Zero(0, 1<<24); err != nil {
		t.Fatal(err)
	}
	if index.size() > HeaderSize+5*entrySize {
		t.Errorf("the index has %d bytes", index.size())
	}
}

// What a power failure cut off is dropped; what was written before is there.
func TestUpperCutOff(t *testing.T) {
	base := make([]byte, 1<<20)
	data, index := new(memFile), new(memFile)
	u, err := CreateUpper(bytes.NewReader(base), data, index, Config{VirtualSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for i, off := range []int64{0, 65536, 8192} {
		if _, err := u.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 4096), off); err != nil {
			t.Fatal(err)
		}
	}
	for name, cut := range map[string][2]int64{
		"data":  {HeaderSize + 2*4096, index.size()},
		"index": {data.size(), index.size() - 5},
	} {
		u, err := OpenUpper(bytes.NewReader(base), 1<<20, data, cut[0], index, cut[1])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b := make([]byte, 3)
		for i, off := range []int64{0, 65536, 8192} {
			if _, err := u.ReadAt(b[i:i+1], off); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(b, []byte{1, 2, 0}) {
			t.Errorf("%s: blocks hold %v", name, b)
		}
	}
}

func TestUpperRefuses(t *testing.T) {
	base := bytes.NewReader(make([]byte, 1<<20))
	for name, c := range map[string]struct {
		ops   []op
		vsize int64
		class abi.Class
	}{
		"other size":    {nil, 2 << 20, abi.ErrCorrupt},
		"half a block":  {[]op{{4, 4, 1}}, 1 << 20, abi.ErrUnsupported},
		"behind device": {[]op{{2048, 8, 1}}, 1 << 20, abi.ErrCorrupt},
	} {
		data, index := appendFiles(c.vsize, c.ops)
		_, err := OpenUpper(base, 1<<20, &memFile{data}, int64(len(data)), &memFile{index}, int64(len(index)))
		if !errors.Is(err, c.class) {
			t.Errorf("%s: %v, want %v", name, err, c.class)
		}
	}
	data, index := new(memFile), new(memFile)
	u, err := CreateUpper(base, data, index, Config{VirtualSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.WriteAt(make([]byte, 2), 1<<20-1); !errors.Is(err, abi.ErrInvalid) {
		t.Errorf("a write behind the end: %v", err)
	}
	if err := u.Zero(1<<20, 1); !errors.Is(err, abi.ErrInvalid) {
		t.Errorf("zeros behind the end: %v", err)
	}
}
