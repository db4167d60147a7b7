package zfile

import (
	"bytes"
	"encoding/binary"
	"flag"
	"testing"

	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

var update = flag.Bool("update", false, "write testdata anew")

// goodForVectors is 40 blocks of text and zeros and one short one; the header is as written first.
func goodForVectors(t testing.TB, a Algorithm) ([]byte, Header) {
	in := append(bytes.Repeat([]byte("To be compressed. "), 4096), make([]byte, 41*4096-18*4096-96)...)
	b, _ := compress(t, Config{Algorithm: a}, 1, in, len(in))
	return b, open(t, b).head
}

// damages changes one field each; the vectors are made from them. sign says that the checksums over it are put right.
var damages = []struct {
	name, expect, field string
	at                  func(b []byte, h Header) int
	value               []byte
	sign                bool
}{
	{"header-magic", "corrupt", "header.magic", inHeader(0), []byte{0}, false},
	{"header-signature", "corrupt", "header.magic", inHeader(23), []byte{0}, false},
	{"header-is-a-trailer", "corrupt", "header.flags", inHeader(offFlags), []byte{0x16}, true},
	{"header-of-an-index", "corrupt", "header.flags", inHeader(offFlags), []byte{0x11}, true},
	{"header-digest", "digest", "header.digest", inHeader(offDigest), []byte{1}, false},
	{"header-changed", "digest", "header.digest", inHeader(300), []byte{1}, false},
	{"trailer-magic", "truncated", "trailer.magic", inTrailer(0), []byte{0}, false},
	{"trailer-is-a-header", "corrupt", "trailer.flags", inTrailer(offFlags), []byte{0x17}, true},
	{"trailer-not-sealed", "corrupt", "trailer.flags", inTrailer(offFlags), []byte{0x12}, true},
	{"block-size-0", "unsupported", "trailer.block_size", inTrailer(offBlock), []byte{0, 0, 0, 0}, true},
	{"block-size-odd", "unsupported", "trailer.block_size", inTrailer(offBlock), []byte{0, 0x30, 0, 0}, true},
	{"block-size-128k", "unsupported", "trailer.block_size", inTrailer(offBlock), []byte{0, 0, 2, 0}, true},
	{"minilzo", "unsupported", "trailer.algo", inTrailer(offAlgo), []byte{0}, true},
	{"index-offset-behind-the-end", "truncated", "trailer.index_offset", inTrailer(offIndex + 3), []byte{1}, true},
	{"index-offset-wraps", "truncated", "trailer.index_offset", inTrailer(offIndex + 7), []byte{0xff}, true},
	{"index-offset-in-header", "corrupt", "trailer.index_offset", inTrailer(offIndex), []byte{1, 0}, true},
	{"dictionary-over-the-table", "corrupt", "trailer.index_offset", inTrailer(offDict + 3), []byte{0x7f}, true},
	{"index-size-too-big", "truncated", "trailer.index_size", inTrailer(offEntries), []byte{0xff}, true},
	{"index-size-over-limit", "limit", "trailer.index_size", inTrailer(offEntries + 3), []byte{0x40}, true},
	{"index-size-wraps", "limit", "trailer.index_size", inTrailer(offEntries + 7), []byte{0x40}, true},
	{"length-too-big", "corrupt", "trailer.original_file_size", inTrailer(offLength + 3), []byte{1}, true},
	{"length-too-small", "corrupt", "trailer.original_file_size", inTrailer(offLength), []byte{0, 0, 0}, true},
	{"table-crc", "digest", "index_crc of the jump table", inTrailer(offCRC), []byte{1, 2, 3, 4}, false},
	{"table-changed", "digest", "index_crc of the jump table", inTable(0), []byte{99}, false},
	{"table-entry-too-small", "corrupt", "jump table entry", inTable(4), []byte{4, 0}, true},
	{"table-entry-too-big", "corrupt", "jump table entry", inTable(8), []byte{0, 0, 3}, true},
	{"table-sum-over-16-bits", "corrupt", "sum of jump table entries inside 64 KiB of content", inTable(12), []byte{0xff, 0xff}, true},
	{"table-blocks-over-the-table", "corrupt", "end of the blocks in the jump table", inTable(160), []byte{0xff, 0}, true},
	{"block-crc", "digest", "crc of the block", inHeader(HeaderSize + 40), []byte{0xee}, false},
	{"block-not-lz4", "corrupt", "block", inHeader(HeaderSize), []byte{0xff, 0xff, 0xff}, true},
	{"block-too-short", "corrupt", "length of the block's content", inHeader(HeaderSize), []byte{0xf0}, true},
}

func inHeader(off int) func([]byte, Header) int { return func([]byte, Header) int { return off } }
func inTrailer(off int) func([]byte, Header) int {
	return func(b []byte, _ Header) int { return len(b) - HeaderSize + off }
}
func inTable(off int) func([]byte, Header) int {
	return func(_ []byte, h Header) int { return int(h.IndexOffset) + off }
}

// damaged returns the good file with one damage.
func damaged(t testing.TB, k int) []byte {
	b, h := goodForVectors(t, LZ4)
	d := damages[k]
	at := d.at(b, h)
	copy(b[at:], d.value)
	if d.name == "block-too-short" { // literals alone, as many as the stored length allows
		n := int(open(t, b).table.position(1)) - crcSize - HeaderSize
		b[at+1] = byte(n - 2 - 15)
	}
	if d.sign {
		sign(b, h)
	}
	return b
}

// sign puts all checksums right.
func sign(b []byte, h Header) {
	le := binary.LittleEndian
	first := HeaderSize + int(le.Uint32(b[h.IndexOffset:]))
	if first >= HeaderSize+crcSize && first <= int(h.IndexOffset) {
		le.PutUint32(b[first-crcSize:], rawCRC(blockSeed, b[HeaderSize:first-crcSize]))
	}
	trailer := b[len(b)-HeaderSize:]
	le.PutUint32(trailer[offCRC:], rawCRC(0, b[h.IndexOffset:h.IndexOffset+h.Blocks*entrySize]))
	le.PutUint32(trailer[offDigest:], headerView(trailer).sum())
	le.PutUint32(b[offDigest:], headerView(b).sum())
}

func TestVectors(t *testing.T) {
	if *update {
		for _, a := range []Algorithm{LZ4, Zstd} {
			good, _ := goodForVectors(t, a)
			vectors.Save(t, "testdata", vectors.Vector{Name: "good-" + a.String(), Format: "zfile", Expect: "ok", MadeBy: "the writer of this package", Data: good})
		}
		for k, d := range damages {
			vectors.Save(t, "testdata", vectors.Vector{Name: d.name, Format: "zfile", Expect: d.expect, Field: d.field, MadeBy: "by hand, one field changed", Data: damaged(t, k)})
		}
	}
	all := vectors.Load(t, "testdata")
	if len(all) != len(damages)+2 {
		t.Errorf("%d vectors, want %d", len(all), len(damages)+2)
	}
	for _, v := range all {
		f, err := Open(bytes.NewReader(v.Data), int64(len(v.Data)), Options{})
		if (f == nil) != (err != nil) {
			t.Errorf("%s: half a result", v.Name)
		}
		if err == nil {
			_, err = f.ReadAt(make([]byte, f.Size()), 0)
		}
		v.Check(t, err)
		errs, _ := Check(bytes.NewReader(v.Data), int64(len(v.Data)), Options{})
		if len(errs) > 0 {
			v.Check(t, errs[0])
		} else if v.Expect != "ok" {
			t.Errorf("%s: check finds nothing", v.Name)
		}
	}
}

// Deviations that readers ignore are told, and stop nobody.
func TestNotes(t *testing.T) {
	const trailer = -HeaderSize
	for _, c := range []struct {
		field string
		at    int // from the end if negative
		value []byte
	}{
		{"header.size", offSize, []byte{95}},
		{"header.flags", offFlags + 5, []byte{1}},
		{"header reserved bytes", offLevel, []byte{3}},
		{"header reserved bytes", 511, []byte{1}},
		{"trailer.digest", trailer + offDigest, []byte{1, 2, 3}},
		{"trailer.magic", trailer, []byte{0}},
		{"trailer", trailer + offLength, []byte{1}},
	} {
		b, h := goodForVectors(t, LZ4)
		copy(b, encodeHeader(Header{Flags: flagHeader | flagData | flagComplete | flagDigest, IndexOffset: h.IndexOffset, Blocks: h.Blocks, Length: h.Length, IndexCRC: h.IndexCRC}, Config{BlockSize: 4096, Algorithm: LZ4}))
		at := c.at
		if at < 0 {
			at += len(b)
		}
		copy(b[at:], c.value)
		binary.LittleEndian.PutUint32(b[offDigest:], headerView(b).sum())
		if c.field == "trailer" {
			binary.LittleEndian.PutUint32(b[len(b)+trailer+offDigest:], headerView(b[len(b)+trailer:]).sum())
		}
		errs, notes := Check(bytes.NewReader(b), int64(len(b)), Options{})
		if len(errs) != 0 || len(notes) != 1 {
			t.Errorf("%s: %v, %v", c.field, errs, notes)
			continue
		}
		vectors.Vector{Name: c.field, Expect: "corrupt", Field: c.field}.Check(t, notes[0])
	}
}
