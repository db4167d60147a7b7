package rafs6

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
)

func TestUnsupportedVectors(t *testing.T) {
	for v, text := range map[string]string{
		"ref-gz-base": "zran", "ref-tar-base": "reference", "merge-ref": "zran", "tarfs-mid": "tarfs", "merge-tarfs": "tarfs",
		"batch16k-zstd": "batch", "encrypt-base": "encrypted", "encrypt-inline-base": "encrypted", "dict-user": "dictionary",
	} {
		data, _ := boot(t, v)
		for _, err := range append([]error{second(Open(data))}, Check(data)...) {
			if !errors.Is(err, abi.ErrUnsupported) || !strings.Contains(err.Error(), "not supported yet") || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v", v, err)
			}
		}
		if v == "merge-ref" || strings.Contains(v, "tarfs") || v == "dict-user" {
			continue
		}
		blob := layerBlob(t, v)
		err := second(OpenBlob(bytes.NewReader(blob), int64(len(blob))))
		if v == "encrypt-base" { // the header itself is encrypted: nothing tells this from garbage
			if !errors.Is(err, abi.ErrCorrupt) {
				t.Errorf("%s blob: %v", v, err)
			}
		} else if v == "encrypt-inline-base" {
			if err == nil {
				t.Errorf("%s blob: no error", v)
			}
		} else if !errors.Is(err, abi.ErrUnsupported) {
			t.Errorf("%s blob: %v", v, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// mutation changes one field of a bootstrap.
type mutation struct {
	name  string
	class abi.Class
	text  string
	open  bool // Open fails as well as Check
	do    func(p []byte)
}

func put32(off int, v uint32) func([]byte) {
	return func(p []byte) { binary.LittleEndian.PutUint32(p[off:], v) }
}
func put16(off int, v uint16) func([]byte) {
	return func(p []byte) { binary.LittleEndian.PutUint16(p[off:], v) }
}
func put64(off int, v uint64) func([]byte) {
	return func(p []byte) { binary.LittleEndian.PutUint64(p[off:], v) }
}

// find returns the file offset of the inode of a path and its first chunk index.
func inodeAt(t *testing.T, data []byte, path string) int {
	tree, err := Open(data)
	if err != nil {
		t.Fatal(err)
	}
	return 0x2000 + 32*int(tree.inodeOf(tree.exact(path)).nid)
}

func TestMutations(t *testing.T) {
	good, _ := boot(t, "zstd-blake3-base")
	hosts, tool, lib, data := inodeAt(t, good, "etc/hosts"), inodeAt(t, good, "usr/bin/tool"), inodeAt(t, good, "lib"), inodeAt(t, good, "data")
	rootAt := 0x2000 + 4096
	table := int(binary.LittleEndian.Uint64(good[extOff+24:]))
	c := abi.ErrCorrupt
	for _, m := range []mutation{
		{"magic", c, "magic", true, put32(1024, 1)},
		{"checksum", c, "checksum", true, put32(1028, 1)},
		{"compat", c, "feature_compat", true, put32(1032, 0)},
		{"block bits", c, "blkszbits", true, func(p []byte) { p[1036] = 10 }},
		{"tarfs blocks", abi.ErrUnsupported, "tarfs", true, func(p []byte) { p[1036] = 9 }},
		{"slots", c, "sb_extslots", true, func(p []byte) { p[1037] = 1 }},
		{"root nid 0", c, "root nid", true, put16(1038, 0)},
		{"root nid wrong", c, "", true, put16(1038, 129)},
		{"inos 0", c, "inodes", true, put64(1040, 0)},
		{"inos", c, "inos", false, put64(1040, 5)},
		{"blocks", c, "blocks", false, put32(1060, 5)},
		{"meta_blkaddr", abi.ErrTruncated, "meta_blkaddr", true, put32(1064, 99)},
		{"xattr_blkaddr", c, "xattr_blkaddr", true, put32(1068, 1)},
		{"incompat", c, "feature_incompat", true, put32(1104, 0x1c)},
		{"union", c, "compression configuration", true, put16(1108, 1)},
		{"devices", c, "extra_devices", true, put16(1110, 2)},
		{"devt_slotoff", c, "devt_slotoff", true, put16(1112, 12)},
		{"two compressors", c, "one compressor", true, put32(1152, 0x1000196)},
		{"no digest", c, "one compressor and one digest", true, put32(1152, 0x1000190)},
		{"unknown flag", c, "flags", true, put32(1152, 0x1000594)},
		{"encrypted", abi.ErrUnsupported, "encrypted", true, put32(1152, 0x2000194)},
		{"blob table offset", c, "blob table", true, put64(1160, 4097)},
		{"blob table size", c, "blob table", true, put32(1168, 255)},
		{"blob table beyond", abi.ErrTruncated, "blob table", true, put32(1168, 256*1000)},
		{"chunk size", c, "chunk_size", true, put32(1172, 5000)},
		{"chunk table offset", c, "chunk table", true, put64(1176, 1<<63)},
		{"chunk table size", c, "chunk table", true, put64(1184, 81)},
		{"no chunk table", abi.ErrUnsupported, "without chunk table", true, put64(1184, 0)},
		{"prefetch", c, "prefetch table", true, func(p []byte) { put64(1192, 4097)(p); put32(1200, 4)(p) }},
		{"slot id", c, "device slot's blob id", true, func(p []byte) { p[1408] = 'y' }},
		{"slot blocks", c, "device slot's blocks", true, put32(1408+64, 0)},
		{"mapped", c, "mapped_blkaddr", false, put32(1408+68, 1)},
		{"blob id", c, "blob id", true, func(p []byte) { p[4096+63] = 1 }},
		{"blob index", c, "blob index", true, put32(4096+64, 1)},
		{"blob chunk size", c, "blob chunk_size", true, put32(4096+68, 4096)},
		{"chunk count 0", c, "chunk count", true, put32(4096+72, 0)},
		{"chunk count", c, "size of chunk info", true, put32(4096+72, 15)},
		{"compressor", c, "compressor", true, put32(4096+76, 9)},
		{"digester", c, "digester", true, put32(4096+80, 2)},
		{"unaligned", c, "aligned", true, put32(4096+84, 0x70000022)},
		{"feature bit 31", c, "features", true, put32(4096+84, 0xf0000023)},
		{"v2", abi.ErrUnsupported, "version 2", true, put32(4096+84, 0x70000027)},
		{"batch", abi.ErrUnsupported, "batch", true, put32(4096+84, 0x700000a7)},
		{"compressed size", c, "compressed size", true, put64(4096+88, 1<<41)},
		{"uncompressed size", c, "uncompressed size", true, put64(4096+96, 1<<45)},
		{"ci sizes", c, "stored chunk info", true, put64(4096+120, 1<<20)},
		{"cipher", c, "cipher", true, put32(4096+216, 2)},
		{"chunk flags", c, "chunk's flags", true, put32(table+36, 2)},
		{"chunk raw bit", c, "chunk's compressed flag", true, func(p []byte) { p[table+36] ^= 1 }},
		{"chunk blob", c, "chunk's blob", true, put32(table+32, 1)},
		{"chunk size 0", c, "uncompressed size", true, put32(table+44, 0)},
		{"chunk stored", c, "compressed size", true, put32(table+40, 1<<25)},
		{"chunk offset", c, "position in the blob", true, put64(table+48, 1<<60)},
		{"chunk expanded", c, "position in the expansion", true, put64(table+56, 1)},
		{"chunk index", c, "index", true, put32(table+72, 99)},
		{"chunk twice", c, "two entries", true, func(p []byte) { copy(p[table:table+80], p[table+80:]) }},
		{"root is a file", c, "layout", true, put16(rootAt+4, 0o100644)},
		{"format bits", c, "i_format", true, put16(hosts, 0x19)},
		{"layout", c, "layout", true, put16(hosts, 5)},
		{"mode", c, "i_mode", true, put16(hosts+4, 0o644)},
		{"size", c, "bytes", true, put64(hosts+8, 21)},
		{"size negative", c, "i_size", true, put64(hosts+8, 1<<63)},
		{"size huge", c, "i_size", true, put64(hosts+8, 1<<62)},
		{"chunk format", c, "chunk format", true, put32(hosts+16, 0x68)},
		{"chunk format bits", c, "chunk format", false, put32(hosts+16, 0x24)},
		{"nsec", c, "i_mtime_nsec", true, put32(hosts+40, 1000000000)},
		{"nlink", c, "i_nlink", true, put32(hosts+44, 2)},
		{"nlink of links", c, "", true, put32(tool+44, 2)},
		{"nlink of a directory", c, "i_nlink", true, put32(data+44, 9)},
		{"nlink 0 of a symlink", c, "i_nlink", true, put32(lib+44, 0)},
		{"ci index", c, "chunk index", true, put16(hosts+64, 14)},
		{"ci index high", c, "chunk index", true, func(p []byte) { p[hosts+67] = 1 }},
		{"other chunk", c, "", true, func(p []byte) { p[hosts+64] ^= 1 }},
		{"blob of index", c, "blob of a chunk index", true, func(p []byte) { p[hosts+66] = 2 }},
		{"no device", c, "blob of a chunk index", true, func(p []byte) { p[hosts+66] = 0 }},
		{"block of index", c, "block", true, put32(hosts+68, 999)},
		{"symlink size", c, "", true, put64(lib+8, 5000)},
		{"symlink empty", c, "symlink", true, put64(lib+8, 0)},
		{"symlink NUL", c, "NUL", true, func(p []byte) { p[lib+64] = 0 }},
		{"xattr count", abi.ErrUnsupported, "shared xattrs", true, put16(lib+2, 2)},
		{"nameoff", c, "nameoff", true, put16(rootAt+64+8, 13)},
		{"nameoff 0", c, "nameoff", true, put16(rootAt+64+8, 0)},
		{"nameoff falls", c, "nameoff", true, put16(rootAt+64+12+8, 0)},
		{"dot", c, "nid of .", true, put64(rootAt+64, 5)},
		{"file type", c, "file_type", true, func(p []byte) { p[rootAt+64+2*12+10] = 1 }},
		{"nid far", c, "", true, put64(rootAt+64+2*12, 1<<32)},
		{"nid beyond", abi.ErrTruncated, "inode", true, put64(rootAt+64+2*12, 1<<31)},
		{"cycle", c, "reached twice", true, put64(rootAt+64+2*12, 128)},
		{"twice", c, "", true, func(p []byte) { copy(p[rootAt+64+2*12:][:8], p[rootAt+64+3*12:][:8]) }},
		{"slash in a name", c, "name", true, func(p []byte) {
			at := rootAt + bytes.Index(p[rootAt:], []byte("...datadir"))
			p[at+4] = '/'
		}},
		{"order", c, "name", true, func(p []byte) { p[rootAt+bytes.Index(p[rootAt:], []byte("...datadir"))+3] = 'z' }},
	} {
		t.Run(m.name, func(t *testing.T) {
			p := slices.Clone(good)
			m.do(p)
			if bytes.Equal(p, good) {
				t.Fatal("nothing changed")
			}
			tree, err := Open(p)
			if (err != nil) != m.open || err != nil && tree != nil {
				t.Errorf("Open: %v", err)
			}
			errs := Check(p)
			if len(errs) == 0 {
				t.Fatal("Check finds nothing")
			}
			if m.open && errs[0].Error() != err.Error() {
				t.Logf("Open says %v, Check first %v", err, errs[0])
			}
			found := false
			for _, err := range errs {
				found = found || errors.Is(err, m.class) && strings.Contains(err.Error(), m.text)
			}
			if !found {
				t.Errorf("want %v with %q, got %v", m.class, m.text, errs)
			}
		})
	}
}

func TestCheckGoesOn(t *testing.T) {
	p, _ := boot(t, "zstd-blake3-base")
	put64(1040, 5)(p)
	put32(1060, 5)(p)
	put32(inodeAt2(t, p, "etc/hosts")+44, 1)(p)
	put32(inodeAt2(t, p, "data")+44, 9)(p)
	if errs := Check(p); len(errs) != 3 {
		t.Errorf("%d violations: %v", len(errs), errs)
	}
}

func inodeAt2(t *testing.T, p []byte, path string) int {
	q, _ := boot(t, "zstd-blake3-base")
	_ = p
	return inodeAt(t, q, path)
}

func TestTruncatedBootstraps(t *testing.T) {
	for _, v := range []string{"zstd-blake3-base", "merge-base-mid-top", "zstd-blake3-nodata"} {
		data, _ := boot(t, v)
		for n := 0; n <= len(data); n += 509 {
			for _, cut := range []int{n - 1, n, n + 1} {
				if cut < 0 || cut >= len(data) {
					continue
				}
				if _, err := Open(data[:cut]); err == nil || !errors.Is(err, abi.ErrCorrupt) {
					t.Fatalf("%s cut to %d: %v", v, cut, err)
				}
			}
		}
		for n := 0; n < len(data); n += 4096 {
			if _, err := Open(data[:n]); err == nil || !errors.Is(err, abi.ErrCorrupt) {
				t.Errorf("%s cut to %d: %v", v, n, err)
			}
		}
	}
}

func TestBlobFiles(t *testing.T) {
	for v := range supported {
		if strings.HasPrefix(v, "merge-") {
			continue
		}
		t.Run(v, func(t *testing.T) {
			blob := layerBlob(t, v)
			data, _ := boot(t, v)
			tree, err := Open(data)
			if err != nil {
				t.Fatal(err)
			}
			f, err := OpenBlob(bytes.NewReader(blob), int64(len(blob)))
			if err != nil {
				t.Fatal(err)
			}
			part := func(m *Member) []byte { return decode(t, m.Codec, blob[m.Offset:m.Offset+m.Stored], int(m.Size)) }
			if f.Boot != nil && !bytes.Equal(part(f.Boot), data) {
				t.Error("bootstrap differs")
			}
			if len(tree.Blobs()) == 0 {
				if f.Meta != nil || f.Data != nil {
					t.Error("data where there is none")
				}
				return
			}
			var digests []byte
			if f.Digest != nil {
				digests = part(f.Digest)
			}
			array := part(f.Meta)
			for _, err := range tree.CheckChunkInfos(0, array, digests) {
				t.Error(err)
			}
			header := blob[f.Head.Offset : f.Head.Offset+4096]
			run := AppendRuntimeMeta(nil, array, header)
			if len(run) != (len(array)+4095)/4096*4096+4096 || !bytes.Equal(run[len(run)-4096:], header) || !bytes.HasPrefix(run, array) {
				t.Error("runtime blob.meta")
			}
			bad := slices.Clone(array)
			bad[8] ^= 1
			if errs := tree.CheckChunkInfos(0, bad, digests); len(errs) == 0 {
				t.Error("a changed array passes")
			}
			if errs := tree.CheckChunkInfos(0, array[1:], digests); len(errs) != 1 {
				t.Error("a short array passes")
			}
			for _, cut := range []int{0, 1, 511, 512, len(blob) - 1, len(blob) - 512, len(blob) - 513, len(blob) - 4096, len(blob) - 4097} {
				if f, err := OpenBlob(bytes.NewReader(blob[:cut]), int64(len(blob))); err == nil || !errors.Is(err, abi.ErrCorrupt) || f != nil {
					t.Errorf("cut to %d, claimed whole: %v", cut, err)
				}
			}
			for n := range 700 {
				if f, err := OpenBlob(bytes.NewReader(blob), int64(len(blob)-1-n)); err == nil {
					t.Errorf("last %d bytes missing: %+v", n+1, f)
				}
			}
		})
	}
}

func TestTarHeader(t *testing.T) {
	h := TarHeader("image.blob", 6)
	if string(h[148:156]) != "0005625\x00" {
		t.Errorf("checksum %q", h[148:156])
	}
	for _, size := range []int64{0, 1, 1<<33 - 1, 1 << 33, 1 << 40} {
		name, n, ok := parseTarHeader(TarHeader("blob.meta", size))
		if !ok || name != "blob.meta" || n != size {
			t.Errorf("%d: %q %d %v", size, name, n, ok)
		}
	}
}

func TestChunkInfoWords(t *testing.T) {
	for _, c := range []chunk{
		{raw: 16931, expanded: 0, stored: 4828, offset: 0},
		{raw: 13400, expanded: 20480, stored: 2974, offset: 4828},
		{raw: 1 << 24, expanded: 1<<44 - 4096, stored: 1<<24 - 1, offset: 1<<40 - 1},
	} {
		p := appendChunkInfo(nil, &c)
		if v := ChunkInfoAt(p, 0); v.Raw != c.raw || v.Stored != c.stored || v.Offset != int64(c.offset) || v.Expanded != int64(c.expanded) {
			t.Errorf("%+v became %+v", c, v)
		}
	}
	want := []byte{0, 0, 0, 0, 0, 0x20, 0x22, 4, 0, 0, 0, 0, 0, 0xb0, 0x2d, 1}
	if p := appendChunkInfo(nil, &chunk{raw: 16931, stored: 4828}); !bytes.Equal(p, want) {
		t.Errorf("% x", p)
	}
}

// Directories that share one block would make a small file a huge tree.
func TestSharedDirectoryBlocks(t *testing.T) {
	var in []any
	for k := range 300 {
		for j := range 3 {
			in = append(in, file("d"+dec(k)+"/"+strings.Repeat("n", 250)+dec(j), ""))
		}
	}
	for j := range 40 {
		in = append(in, file("d0/"+strings.Repeat("m", 200)+dec(j), ""))
	}
	data, err := layer(t, in...).Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := Open(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range tree.dirs[1:] { // no blob: the metadata starts at 0
		copy(data[32*tree.inodeOf(d).nid:][:24], data[32*tree.inodeOf(tree.dirs[1]).nid:])
	}
	for _, err := range []error{second(Open(data)), errors.Join(Check(data)...)} {
		if err == nil || !errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("got %v", err)
		}
	}
}

// Release 2.2.0 writes the links of the source for symlinks and devices that are hard links of each other.
func TestLinksOfOldBuilders(t *testing.T) {
	p, _ := boot(t, "zstd-blake3-base")
	put32(inodeAt(t, p, "lib")+44, 2)(p)
	if errs := Check(p); len(errs) != 0 {
		t.Error(errs)
	}
}

func TestCompactInode(t *testing.T) {
	p, _ := boot(t, "zstd-blake3-base")
	at := inodeAt(t, p, "etc/hosts")
	old := slices.Clone(p[at : at+72])
	v := make([]byte, 72)
	put16(0, 8)(v) // compact, chunk-based
	copy(v[4:], old[4:6])
	put16(6, 1)(v)
	put32(8, binary.LittleEndian.Uint32(old[8:]))(v)
	copy(v[16:24], old[16:24])
	put16(24, 1000)(v)
	put16(26, 1001)(v)
	copy(v[32:], old[64:])
	copy(p[at:], v)
	tree, err := Open(p)
	if err != nil {
		t.Fatal(err)
	}
	i := tree.inodeOf(tree.exact("etc/hosts"))
	if i.uid != 1000 || i.gid != 1001 || i.mode != 0o100600 || i.size != 20 || i.mtime != 0 || i.count != 1 {
		t.Errorf("%+v", i)
	}
	if errs := Check(p); len(errs) != 0 {
		t.Error(errs)
	}
	if _, err := tree.Bootstrap(); err != nil { // written in the extended form
		t.Error(err)
	}
}
