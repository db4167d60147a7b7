package rafs6

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	enchex "encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/zeebo/blake3"

	"github.com/convhost/convhost/abi"
)

// What the host does for the codec, made simply and apart from the host: tar entries, chunks, digests.

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func gunzip(t testing.TB, p []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	p, err = io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func inputTar(t testing.TB, set string) []byte {
	return gunzip(t, readFile(t, "testdata/in/"+set+".tar.gz"))
}

// boot returns a vector's bootstrap and the blob id its file name gives it.
func boot(t testing.TB, vector string) (data []byte, id string) {
	t.Helper()
	names, _ := filepath.Glob("testdata/vectors/" + vector + "/*.boot")
	if len(names) == 0 {
		return readFile(t, "testdata/vectors/"+vector+"/bootstrap"), ""
	}
	return readFile(t, names[0]), strings.TrimSuffix(filepath.Base(names[0]), ".boot")
}

func layerBlob(t testing.TB, vector string) []byte {
	return readFile(t, "testdata/vectors/"+vector+"/layer.blob")
}

type tarEntry struct {
	abi.Entry
	body []byte
}

func cleanPath(s string) string {
	s = path.Clean("/" + s)
	return strings.TrimPrefix(s, "/")
}

func tarEntries(t testing.TB, data []byte) []tarEntry {
	t.Helper()
	kinds := map[byte]abi.Kind{tar.TypeReg: abi.KindRegular, tar.TypeDir: abi.KindDir, tar.TypeSymlink: abi.KindSymlink,
		tar.TypeLink: abi.KindHardlink, tar.TypeChar: abi.KindChar, tar.TypeBlock: abi.KindBlock, tar.TypeFifo: abi.KindFifo}
	var out []tarEntry
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		e := abi.Entry{Kind: kinds[h.Typeflag], Mode: uint32(h.Mode) & 0o7777, UID: uint32(h.Uid), GID: uint32(h.Gid),
			DevMajor: uint32(h.Devmajor), DevMinor: uint32(h.Devminor), MtimeSec: h.ModTime.Unix(), MtimeNs: uint32(h.ModTime.Nanosecond()),
			Size: h.Size, Seq: uint64(len(out)), Path: cleanPath(h.Name), Link: h.Linkname}
		if e.Kind == abi.KindHardlink {
			e.Link = cleanPath(h.Linkname)
		}
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				e.Xattrs = append(e.Xattrs, abi.Xattr{Key: name, Value: []byte(v)})
			}
		}
		slices.SortFunc(e.Xattrs, func(a, b abi.Xattr) int { return strings.Compare(a.Key, b.Key) })
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, tarEntry{e, body})
	}
}

func sumOf(d abi.Digest, p []byte) [32]byte {
	if d == abi.DigestBLAKE3 {
		return blake3.Sum256(p)
	}
	return sha256.Sum256(p)
}

// hostPlan stands for the host: it chunks, digests, deduplicates and "stores" with the sizes that stored says.
type hostPlan struct {
	o      Options
	stored func(index uint32, raw []byte) uint32
	seen   map[[32]byte]abi.Completion
	end    int64
}

func (h *hostPlan) chunks(e *tarEntry, add func(*abi.Completion) error) error {
	for pos := 0; pos < len(e.body); pos += h.o.ChunkSize {
		raw := e.body[pos:min(len(e.body), pos+h.o.ChunkSize)]
		c := abi.Completion{Tag: e.Seq, Digest: sumOf(h.o.Digest, raw), Raw: uint32(len(raw)),
			CRC32C: crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli)), Pos: int64(pos), Seq: uint32(pos / h.o.ChunkSize)}
		if old, ok := h.seen[c.Digest]; ok {
			c.Flags, c.Index, c.Offset, c.Stored = abi.CompletionDup, old.Index, old.Offset, old.Stored
		} else {
			c.Index, c.Offset = uint32(len(h.seen)), h.end
			c.Stored = h.stored(c.Index, raw)
			h.end += int64(c.Stored)
			h.seen[c.Digest] = c
		}
		if c.Stored == c.Raw {
			c.Flags |= abi.CompletionRaw
		}
		if err := add(&c); err != nil {
			return err
		}
	}
	return nil
}

// build makes a tree from entries as the plugin does.
func build(o Options, entries []tarEntry, stored func(uint32, []byte) uint32) (*Tree, error) {
	b, err := NewBuilder(o)
	if err != nil {
		return nil, err
	}
	h := &hostPlan{o: b.o, stored: stored, seen: map[[32]byte]abi.Completion{}}
	for k := range entries {
		if err := b.Add(&entries[k].Entry); err != nil {
			return nil, err
		}
	}
	for k := range entries {
		if entries[k].Kind != abi.KindRegular {
			continue
		}
		if err := h.chunks(&entries[k], func(c *abi.Completion) error { return b.AddChunk(entries[k].Seq, c) }); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

func decode(t testing.TB, codec abi.Codec, p []byte, size int) []byte {
	t.Helper()
	switch codec {
	case abi.CodecZstd:
		r, _ := zstd.NewReader(nil)
		defer r.Close()
		out, err := r.DecodeAll(p, nil)
		if err != nil || len(out) != size {
			t.Fatalf("zstd: %d bytes, want %d: %v", len(out), size, err)
		}
		return out
	case abi.CodecLZ4Block:
		out := make([]byte, size)
		n, err := lz4.UncompressBlock(p, out)
		if err != nil || n != size {
			t.Fatalf("lz4: %d bytes, want %d: %v", n, size, err)
		}
		return out
	}
	return p
}

func readExpect(t testing.TB, set string) []map[string]any {
	var out []map[string]any
	if err := json.Unmarshal(readFile(t, "testdata/expect/"+set+".json"), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// describe puts a tree into the words of the expect files; content resolves chunks to bytes.
func describe(t testing.TB, tree *Tree, content func(Chunk) []byte) []map[string]any {
	var out []map[string]any
	first := map[string]map[string]any{}
	err := tree.Walk(func(e *abi.Entry, f File) error {
		m := map[string]any{"path": "/" + e.Path, "mode": fmt.Sprintf("%04o", e.Mode), "uid": float64(e.UID),
			"gid": float64(e.GID), "mtime": float64(e.MtimeSec)}
		switch e.Kind {
		case abi.KindDir:
			m["type"] = "d"
		case abi.KindHardlink:
			m["type"] = "f"
			one := first[e.Link]
			one["hardlink_group"], m["hardlink_group"] = "/"+e.Link, "/"+e.Link
			m["size"], m["sha256"] = one["size"], one["sha256"]
		case abi.KindRegular:
			h := sha256.New()
			for k := range f.Len() {
				h.Write(content(f.At(k)))
			}
			m["type"], m["size"], m["sha256"] = "f", float64(e.Size), enchex.EncodeToString(h.Sum(nil))
			first[e.Path] = m
		case abi.KindSymlink:
			m["type"], m["target"] = "l", e.Link
		case abi.KindChar, abi.KindBlock:
			m["type"] = map[abi.Kind]string{abi.KindChar: "c", abi.KindBlock: "b"}[e.Kind]
			m["dev"] = fmt.Sprintf("%d:%d", e.DevMajor, e.DevMinor)
		case abi.KindFifo:
			m["type"] = "p"
		}
		if len(e.Xattrs) > 0 {
			x := map[string]any{}
			for _, a := range e.Xattrs {
				x[a.Key] = enchex.EncodeToString(a.Value)
			}
			m["xattr_hex"] = x
		}
		out = append(out, m)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
