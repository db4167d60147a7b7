// Package kitchen makes layers for tests: real names, sizes and attributes at and around the limits of formats. Everything
// is deterministic and made with the standard library's tar writer.
package kitchen

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Mtime is what entries have that do not say otherwise.
var Mtime = time.Unix(1700000000, 0)

// Tar writes a layer.
type Tar struct {
	buf bytes.Buffer
	w   *tar.Writer
}

// New starts a layer.
func New() *Tar {
	t := &Tar{}
	t.w = tar.NewWriter(&t.buf)
	return t
}

// Bytes ends the layer and returns it.
func (t *Tar) Bytes() []byte {
	if err := t.w.Close(); err != nil {
		panic(err)
	}
	return t.buf.Bytes()
}

// Add writes an entry. Mode and time have defaults.
func (t *Tar) Add(h tar.Header, body []byte) *Tar {
	if h.ModTime.IsZero() {
		h.ModTime = Mtime
	}
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	if h.Mode == 0 {
		h.Mode = 0o644
		if h.Typeflag == tar.TypeDir {
			h.Mode = 0o755
		}
	}
	h.Size, h.Format = int64(len(body)), tar.FormatPAX
	if err := t.w.WriteHeader(&h); err != nil {
		panic(fmt.Sprintf("%s: %v", h.Name, err))
	}
	if _, err := t.w.Write(body); err != nil {
		panic(err)
	}
	return t
}

// File adds a regular file.
func (t *Tar) File(name string, body []byte) *Tar { return t.Add(tar.Header{Name: name}, body) }

// Dir adds directories.
func (t *Tar) Dir(names ...string) *Tar {
	for _, n := range names {
		t.Add(tar.Header{Name: n + "/", Typeflag: tar.TypeDir}, nil)
	}
	return t
}

// Symlink adds a symbolic link.
func (t *Tar) Symlink(name, target string) *Tar {
	return t.Add(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, nil)
}

// Link adds a hard link with the default attributes.
func (t *Tar) Link(name, target string) *Tar {
	return t.Add(tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}, nil)
}

// Xattrs adds a file with extended attributes.
func (t *Tar) Xattrs(name string, body []byte, attrs map[string]string) *Tar {
	h := tar.Header{Name: name, PAXRecords: map[string]string{}}
	for k, v := range attrs {
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	return t.Add(h, body)
}

// Noise returns n bytes that do not compress, the same for the same seed.
func Noise(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// Text returns n bytes that compress well.
func Text(seed uint64, n int) []byte {
	line := fmt.Sprintf("%d: the quick brown fox jumps over the lazy dog\n", seed)
	return []byte(strings.Repeat(line, n/len(line)+1)[:n])
}

// Base is a lowest layer of regular files, directories and links; no device, fifo or whiteout.
func Base() []byte { return BaseWith(9000) }

// BaseWith is Base with an extended attribute of n bytes: formats have limits.
func BaseWith(n int) []byte {
	t := New()
	t.Add(tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o751, Uid: 3, Gid: 4}, nil)
	t.Dir("bin", "etc", "data", "many", "opaque", "swap", "x")
	for i, n := range []int{0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 77} {
		t.File(fmt.Sprintf("data/noise%02d-%d", i, n), Noise(uint64(i), n))
		t.File(fmt.Sprintf("data/text%02d-%d", i, n), Text(uint64(i), n))
	}
	a, b := Noise(100, 1<<20), Noise(101, 1<<20)
	t.File("data/a-b-a", slices.Concat(a, b, a))
	t.File("data/a-again", a)
	t.File("data/zeros", make([]byte, 2<<20+5))
	t.Link("data/hard1", "data/a-again").Link("bin/hard2", "data/hard1")
	t.Add(tar.Header{Name: "bin/setuid", Mode: 0o6755, Uid: 70000, Gid: 1<<31 - 1}, Text(7, 300))
	t.Add(tar.Header{Name: "etc/far", ModTime: time.Unix(1<<33, 0)}, []byte("after 2106"))
	t.Xattrs("x/some", []byte("x"), map[string]string{"user.z": "last", "user.a": "first", "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "user.bin": "\x00\x01\n\xff"})
	t.Xattrs("x/large", nil, map[string]string{"user.large": strings.Repeat("v", n), "trusted.t": ""})
	t.Symlink("bin/sh", "setuid").Symlink("etc/"+strings.Repeat("s", 200), strings.Repeat("t/", 2000)).Symlink("lib", "usr/lib")
	for _, n := range []string{"-x", ".!", ".hidden", "..two", "ü", "日本語", "\u00a0", "~", "with space", "new\nline", strings.Repeat("n", 255)} {
		t.File("x/"+n, []byte(n))
	}
	t.File(strings.Repeat("deep/", 120)+"leaf", []byte("deep"))
	for i := range 700 {
		t.File(fmt.Sprintf("many/%s-%03d", strings.Repeat("m", i%120), i), Text(uint64(i), i%50))
	}
	t.Dir("opaque/sub").File("opaque/sub/lower", []byte("hidden later")).File("opaque/lower", []byte("hidden later"))
	t.File("swap/file", []byte("becomes a directory")).Dir("swap/dir").File("swap/dir/in", []byte("goes"))
	t.File("etc/gone", []byte("deleted later")).File("etc/changed", []byte("one"))
	return t.Bytes()
}

// Edits is a layer upon Base that deletes, hides and replaces. Every directory it touches has an entry, so that no tool has
// to invent one.
func Edits() []byte {
	t := New()
	t.Add(tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 3, Gid: 4}, nil)
	t.Dir("etc", "opaque", "swap", "new")
	t.File("etc/.wh.gone", nil).File("etc/changed", []byte("two\n"))
	t.File("opaque/.wh..wh..opq", nil).File("opaque/upper", []byte("stays"))
	t.Dir("swap/file").File("swap/file/in", []byte("now a directory"))
	t.Add(tar.Header{Name: "swap/dir", Mode: 0o600}, []byte("now a file"))
	t.File("new/again", Noise(100, 1<<20)).Link("new/link", "new/again").File(".wh.lib", nil)
	return t.Bytes()
}

// NoData is a layer without a byte of content.
func NoData() []byte {
	t := New()
	t.Add(tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 3, Gid: 4}, nil)
	return t.Dir("empty").File("empty/file", nil).Symlink("empty/link", "file").Bytes()
}

// Special is a layer of device nodes, fifos and what else unpackers stumble over.
func Special() []byte {
	t := New()
	t.Add(tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 3, Gid: 4}, nil)
	t.Dir("dev")
	t.Add(tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}, nil)
	t.Add(tar.Header{Name: "dev/disk", Typeflag: tar.TypeBlock, Mode: 0o660, Gid: 6, Devmajor: 259, Devminor: 300}, nil)
	t.Add(tar.Header{Name: "dev/fifo", Typeflag: tar.TypeFifo, Mode: 0o600}, nil)
	t.Add(tar.Header{Name: "dev/old", ModTime: time.Unix(-5, 0)}, []byte("before 1970"))
	return t.File("dev/file", Text(1, 5000)).Bytes()
}

// Implied lacks entries for the parents of its files, and its whiteouts stand behind what they do not hide.
func Implied() []byte {
	t := New()
	t.File("aaa/b/c/file", []byte("parents are implied")).File("etc/implied", []byte("etc is a lower directory"))
	t.File("opaque/late", []byte("stays")).File("opaque/.wh..wh..opq", nil)
	return t.Bytes()
}

// BottomWhiteouts is a lowest layer that deletes what nobody has.
func BottomWhiteouts() []byte {
	t := New()
	t.Dir("etc").File("etc/.wh.nothing", nil).File("etc/stays", []byte("1")).Dir("opq").File("opq/.wh..wh..opq", nil)
	return t.Bytes()
}
