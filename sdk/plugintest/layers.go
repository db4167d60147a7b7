package plugintest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// source is a layer that the kit made, as tar and as stored.
type source struct {
	name   string
	tar    []byte
	stored []byte
}

const gzipLayer = "application/vnd.oci.image.layer.v1.tar+gzip"

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// member is one member of a tar.
type member struct {
	tar.Header
	body []byte
}

var noon = time.Date(2023, 5, 6, 12, 0, 7, 0, time.UTC)

func file(name string, body []byte) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: noon, Size: int64(len(body))}, body}
}

func other(typ byte, name, link string) member {
	mode := int64(0o755)
	if typ == tar.TypeSymlink {
		mode = 0o777
	}
	return member{tar.Header{Name: name, Typeflag: typ, Linkname: link, Mode: mode, ModTime: noon}, nil}
}

// with changes the header of a member.
func (m member) with(fn func(h *tar.Header)) member {
	fn(&m.Header)
	return m
}

// words is text that compresses, and noise is not; equal seeds give equal bytes.
func words(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = append(b, "lorem ipsum dolor sit amet "[r.IntN(13):13+r.IntN(14)]...)
	}
	return b[:n]
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), 7})
	_, _ = r.Read(b)
	return b
}

// layerSet returns the layers that every plugin has to convert. Nobody changes them.
var layerSet = sync.OnceValue(func() []source { return makeLayerSet(setBytes) })

func makeLayerSet(text int) []source {
	small := []member{}
	for i := range 1000 {
		small = append(small, file(fmt.Sprintf("d%02d/file-%d", i%37, i), words(uint64(i), i*7%3000)))
	}
	big := append(append(words(1, text), noise(2, text/2)...), make([]byte, text/4)...)
	return []source{
		makeLayer("empty"),
		makeLayer("one of everything", everything()...),
		makeLayer("1000 small files", small...),
		makeLayer("a big file", file("big", big), file("again", big[:text/8])),
		makeLayer("whiteouts", whiteouts()...),
		makeLayer("hard links", hardLinks()...),
		makeLayer("devices", devices()...),
		makeLayer("attributes", attributes()...),
	}
}

func everything() []member {
	long := strings.Repeat("directory/", 20)
	return []member{
		other(tar.TypeDir, "./", ""), other(tar.TypeDir, "etc/", ""),
		file("etc/motd", []byte("welcome\n")), file("etc/empty", nil),
		other(tar.TypeSymlink, "etc/link", "../etc/motd"), other(tar.TypeSymlink, "etc/dangling", "/nowhere/at/all"),
		file("bin/tool", words(3, 100_000)).with(func(h *tar.Header) { h.Mode, h.Uid, h.Gid = 0o4755, 1000, 70_000 }),
		file(long+"deep", []byte("deep")), file("name with spaces, ünïcode", []byte("x")),
		file("old", []byte("old")).with(func(h *tar.Header) { h.ModTime = time.Unix(0, 0) }),
		other(tar.TypeDir, "tmp/", "").with(func(h *tar.Header) { h.Mode = 0o1777 }),
		file("etc/motd", []byte("a later one replaces\n")),
	}
}

func whiteouts() []member {
	return []member{
		other(tar.TypeDir, "etc/", ""), file("etc/.wh.motd", nil), file("bin/.wh..wh..opq", nil),
		file("bin/new", []byte("new")), file(".wh.tmp", nil), file("etc/issue", []byte("issue")),
	}
}

func hardLinks() []member {
	return []member{
		file("a/first", words(4, 50_000)), other(tar.TypeLink, "a/second", "a/first"), other(tar.TypeLink, "third", "a/second"),
		file("b/first", nil), other(tar.TypeLink, "b/second", "b/first"),
	}
}

func devices() []member {
	dev := func(typ byte, name string, major, minor int64) member {
		return other(typ, name, "").with(func(h *tar.Header) { h.Devmajor, h.Devminor, h.Mode = major, minor, 0o660 })
	}
	return []member{
		other(tar.TypeDir, "dev/", ""), dev(tar.TypeChar, "dev/null", 1, 3), dev(tar.TypeBlock, "dev/sda", 8, 0),
		dev(tar.TypeBlock, "dev/nvme", 259, 300), other(tar.TypeFifo, "dev/fifo", ""),
	}
}

func attributes() []member {
	x := func(pairs ...string) func(h *tar.Header) {
		return func(h *tar.Header) {
			h.PAXRecords = map[string]string{}
			for i := 0; i < len(pairs); i += 2 {
				h.PAXRecords["SCHILY.xattr."+pairs[i]] = pairs[i+1]
			}
		}
	}
	return []member{
		file("capable", words(5, 500)).with(x("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")),
		other(tar.TypeDir, "d/", "").with(x("user.b", "2", "user.a", "1")), file("user", nil).with(x("user.long", strings.Repeat("v", 3000))),
	}
}

// makeLayer writes a tar with the standard library and compresses it.
func makeLayer(name string, members ...member) source {
	var raw, stored bytes.Buffer
	w := tar.NewWriter(&raw)
	for _, m := range members {
		if err := w.WriteHeader(&m.Header); err != nil {
			panic(err) // the members are constants of this package
		}
		_, _ = w.Write(m.body)
	}
	_ = w.Close()
	z, _ := gzip.NewWriterLevel(&stored, gzip.BestSpeed)
	_, _ = z.Write(raw.Bytes())
	_ = z.Close()
	return source{name, raw.Bytes(), stored.Bytes()}
}
