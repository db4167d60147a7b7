package gzindex

import (
	"bytes"
	"encoding/binary"
	"flag"
	"io"
	"testing"

	"github.com/klauspost/compress/zlib"

	"github.com/convhost/convhost/internal/zran"
	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

var update = flag.Bool("update", false, "write testdata anew")

// layerForVectors is the layer that the vectors' indexes belong to: three entries with a span of 100,000.
func layerForVectors(t testing.TB) []byte {
	return flushed(t, bytes.Repeat([]byte("To be compressed. "), 20_000), 30_000)
}

func feed(w *Writer, gz []byte) error {
	_, err := zran.NewReader(bytes.NewReader(gz), zran.Options{OnMember: w.Member, OnBlock: w.Block}).WriteTo(io.Discard)
	return err
}

// withHeader changes a field of 8 bytes and puts the checksum right.
func withHeader(meta []byte, off int, v int64) []byte {
	binary.LittleEndian.PutUint64(meta[off:], uint64(v))
	return sign(meta)
}

func sign(meta []byte) []byte {
	binary.LittleEndian.PutUint32(meta[offCRC:], headerView(meta).sum())
	return meta
}

// withEntries replaces the entries by what change makes of them.
func withEntries(meta []byte, change func([]byte) []byte) []byte {
	start := binary.LittleEndian.Uint64(meta[offStart:])
	z, err := zlib.NewReader(bytes.NewReader(meta[start:]))
	if err != nil {
		panic(err)
	}
	entries, err := io.ReadAll(z)
	if err != nil {
		panic(err)
	}
	var buf bytes.Buffer
	out := zlib.NewWriter(&buf)
	if _, err := out.Write(change(entries)); err != nil {
		panic(err)
	}
	if err := out.Close(); err != nil {
		panic(err)
	}
	meta = append(meta[:start], buf.Bytes()...)
	binary.LittleEndian.PutUint64(meta[offArea:], uint64(buf.Len()))
	return withHeader(meta, offFile, int64(len(meta)))
}

func header(off int, value ...byte) func([]byte) []byte {
	return func(meta []byte) []byte {
		copy(meta[off:], value)
		return sign(meta)
	}
}

func entries(off int, value ...byte) func([]byte) []byte {
	return func(meta []byte) []byte {
		return withEntries(meta, func(e []byte) []byte {
			copy(e[off:], value)
			return e
		})
	}
}

// damages changes one field each; the vectors are made from them.
var damages = []struct {
	name, expect, field string
	change              func([]byte) []byte
}{
	{"magic", "corrupt", "magic", header(0, 'D')},
	{"crc", "digest", "crc of the header", func(b []byte) []byte { b[offReserve] = 1; return b }},
	{"major", "unsupported", "major_version", header(offMajor, 2)},
	{"algorithm", "unsupported", "dict_compress_algo", header(offAlgo, 2)},
	{"window-size", "unsupported", "window", header(offWindow, 0, 0x40)},
	{"entry-size", "corrupt", "index_size", header(offEntry, 30)},
	{"entries-too-many", "corrupt", "index_num", header(offEntries+2, 9)},
	{"entries-over-limit", "limit", "index_num", header(offEntries+3, 0xff)},
	{"entries-wrap", "limit", "index_num", header(offEntries+7, 0xff)},
	{"entries-none", "corrupt", "index_num", header(offEntries, 0)},
	{"entries-fewer", "corrupt", "entries", header(offEntries, 2)},
	{"entries-more", "corrupt", "entries", header(offEntries, 9)},
	{"gzip-size", "digest", "gzip_file_size", header(offGzip, 1)},
	{"gzip-size-negative", "corrupt", "gzip_file_size", header(offGzip+7, 0xff)},
	{"raw-size-negative", "corrupt", "uncompress_file_size", header(offRaw+7, 0xff)},
	{"file-size-more", "truncated", "index_file_size", header(offFile+7, 1)},
	{"file-size-less", "corrupt", "index_file_size", header(offFile, 0, 0)},
	{"start-in-header", "corrupt", "index_start", header(offStart, 1, 0)},
	{"start-behind", "corrupt", "index_start", header(offStart+7, 0x80)},
	{"area-more", "corrupt", "index_area_len", header(offArea+1, 9)},
	{"index-not-zlib", "corrupt", "entries", func(b []byte) []byte { b[binary.LittleEndian.Uint64(b[offStart:])] = 0; return b }},
	{"index-damaged", "corrupt", "entries", func(b []byte) []byte { b[binary.LittleEndian.Uint64(b[offStart:])+2] |= 6; return b }},
	{"index-checksum", "digest", "Adler-32 of the entries", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
	{"first-not-0", "corrupt", "entry 0's de_pos", entries(0, 1)},
	{"out-descends", "corrupt", "entry 2's de_pos", entries(2*entrySize, 0, 0, 0)},
	{"out-too-big", "corrupt", "entry 2's de_pos", entries(2*entrySize+3, 1)},
	{"out-negative", "corrupt", "entry 2's de_pos", entries(2*entrySize+7, 0xff)},
	{"in-descends", "corrupt", "entry 2's en_pos", entries(2*entrySize+8, 0, 0, 0)},
	{"in-too-big", "corrupt", "entry 2's en_pos", entries(2*entrySize+8+3, 1)},
	{"bits", "corrupt", "entry 1's bits", entries(entrySize+24, 8)},
	{"window-in-header", "corrupt", "entry 1's window", entries(entrySize+16, 1, 0)},
	{"window-behind", "corrupt", "entry 1's window", entries(entrySize+16+6, 1)},
	{"window-too-long", "corrupt", "entry 1's window", entries(entrySize+25+3, 1)},
	{"window-cut", "corrupt", "window of entry 0", entries(25, 9)},
	{"window-not-zlib", "corrupt", "window of entry 0", func(b []byte) []byte { b[HeaderSize] = 0; return b }},
	{"raw-size-more", "corrupt", "end of the deflate stream", header(offRaw, 0xff)},
}

func TestVectors(t *testing.T) {
	gz := layerForVectors(t)
	good, _ := build(t, gz, Config{Span: 100_000})
	if *update {
		vectors.Save(t, "testdata", vectors.Vector{Name: "good", Format: "gzindex", Expect: "ok", MadeBy: "the writer of this package", Data: good})
		vectors.Save(t, "testdata", vectors.Vector{Name: "layer", Format: "gzip", Expect: "ok", MadeBy: "compress/gzip", Data: gz})
		for _, d := range damages {
			vectors.Save(t, "testdata", vectors.Vector{Name: d.name, Format: "gzindex", Expect: d.expect, Field: d.field, MadeBy: "by hand, one field changed", Data: d.change(bytes.Clone(good))})
		}
	}
	all := vectors.Load(t, "testdata")
	if len(all) != len(damages)+2 {
		t.Errorf("%d vectors, want %d", len(all), len(damages)+2)
	}
	for _, v := range all {
		if v.Name == "layer" {
			gz = v.Data
		}
	}
	for _, v := range all {
		if v.Name == "layer" {
			continue
		}
		f, err := Open(bytes.NewReader(v.Data), int64(len(v.Data)), bytes.NewReader(gz), int64(len(gz)), Options{})
		if err == nil {
			_, err = readAll(f)
		}
		v.Check(t, err)
		errs, _ := Check(bytes.NewReader(v.Data), int64(len(v.Data)), bytes.NewReader(gz), int64(len(gz)), Options{})
		if len(errs) == 0 != (v.Expect == "ok") {
			t.Error(v.Name, "check finds", errs)
		}
	}
}

// What readers do not look at is told, and stops nobody.
func TestNotes(t *testing.T) {
	gz := layerForVectors(t)
	for field, change := range map[string]func([]byte) []byte{"minor_version": header(offMinor, 1), "flag": header(offFlag, 1), "reserve": header(offReserve+7, 1)} {
		meta, _ := build(t, gz, Config{})
		meta = change(meta)
		errs, notes := Check(bytes.NewReader(meta), int64(len(meta)), bytes.NewReader(gz), int64(len(gz)), Options{})
		if len(errs) > 0 || len(notes) != 1 {
			t.Error(field, errs, notes)
			continue
		}
		vectors.Vector{Name: field, Expect: "corrupt", Field: field}.Check(t, notes[0])
	}
}

// An index whose windows and entries are not compressed is read too.
func TestUncompressedIndex(t *testing.T) {
	gz := layerForVectors(t)
	meta, raw := build(t, gz, Config{Span: 100_000})
	f := open(t, meta, gz, Options{})
	plain := make([]byte, HeaderSize)
	var list []byte
	for k, e := range f.entries {
		e.winPos, e.winLen = int64(len(plain)), windowSize
		list = appendEntry(list, e)
		window := make([]byte, windowSize)
		if err := f.window(k, window); err != nil {
			t.Fatal(err)
		}
		plain = append(plain, window...)
	}
	copy(plain, meta[:HeaderSize])
	plain[offAlgo] = algoNone
	withHeader(plain, offStart, int64(len(plain)))
	withHeader(plain, offArea, int64(len(list)))
	plain = append(plain, list...)
	withHeader(plain, offFile, int64(len(plain)))
	if errs, notes := Check(bytes.NewReader(plain), int64(len(plain)), bytes.NewReader(gz), int64(len(gz)), Options{}); len(errs)+len(notes) > 0 {
		t.Error(errs, notes)
	}
	if got, err := readAll(open(t, plain, gz, Options{})); err != nil || !bytes.Equal(got, raw) {
		t.Error(len(got), err)
	}
}

// An index that says what is not so is found by Check.
func TestCheckCompares(t *testing.T) {
	gz := layerForVectors(t)
	for field, change := range map[string]func([]byte) []byte{
		"entry 1":              entries(entrySize+8, 0xff), // another place in the layer
		"uncompress_file_size": header(offRaw, 0),
		"window of entry 1": func(meta []byte) []byte { // the window of the beginning, zeros
			return withEntries(meta, func(e []byte) []byte {
				copy(e[entrySize+16:entrySize+24], e[16:24])
				copy(e[entrySize+25:], e[25:29])
				return e
			})
		},
	} {
		meta, _ := build(t, gz, Config{Span: 100_000})
		meta = change(meta)
		errs, _ := Check(bytes.NewReader(meta), int64(len(meta)), bytes.NewReader(gz), int64(len(gz)), Options{})
		if len(errs) != 1 {
			t.Error(field, errs)
			continue
		}
		vectors.Vector{Name: field, Expect: "corrupt", Field: field}.Check(t, errs[0])
	}
}
