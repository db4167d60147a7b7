// Package rawobd reads overlaybd layers for tests by plain offsets, as the format's description gives them. It shares nothing
// with the packages of plugins/overlaybd, which it helps to judge, and it trusts its input: it panics on what is broken.
//
//	dev := rawobd.New(file)
//	for _, layer := range layers { dev.Apply(rawobd.LSMT(layer), nil) }    // lowest first; the file is the device
package rawobd

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

var le = binary.LittleEndian

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func want(ok bool, format string, args ...any) {
	if !ok {
		panic("rawobd: " + fmt.Sprintf(format, args...))
	}
}

// LSMT takes the tar and the ZFile off a layer, and checks the sums of the ZFile.
func LSMT(layer []byte) []byte {
	if bytes.Equal(layer[257:262], []byte("ustar")) {
		r := tar.NewReader(bytes.NewReader(layer))
		h, err := r.Next()
		must(err)
		want(h.Name == "overlaybd.commit", "the member is %s", h.Name)
		body, err := io.ReadAll(r)
		must(err)
		_, err = r.Next()
		want(err == io.EOF, "a second member: %v", err)
		layer = body
	}
	if bytes.HasPrefix(layer, []byte("ZFile\x00\x01\x00")) {
		layer = inflate(layer)
	}
	want(bytes.HasPrefix(layer, []byte("LSMT\x00\x01\x02\x00")), "no LSMT in the layer")
	return layer
}

// Members returns the files of a tar.gz.
func Members(layer []byte) map[string][]byte {
	z, err := gzip.NewReader(bytes.NewReader(layer))
	must(err)
	out := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		must(err)
		out[h.Name], err = io.ReadAll(r)
		must(err)
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the register of CRC-32C without inversions.
func sum(seed uint32, b []byte) uint32 { return ^crc32.Update(^seed, castagnoli, b) }

// inflate decompresses a ZFile.
func inflate(z []byte) []byte {
	h := z[:512]
	if le.Uint64(h[32:])&8 == 0 { // not completed
		h = z[len(z)-512:]
	}
	zeroed := bytes.Clone(h)
	copy(zeroed[28:32], make([]byte, 4))
	want(le.Uint32(h[28:]) == sum(0, zeroed), "the digest of the ZFile's header is wrong")
	indexAt, blocks, size, block := le.Uint64(h[40:]), le.Uint64(h[48:]), le.Uint64(h[56:]), le.Uint32(h[72:])
	table := z[indexAt : indexAt+4*blocks]
	want(le.Uint32(h[64:]) == sum(0, table), "the sum of the ZFile's table is wrong")
	want(uint64(len(z)) == indexAt+4*blocks+512, "the ZFile has %d bytes, not %d", len(z), indexAt+4*blocks+512)
	var dec *zstd.Decoder
	if h[76] == 2 {
		var err error
		dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		must(err)
		defer dec.Close()
	}
	out, at := make([]byte, size), uint64(512)
	for i := range blocks {
		stored := z[at : at+uint64(le.Uint32(table[4*i:]))]
		at += uint64(len(stored))
		if h[88] == 1 {
			body := stored[:len(stored)-4]
			want(le.Uint32(stored[len(body):]) == sum(100007, body), "the sum of block %d is wrong", i)
			stored = body
		}
		from, to := i*uint64(block), min((i+1)*uint64(block), size)
		n, err := 0, error(nil)
		if dec != nil {
			var p []byte
			p, err = dec.DecodeAll(stored, nil)
			n = copy(out[from:to], p)
		} else {
			n, err = lz4.UncompressBlock(stored, out[from:to])
		}
		must(err)
		want(uint64(n) == to-from, "block %d has %d bytes", i, n)
	}
	want(at == indexAt, "the blocks end at %d, the table starts at %d", at, indexAt)
	return out
}

// Segment is an entry of the index, in sectors of 512 bytes.
type Segment struct {
	Start, Length, Source uint64
	Zero                  bool
	Tag                   byte
}

// Index returns the size of the device in bytes and the segments of a layer.
func Index(lsmt []byte) (size int64, out []Segment) {
	t := lsmt[len(lsmt)-4096:]
	at, n := le.Uint64(t[32:]), le.Uint64(t[40:])
	for i := range n {
		e := lsmt[at+16*i:]
		a, b := le.Uint64(e), le.Uint64(e[8:])
		s := Segment{Start: a & (1<<50 - 1), Length: a >> 50, Source: b & (1<<55 - 1), Zero: b>>55&1 == 1, Tag: byte(b >> 56)}
		if s.Start != 1<<50-1 { // padding
			out = append(out, s)
		}
	}
	return int64(le.Uint64(t[48:])), out
}
