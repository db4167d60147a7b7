package badinput

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/host/graph/graphtest"
)

// file is a regular member of a tar.
func file(name, body string) member {
	return member{tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), ModTime: time.Unix(1e9, 0)}, body}
}

// other is a member of another kind.
func other(kind byte, name, link string) member {
	return member{Header: tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: 0o755, ModTime: time.Unix(1e9, 0)}}
}

type member struct {
	tar.Header
	body string
}

// pack makes a tar with archive/tar.
func pack(w io.Writer, members ...member) {
	tw := tar.NewWriter(w)
	for _, m := range members {
		if m.Format == 0 {
			m.Format = tar.FormatPAX
		}
		if m.Typeflag == 0 {
			m.Typeflag = tar.TypeReg
		}
		if err := tw.WriteHeader(&m.Header); err != nil {
			panic(err)
		}
		if _, err := io.WriteString(tw, m.body); err != nil {
			panic(err)
		}
	}
	if err := tw.Close(); err != nil {
		panic(err)
	}
}

func packed(members ...member) []byte {
	var b bytes.Buffer
	pack(&b, members...)
	return b.Bytes()
}

// edited changes the first header block of a tar and puts its checksum right.
func edited(b []byte, off int, with string) []byte {
	copy(b[off:], with)
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// plain is an uncompressed layer: offsets in its errors are those of the tar.
func (w *world) plain(raw []byte) {
	w.image(graphtest.Layer{Desc: w.Put(ocispec.MediaTypeImageLayer, raw), DiffID: digest.FromBytes(raw)})
}

// stored is a layer of any bytes.
func (w *world) stored(mediaType string, b []byte, diffID digest.Digest) (d ocispec.Descriptor) {
	d = w.Put(mediaType, b)
	w.image(graphtest.Layer{Desc: d, DiffID: diffID})
	return d
}

// zip compresses, or not: stored blocks make offsets that do not depend on the compressor.
func zip(raw []byte, level int) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, level)
	z.Write(raw)
	z.Close()
	return b.Bytes()
}

var some = packed(file("etc/motd", "hello\n"), file("etc/issue", strings.Repeat("x", 3000)))

// layers are the cases of layers. Their order is that of the docs.
var layers = []bad{
	{"gzip cut in the middle", func(w *world) {
		d := w.stored(ocispec.MediaTypeImageLayerGzip, zip(some, gzip.NoCompression)[:2000], digest.FromBytes(some))
		w.fails(abi.ErrTruncated, short(d.Digest), "gzip at 0x7d0")
	}},
	{"gzip cut in its trailer", func(w *world) {
		b := zip(some, gzip.NoCompression)
		d := w.stored(ocispec.MediaTypeImageLayerGzip, b[:len(b)-3], digest.FromBytes(some))
		w.fails(abi.ErrTruncated, short(d.Digest), fmt.Sprintf("gzip at 0x%x", len(b)-3))
	}},
	{"a flipped bit in gzip data", func(w *world) {
		b := zip(some, gzip.NoCompression)
		b[2000] ^= 1
		d := w.stored(ocispec.MediaTypeImageLayerGzip, b, digest.FromBytes(some))
		w.fails(abi.ErrCorrupt, short(d.Digest), fmt.Sprintf("gzip at 0x%x", len(b)))
	}},
	{"malformed deflate data", func(w *world) {
		b := append(zip(nil, gzip.NoCompression)[:10], 0xff, 0xff, 0xff, 0xff, 0xff)
		d := w.stored(ocispec.MediaTypeImageLayerGzip, b, digest.FromBytes(some))
		w.fails(abi.ErrCorrupt, short(d.Digest), "gzip at 0x")
	}},
	{"a gzip bomb of 2 GiB, with `--limit-layer-size=256MiB`", func(w *world) {
		w.limits.LayerBytes = 256 << 20
		w.bomb(ocispec.MediaTypeImageLayerGzip, gzipMember, 64)
		w.fails(abi.ErrLimit, short(w.layerDigest()), "268435456")
	}},
	{"a zstd bomb: more than 1100 bytes out of each", func(w *world) {
		w.bomb(ocispec.MediaTypeImageLayerZstd, zstdFrame, 40)
		w.fails(abi.ErrLimit, short(w.layerDigest()), "1100")
	}},
	{"a second gzip member after the first (works)", func(w *world) {
		b := append(zip(some[:1000], gzip.BestSpeed), zip(some[1000:], gzip.BestSpeed)...)
		w.stored(ocispec.MediaTypeImageLayerGzip, b, digest.FromBytes(some))
		w.names = []string{"etc/motd", "etc/issue"}
	}},
	{"zeros after the last gzip member (works)", func(w *world) {
		w.stored(ocispec.MediaTypeImageLayerGzip, append(zip(some, gzip.BestSpeed), make([]byte, 1000)...), digest.FromBytes(some))
		w.names = []string{"etc/motd"}
	}},
	{"garbage after the last gzip member", func(w *world) {
		b := zip(some, gzip.NoCompression)
		d := w.stored(ocispec.MediaTypeImageLayerGzip, append(b, "garbage"...), digest.FromBytes(some))
		w.fails(abi.ErrCorrupt, short(d.Digest), fmt.Sprintf("gzip at 0x%x", len(b)))
	}},
	{"garbage after the end of the tar (works: it has no meaning and is part of the diff ID)", func(w *world) {
		w.plain(append(bytes.Clone(some), "garbage"...))
		w.names = []string{"etc/motd"}
	}},
	{"a zstd layer (works)", func(w *world) {
		z, _ := zstd.NewWriter(nil)
		w.stored(ocispec.MediaTypeImageLayerZstd, z.EncodeAll(some, nil), digest.FromBytes(some))
		w.names = []string{"etc/motd", "etc/issue"}
	}},
	{"zstd cut in the middle", func(w *world) {
		z, _ := zstd.NewWriter(nil)
		b := z.EncodeAll(some, nil)
		d := w.stored(ocispec.MediaTypeImageLayerZstd, b[:len(b)-5], digest.FromBytes(some))
		w.fails(abi.ErrTruncated, short(d.Digest), "zstd at 0x")
	}},
	{"garbage after the last zstd frame", func(w *world) {
		b := zstdFrame(some)
		d := w.stored(ocispec.MediaTypeImageLayerZstd, append(b, "garbage"...), digest.FromBytes(some))
		w.fails(abi.ErrCorrupt, short(d.Digest), "zstd at 0x")
	}},
	{"gzip that is declared as zstd (works, with a warning)", func(w *world) {
		w.stored(ocispec.MediaTypeImageLayerZstd, zip(some, gzip.BestSpeed), digest.FromBytes(some))
		w.names = []string{"etc/motd"}
	}},
	{"another diff ID than the config says", func(w *world) {
		d := w.stored(ocispec.MediaTypeImageLayerGzip, zip(some, gzip.BestSpeed), notSuch)
		w.fails(abi.ErrDigest, short(d.Digest), notSuch.String(), digest.FromBytes(some).String())
	}},
	{"an encrypted layer", func(w *world) {
		d := w.stored(ocispec.MediaTypeImageLayerGzip+"+encrypted", []byte("secret"), notSuch)
		w.fails(abi.ErrUnsupported, short(d.Digest), "+encrypted")
	}},
	{"a foreign layer", func(w *world) {
		d := w.stored(graph.DockerForeignGzip, zip(some, gzip.BestSpeed), digest.FromBytes(some))
		w.fails(abi.ErrUnsupported, short(d.Digest), graph.DockerForeignGzip)
	}},
	{"a layer that is no tar", func(w *world) {
		w.plain([]byte(strings.Repeat("this is no tar\n", 100)))
		w.fails(abi.ErrCorrupt, "tar at 0x0")
	}},
	{"a tar cut in a file", func(w *world) {
		w.plain(some[:2048])
		w.fails(abi.ErrTruncated, "tar at 0x800", `"etc/issue"`)
	}},
	{"a name with `..` that leaves the root", func(w *world) {
		w.plain(packed(file("a", ""), file("x/../../etc/passwd", "root::0:0::/:\n")))
		w.fails(abi.ErrCorrupt, "tar at 0x200", `"x/../../etc/passwd"`)
	}},
	{"a name with `..` that stays inside (works: cleaned)", func(w *world) {
		w.plain(packed(file("x/../etc/passwd", "root::0:0::/:\n")))
		w.names = []string{"etc/passwd"}
	}},
	{"an absolute name (works: relative to the image's root)", func(w *world) {
		w.plain(packed(file("/etc/passwd", "root::0:0::/:\n"), file("//etc//group", "")))
		w.names = []string{"etc/passwd", "etc/group"}
	}},
	{"a file below a symbolic link (works: the link is followed inside the image)", func(w *world) {
		w.plain(packed(other(tar.TypeDir, "usr/lib/", ""), other(tar.TypeSymlink, "lib", "usr/lib"), file("lib/libc.so", "\x7fELF")))
		w.names = []string{"lib", "usr/lib/libc.so"}
	}},
	{"a file below a symbolic link to `/../../etc` (works: it cannot leave the image)", func(w *world) {
		w.plain(packed(other(tar.TypeSymlink, "out", "/../../etc"), file("out/passwd", "root::0:0::/:\n")))
		w.names = []string{"out", "etc/passwd"}
	}},
	{"a file below symbolic links that lead in a circle", func(w *world) {
		w.plain(packed(other(tar.TypeSymlink, "a", "b"), other(tar.TypeSymlink, "b", "a"), file("a/x", "")))
		w.fails(abi.ErrCorrupt, "0x400", `"a/x"`)
	}},
	{"a file below a file", func(w *world) {
		w.plain(packed(file("a", "1"), file("a/x", "2")))
		w.fails(abi.ErrCorrupt, "0x400", `"a/x"`)
	}},
	{"a hard link to nowhere", func(w *world) {
		w.plain(packed(file("a", "1"), other(tar.TypeLink, "b", "etc/nowhere")))
		w.fails(abi.ErrCorrupt, "0x400", `"b"`, `etc/nowhere`)
	}},
	{"a hard link to a directory", func(w *world) {
		w.plain(packed(other(tar.TypeDir, "d/", ""), other(tar.TypeLink, "b", "d")))
		w.fails(abi.ErrCorrupt, "0x200", `"b"`)
	}},
	{"a hard link that leaves the root", func(w *world) {
		w.plain(packed(other(tar.TypeLink, "b", "../../etc/shadow")))
		w.fails(abi.ErrCorrupt, "tar at 0x0", `"b"`)
	}},
	{"the same name three times (works: the last one counts)", func(w *world) {
		w.plain(packed(file("a", "first"), other(tar.TypeDir, "a/", ""), file("a", "last")))
		w.names, w.count = []string{"a"}, 2
	}},
	{"a directory of 100 000 entries (works)", func(w *world) {
		raw := w.stream(ocispec.MediaTypeImageLayer, func(out io.Writer) {
			tw := tar.NewWriter(out)
			for i := range 100_000 {
				h := tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d/%06d", i*7919%100_000), Mode: 0o644, Format: tar.FormatUSTAR}
				w.must(tw.WriteHeader(&h))
			}
			w.must(tw.Close())
		})
		w.image(graphtest.Layer{Desc: raw, DiffID: raw.Digest})
		w.names, w.count = []string{"d/000000", "d/099999"}, 100_002
	}},
	{"a name of 255 bytes (works)", func(w *world) {
		w.plain(packed(file("d/"+strings.Repeat("n", 255), "1")))
		w.names = []string{"d/" + strings.Repeat("n", 255)}
	}},
	{"a name of 256 bytes", func(w *world) {
		w.plain(packed(file("d/"+strings.Repeat("n", 256), "1")))
		w.fails(abi.ErrLimit, "tar at 0x", "256 bytes", "at most 255")
	}},
	{"a path of 5 000 bytes", func(w *world) {
		w.plain(packed(file(strings.Repeat("directory/", 500)+"x", "")))
		w.fails(abi.ErrLimit, "tar at 0x", "5001 bytes")
	}},
	{"device nodes and a fifo (work)", func(w *world) {
		null := other(tar.TypeChar, "dev/null", "")
		null.Devmajor, null.Devminor = 1, 3
		loop := other(tar.TypeBlock, "dev/loop0", "")
		loop.Devmajor = 7
		w.plain(packed(null, loop, other(tar.TypeFifo, "run/initctl", "")))
		w.names = []string{"dev/null", "dev/loop0", "run/initctl"}
	}},
	{"times before 1970 (work)", func(w *world) {
		old := file("a", "1")
		old.ModTime = time.Unix(-86400*365, 0)
		w.plain(packed(old))
		w.names = []string{"a"}
	}},
	{"a file of 8 GiB in base-256, of which 1 KiB is there", func(w *world) {
		raw := edited(packed(member{tar.Header{Name: "big", Mode: 0o644, Format: tar.FormatGNU}, ""}), 124, "\x80\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00")
		w.plain(raw)
		w.fails(abi.ErrTruncated, "tar at 0x600", `"big"`)
	}},
	{"a size below zero in base-256", func(w *world) {
		w.plain(edited(packed(member{tar.Header{Name: "big", Mode: 0o644, Format: tar.FormatGNU}, ""}), 124, strings.Repeat("\xff", 12)))
		w.fails(abi.ErrCorrupt, "tar at 0x0", `"big"`)
	}},
	{"an extended header of 1 GiB", func(w *world) {
		raw := packed(member{tar.Header{Name: "x", Mode: 0o644, Format: tar.FormatGNU}, ""})
		w.plain(edited(edited(raw, 124, "10000000000\x00"), 156, "x"))
		w.fails(abi.ErrLimit, "tar at 0x")
	}},
	{"a name with a zero byte", func(w *world) {
		body := "17 path=etc\x00passwd\n"
		body = fmt.Sprintf("%d%s", len(body), body[2:])
		raw := packed(member{tar.Header{Name: "x", Mode: 0o644, Size: int64(len(body)), Format: tar.FormatUSTAR}, body}, file("y", ""))
		w.plain(edited(raw, 156, "x"))
		w.fails(abi.ErrCorrupt, "tar at 0x")
	}},
	{"a whiteout of nothing", func(w *world) {
		w.plain(packed(file("etc/.wh.", "")))
		w.fails(abi.ErrCorrupt, "tar at 0x0", `"etc/.wh."`)
	}},
}

// layerDigest is the digest of the only layer.
func (w *world) layerDigest() digest.Digest {
	var m ocispec.Manifest
	w.must(json.Unmarshal(w.Get(w.root.Digest), &m))
	return m.Layers[0].Digest
}

// bomb is a layer with one file of n times 32 MiB of zeros.
func (w *world) bomb(mediaType string, compress func([]byte) []byte, n int) {
	var head bytes.Buffer
	tw := tar.NewWriter(&head)
	w.must(tw.WriteHeader(&tar.Header{Name: "bomb", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(n) << 25}))
	first, rest := compress(head.Bytes()), compress(make([]byte, 32<<20))
	d := w.stream(mediaType, func(out io.Writer) {
		for _, b := range append([][]byte{first}, slices.Repeat([][]byte{rest}, n)...) {
			_, err := out.Write(b)
			w.must(err)
		}
	})
	w.image(graphtest.Layer{Desc: d, DiffID: notSuch})
}

func gzipMember(b []byte) []byte { return zip(b, gzip.BestSpeed) }

func zstdFrame(b []byte) []byte {
	z, _ := zstd.NewWriter(nil)
	return z.EncodeAll(b, nil)
}
