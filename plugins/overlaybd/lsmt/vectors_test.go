package lsmt

import (
	"bytes"
	"encoding/binary"
	"flag"
	"testing"

	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

var update = flag.Bool("update", false, "write testdata/bad anew")

// Places in the layer that goodForVectors makes.
const (
	vecIndex   = HeaderSize + 12*SectorSize
	vecTrailer = vecIndex + 256*entrySize
)

func goodForVectors(t testing.TB) []byte {
	b := write(t, Config{VirtualSize: 1 << 20}, []op{{0, 8, 1}, {16, 4, 2}, {64, 100, 0}}, 64)
	if len(b) != vecTrailer+HeaderSize {
		t.Fatal(len(b))
	}
	return b
}

// damages changes one field each; the vectors are made from them.
var damages = []struct {
	name, expect, field string
	off                 int
	value               []byte
}{
	{"header-magic", "corrupt", "header.magic", 4, []byte{9}},
	{"header-signature", "corrupt", "header.magic", 23, []byte{0}},
	{"header-is-a-trailer", "corrupt", "header.flags", offFlags, []byte{6}},
	{"header-of-an-index", "corrupt", "header.flags", offFlags, []byte{1}},
	{"header-virtual-size", "corrupt", "header.virtual_size", offVirtual + 7, []byte{0x80}},
	{"trailer-magic", "truncated", "trailer.magic", vecTrailer, []byte{0}},
	{"trailer-is-a-header", "corrupt", "trailer.flags", vecTrailer + offFlags, []byte{7}},
	{"trailer-not-sealed", "corrupt", "trailer.flags", vecTrailer + offFlags, []byte{2}},
	{"trailer-of-an-index", "corrupt", "trailer.flags", vecTrailer + offFlags, []byte{4}},
	{"index-offset-odd", "corrupt", "trailer.index_offset", vecTrailer + offIndex, []byte{1}},
	{"index-offset-in-header", "corrupt", "trailer.index_offset", vecTrailer + offIndex, []byte{0, 2}},
	{"index-offset-behind-trailer", "corrupt", "trailer.index_offset", vecTrailer + offIndex + 4, []byte{1}},
	{"index-offset-huge", "corrupt", "trailer.index_offset", vecTrailer + offIndex + 7, []byte{0xff}},
	{"index-size-too-big", "corrupt", "trailer.index_size", vecTrailer + offEntries, []byte{1, 1}},
	{"index-size-over-limit", "limit", "trailer.index_size", vecTrailer + offEntries, []byte{0x41, 0x42, 0x0f}},
	{"index-size-wraps", "limit", "trailer.index_size", vecTrailer + offEntries + 7, []byte{0x10}},
	{"entry-overlaps", "corrupt", "index entry start", vecIndex + 16, []byte{7}},
	{"entry-order", "corrupt", "index entry start", vecIndex, []byte{30}},
	{"entry-without-length", "corrupt", "index entry length", vecIndex + 16 + 6, []byte{0, 0}},
	{"entry-past-the-last-sector", "corrupt", "index entry end", vecIndex, []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0x23}},
	{"entry-source-in-header", "corrupt", "index entry source", vecIndex + 8, []byte{7}},
	{"entry-source-in-index", "corrupt", "index entry source", vecIndex + 8, []byte{13}},
	{"entry-source-huge", "corrupt", "index entry source", vecIndex + 8 + 6, []byte{0x7f}},
	{"zeros-source-behind-data", "corrupt", "index entry source", vecIndex + 32 + 8, []byte{21}},
}

func TestVectors(t *testing.T) {
	if *update {
		vectors.Save(t, "testdata", vectors.Vector{Name: "good", Format: "lsmt", Expect: "ok", MadeBy: "the writer of this package", Data: goodForVectors(t)})
		for _, d := range damages {
			b := goodForVectors(t)
			copy(b[d.off:], d.value)
			vectors.Save(t, "testdata", vectors.Vector{Name: d.name, Format: "lsmt", Expect: d.expect, Field: d.field, MadeBy: "by hand, one field changed", Data: b})
		}
	}
	all := vectors.Load(t, "testdata")
	if len(all) != len(damages)+1 {
		t.Errorf("%d vectors, want %d", len(all), len(damages)+1)
	}
	for _, v := range all {
		r, size := bytes.NewReader(v.Data), int64(len(v.Data))
		l, err := Open(r, size, Options{})
		v.Check(t, err)
		if (l == nil) != (err != nil) {
			t.Errorf("%s: half a result", v.Name)
		}
		errs, _ := Check(r, size, Options{})
		if (len(errs) > 0) != (v.Expect != "ok") {
			t.Errorf("%s: check says %v", v.Name, errs)
		}
		if len(errs) > 0 {
			v.Check(t, errs[0])
		}
	}
}

func TestNotes(t *testing.T) {
	for _, c := range []struct {
		field string
		off   int
	}{
		{"header.size", offSize}, {"header.flags", offFlags + 3}, {"header.uuid", offUUID}, {"header.parent_uuid", offParent + 36},
		{"header.version", offVersion}, {"header.reserved", offRes}, {"header padding", headerUsed}, {"header padding", 4095},
		{"trailer.virtual_size", vecTrailer + offVirtual + 2}, {"trailer.reserved", vecTrailer + offRes},
		{"index entry tag", vecIndex + 15}, {"padding entry", vecIndex + 4*16 + 8},
	} {
		b := goodForVectors(t)
		b[c.off] ^= 0x10
		errs, notes := Check(bytes.NewReader(b), int64(len(b)), Options{})
		if len(errs) != 0 || len(notes) == 0 {
			t.Errorf("%s: %v, %v", c.field, errs, notes)
			continue
		}
		vectors.Vector{Name: c.field, Expect: "corrupt", Field: c.field}.Check(t, notes[0])
		if _, err := Open(bytes.NewReader(b), int64(len(b)), Options{}); err != nil {
			t.Errorf("%s: %v", c.field, err)
		}
	}
	b := goodForVectors(t)
	binary.LittleEndian.PutUint64(b[vecIndex+3*16:], 4000|8<<50) // the first padding entry; its source stays 0: an error
	binary.LittleEndian.PutUint64(b[vecIndex+3*16+8:], 8)
	if errs, notes := Check(bytes.NewReader(b), int64(len(b)), Options{}); len(errs) != 0 || len(notes) != 1 {
		t.Error("entry past the device:", errs, notes)
	}
}
