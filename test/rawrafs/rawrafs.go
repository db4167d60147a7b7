// Package rawrafs reads RAFS v6 for tests by plain offsets, as the format's description gives them. It shares nothing with
// package rafs6, which it helps to judge, and it trusts its input: it panics on what is broken.
package rawrafs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

var le = binary.LittleEndian

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Decode decompresses with the compressor of number algo: 0 none, 1 lz4 block, 3 zstd.
func Decode(algo uint32, p []byte, size int) []byte {
	out := make([]byte, size)
	switch algo {
	case 0:
		return p
	case 1:
		n, err := lz4.UncompressBlock(p, out)
		must(err)
		return out[:n]
	case 3:
		r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		must(err)
		defer r.Close()
		got, err := r.DecodeAll(p, out[:0])
		must(err)
		return got
	}
	panic(fmt.Sprintf("compressor %d", algo))
}

// Member returns a member of a layer blob through its table of contents, decompressed; nil if it has none of that name.
func Member(blob []byte, name string) []byte {
	end := len(blob) - 512
	var size int
	_, err := fmt.Sscanf(string(blob[end+124:end+135]), "%o", &size)
	must(err)
	toc := blob[end-size : end]
	for ; len(toc) > 0; toc = toc[128:] {
		if string(bytes.TrimRight(toc[8:24], "\x00")) != name {
			continue
		}
		off, stored := le.Uint64(toc[56:]), le.Uint64(toc[64:])
		p := blob[off : off+stored]
		if le.Uint32(toc) == 2 {
			return Decode(3, p, int(le.Uint64(toc[72:])))
		}
		return p
	}
	return nil
}

// BootstrapLayer returns the files of a bootstrap layer, a tar.gz.
func BootstrapLayer(p []byte) map[string][]byte {
	z, err := gzip.NewReader(bytes.NewReader(p))
	must(err)
	out := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		must(err)
		b, err := io.ReadAll(r)
		must(err)
		out[h.Name] = b
	}
}

// Blob is an entry of the blob table.
type Blob struct {
	ID                       string
	Chunks, Codec, MetaCodec uint32
	Size                     uint64 // of the device, in bytes
	MetaOff, MetaStored      uint64
	MetaSize                 uint64
}

// Image is a bootstrap.
type Image struct {
	b          []byte
	meta       int
	blobs      int // offset of the blob table
	chunks     int // offset and size of the chunk table
	chunksSize int
	chunkSize  int
	n          int // blobs
}

// Open reads the superblocks.
func Open(b []byte) *Image {
	if le.Uint32(b[1024:]) != 0xE0F5E1E2 {
		panic("no EROFS superblock")
	}
	return &Image{
		b: b, meta: int(le.Uint32(b[1024+40:])) * 4096, n: int(le.Uint16(b[1024+86:])),
		blobs: int(le.Uint64(b[1152+8:])), chunkSize: int(le.Uint32(b[1152+20:])),
		chunks: int(le.Uint64(b[1152+24:])), chunksSize: int(le.Uint64(b[1152+32:])),
	}
}

// Blobs returns the blob table, which is the order of the devices.
func (m *Image) Blobs() []Blob {
	var out []Blob
	for i := range m.n {
		e := m.b[m.blobs+256*i:]
		out = append(out, Blob{
			ID: string(e[:64]), Chunks: le.Uint32(e[72:]), Codec: le.Uint32(e[76:]), Size: le.Uint64(e[96:]),
			MetaCodec: le.Uint32(e[108:]), MetaOff: le.Uint64(e[112:]), MetaStored: le.Uint64(e[120:]), MetaSize: le.Uint64(e[128:]),
		})
	}
	return out
}

// Rename returns a copy of a layer's own bootstrap with the layer's blob called id: the one blob there is, or that of many
// whose name is 64 times "x".
func Rename(b []byte, id string) []byte {
	out := bytes.Clone(b)
	m := Open(out)
	for i := range m.n {
		if m.n == 1 || out[m.blobs+256*i] == 'x' {
			copy(out[1408+128*i:], id)
			copy(out[m.blobs+256*i:], id)
		}
	}
	return out
}

// Expand writes the device of blob number i: every chunk, decompressed, at its place. It compares the blob's own chunk
// table with that of the bootstrap and returns an error if they differ.
func (m *Image) Expand(i int, blob []byte, to *os.File) error {
	e := m.Blobs()[i]
	head := blob[e.MetaOff+e.MetaStored:][:4096]
	if le.Uint32(head) != 0xB10BB10B || le.Uint32(head[4092:]) != 0xB10BB10B || le.Uint32(head[12:]) != e.Chunks {
		return fmt.Errorf("blob %s: header of the chunk table: % x", e.ID, head[:24])
	}
	array := Decode(le.Uint32(head[8:]), blob[e.MetaOff:e.MetaOff+e.MetaStored], int(e.MetaSize))
	known := m.tableOf(i)
	for k := range int(e.Chunks) {
		w0, w1 := le.Uint64(array[16*k:]), le.Uint64(array[16*k+8:])
		raw := int(w0>>44|w0>>8&0xf<<20) + 1
		stored := int(w1>>44|w1>>40&0xf<<20) + 1
		at, from := int64(w0&0x00000fff_fffff000), int(w1&0xff_ffffffff)
		if t, ok := known[uint32(k)]; ok && (t.raw != raw || t.stored != stored || t.at != at || t.from != from) {
			return fmt.Errorf("blob %s: chunk %d is %d+%d -> %d+%d, the bootstrap says %+v", e.ID, k, from, stored, at, raw, t)
		}
		p := blob[from : from+stored]
		if stored != raw {
			p = Decode(e.Codec, p, raw)
		}
		if len(p) != raw {
			return fmt.Errorf("blob %s: chunk %d has %d bytes, want %d", e.ID, k, len(p), raw)
		}
		if _, err := to.WriteAt(p, at); err != nil {
			return err
		}
	}
	return to.Truncate(int64(e.Size))
}

type place struct {
	raw, stored, from int
	at                int64
}

// tableOf returns the chunks of blob i in the bootstrap's chunk table, by index.
func (m *Image) tableOf(i int) map[uint32]place {
	out := map[uint32]place{}
	for t := m.b[m.chunks : m.chunks+m.chunksSize]; len(t) > 0; t = t[80:] {
		if le.Uint32(t[32:]) == uint32(i) {
			out[le.Uint32(t[72:])] = place{stored: int(le.Uint32(t[40:])), raw: int(le.Uint32(t[44:])), from: int(le.Uint64(t[48:])), at: int64(le.Uint64(t[56:]))}
		}
	}
	return out
}

// RootInode returns the offset of the root's inode.
func RootInode(b []byte) int { return Open(b).meta + 32*int(le.Uint16(b[1024+14:])) }
