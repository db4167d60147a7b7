package lsmt

import (
	"bytes"
	"errors"
	"math/rand"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

// appendFiles makes the two files of append mode from ops in the order of writing.
func appendFiles(vsize int64, ops []op) (data, index []byte) {
	data = encodeHeader(Header{Flags: flagHeader | flagData, VirtualSize: vsize})
	index = encodeHeader(Header{Flags: flagHeader, VirtualSize: vsize, IndexOffset: HeaderSize})
	for _, o := range ops {
		index = appendEntry(index, Segment{Start: o.start, Length: uint16(o.n), Source: uint64(len(data) / SectorSize), Zero: o.fill == 0})
		if o.fill != 0 {
			data = append(data, body(o, o.start, o.n)...)
		}
	}
	return data, index
}

func openAppend(data, index []byte, o Options) (*Layer, error) {
	return OpenAppend(bytes.NewReader(data), int64(len(data)), bytes.NewReader(index), int64(len(index)), o)
}

func TestAppend(t *testing.T) {
	for seed := range int64(30) {
		r := rand.New(rand.NewSource(seed))
		var ops []op
		for range r.Intn(60) {
			start := uint64(r.Intn(sectors))
			ops = append(ops, op{start, min(1+uint64(r.Intn(40)), sectors-start), byte(r.Intn(4) * 50)})
		}
		m := newModel(sectors)
		m.apply(ops)
		data, index := appendFiles(sectors*SectorSize, ops)
		l, err := openAppend(data, index, Options{})
		if err != nil {
			t.Fatal(err)
		}
		wantModel(t, stack(t, l), m)
	}
}

func TestAppendRefuses(t *testing.T) {
	data, index := appendFiles(1<<20, []op{{0, 8, 1}, {4, 2, 0}})
	for _, cut := range vectors.Edges(int64(len(index)), HeaderSize, HeaderSize+16, int64(len(index))) {
		if _, err := openAppend(data, index[:cut], Options{}); (cut-HeaderSize)%16 == 0 && cut >= HeaderSize {
			if err != nil {
				t.Errorf("index cut at %d, where it may end: %v", cut, err)
			}
		} else if !errors.Is(err, abi.ErrTruncated) {
			t.Errorf("index cut at %d: %v", cut, err)
		}
	}
	if _, err := openAppend(data[:HeaderSize+512], index, Options{}); !errors.Is(err, abi.ErrCorrupt) {
		t.Error("data cut:", err)
	}
	if _, err := openAppend(index, index, Options{}); !errors.Is(err, abi.ErrCorrupt) {
		t.Error("index as data:", err)
	}
	if _, err := openAppend(data, data, Options{}); !errors.Is(err, abi.ErrCorrupt) {
		t.Error("data as index:", err)
	}
	if _, err := openAppend(data, index, Options{MaxEntries: 1}); !errors.Is(err, abi.ErrLimit) {
		t.Error("limit:", err)
	}
}

func TestSealedAppendFile(t *testing.T) {
	// What overlaybd-commit --seal leaves: the writable file's header, the index padded to 512 bytes with anything, a trailer.
	data, _ := appendFiles(8192, []op{{0, 8, 1}, {8, 2, 2}})
	at := int64(len(data))
	data = appendEntry(data, Segment{Start: 0, Length: 8, Source: 8})
	data = appendEntry(data, Segment{Start: 8, Length: 2, Source: 16})
	data = append(data, bytes.Repeat([]byte{0xa5}, 512-32)...)
	data = append(data, encodeHeader(Header{Flags: flagData | flagSealed, VirtualSize: 8192, IndexOffset: at, IndexSize: 2})...)
	if got := readAll(t, stack(t, open(t, data))); !bytes.Equal(got[:4096], body(op{0, 8, 1}, 0, 8)) {
		t.Error("content")
	}
	if errs, notes := Check(bytes.NewReader(data), int64(len(data)), Options{}); len(errs)+len(notes) > 0 {
		t.Error(errs, notes)
	}
}

func TestSparse(t *testing.T) {
	m := newModel(sectors)
	m.apply([]op{{0, 9, 1}, {100, 50, 2}})
	file := append(encodeHeader(Header{Flags: flagHeader | flagData | flagSparse, VirtualSize: sectors * SectorSize}), m.data...)
	present := []Range{{0, HeaderSize + 8*SectorSize + 1}, {HeaderSize + 100*SectorSize, 50 * SectorSize}}
	l, err := OpenSparse(bytes.NewReader(file), int64(len(file)), present, Options{})
	if err != nil {
		t.Fatal(err)
	}
	wantModel(t, stack(t, l), m)
	all, err := OpenSparse(bytes.NewReader(file), int64(len(file)), nil, Options{})
	if err != nil || !bytes.Equal(readAll(t, stack(t, all)), m.data) {
		t.Error(err)
	}
	if _, err := OpenSparse(bytes.NewReader(file[:len(file)-1]), int64(len(file)-1), nil, Options{}); !errors.Is(err, abi.ErrTruncated) {
		t.Error(err)
	}
	if _, err := OpenSparse(bytes.NewReader(file), int64(len(file)), []Range{{0, 1 << 62}}, Options{}); !errors.Is(err, abi.ErrInvalid) {
		t.Error(err)
	}
}

// warp makes a warp layer over target and the layer's options.
func warp(t testing.TB, target []byte) ([]byte, Options) {
	t.Helper()
	var buf bytes.Buffer
	w, err := NewWriter(&buf, Config{VirtualSize: 100 * SectorSize, Warp: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{w.Data(0, body(op{fill: 7}, 0, 2)), w.Remote(10*SectorSize, 2*SectorSize, SectorSize), w.Zero(20*SectorSize, SectorSize)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), Options{Target: bytes.NewReader(target), TargetSize: int64(len(target))}
}

func TestWarp(t *testing.T) {
	target := bytes.Repeat([]byte("target! "), 128+60)[:2*SectorSize+1] // the last sector has one byte
	b, o := warp(t, target)
	if len(b) != 2*HeaderSize+2*SectorSize+3*16 {
		t.Error("index is padded:", len(b))
	}
	l, err := Open(bytes.NewReader(b), int64(len(b)), o)
	if err != nil {
		t.Fatal(err)
	}
	d := stack(t, l, open(t, write(t, Config{}, []op{{50, 1, 3}}, 1)))
	want := make([]byte, 100*SectorSize)
	copy(want, body(op{fill: 7}, 0, 2))
	copy(want[10*SectorSize:], target[SectorSize:])
	copy(want[50*SectorSize:], body(op{fill: 3}, 50, 1))
	if !bytes.Equal(readAll(t, d), want) {
		t.Error("content")
	}
	var again bytes.Buffer
	if _, err := Commit(&again, stack(t, l), Config{Warp: true}); err != nil || !bytes.Equal(again.Bytes(), b) {
		t.Error("commit of a warp layer:", err)
	}
	o.TargetSize = 2 * SectorSize
	if _, err := Open(bytes.NewReader(b), int64(len(b)), o); !errors.Is(err, abi.ErrCorrupt) {
		t.Error("target too short:", err)
	}
	w, _ := NewWriter(&again, Config{Warp: true})
	w.Remote(0, 512, 512)
	if _, err := w.Close(); !errors.Is(err, abi.ErrInvalid) {
		t.Error("only remote:", err)
	}
}
