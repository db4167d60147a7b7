package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// file is one member of a layer's tar.
type file struct {
	tar.Header
	body []byte
}

func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%x %s\n", r.Uint32()>>20, strings.Repeat("word", r.IntN(9)))
	}
	return b.Bytes()[:n]
}

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

var day = time.Date(2024, 2, 29, 12, 30, 15, 0, time.UTC)

func reg(name string, body []byte) file {
	return file{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: day}, body}
}

func other(typ byte, name, link string) file {
	return file{tar.Header{Name: name, Typeflag: typ, Linkname: link, Mode: 0o755, ModTime: day}, nil}
}

// kitchen has one of everything.
func kitchen() []file {
	dev := other(tar.TypeChar, "dev/null", "")
	dev.Devmajor, dev.Devminor, dev.Mode = 1, 3, 0o666
	x := reg("usr/bin/x", text(1, 70_000))
	x.Mode, x.Uid, x.Gid = 0o4755, 1000, 100_000
	x.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "a\x00b", "SCHILY.xattr.security.capability": "\x01\x02"}
	old := reg("usr/old", []byte("old"))
	old.ModTime = time.Unix(-5, 0)
	fine := reg("usr/fine", []byte("fine"))
	fine.ModTime, fine.Format = time.Unix(1_700_000_000, 123_456_789), tar.FormatPAX
	return []file{
		other(tar.TypeDir, "./", ""), other(tar.TypeDir, "dev/", ""), dev, other(tar.TypeFifo, "dev/fifo", ""),
		other(tar.TypeDir, "usr/", ""), other(tar.TypeDir, "usr/bin/", ""), x,
		other(tar.TypeLink, "usr/bin/y", "usr/bin/x"), other(tar.TypeSymlink, "usr/bin/z", "../bin/x"),
		reg("usr/empty", nil), old, fine, reg("usr/big", append(text(2, 300_000), noise(3, 200_000)...)),
		reg("usr/"+strings.Repeat("long/", 40)+"name", []byte("deep")), reg("usr/ünïcode & <html> \"quoted\"", []byte("q")),
		reg("twice", []byte("first")), reg("twice", []byte("second")),
		reg("implied/parent/file", []byte("i")), reg("gone/a", []byte("a")), reg("gone/b", []byte("b")),
	}
}

// upper changes what kitchen made.
func upper() []file {
	return []file{
		reg("usr/bin/.wh.z", nil), reg("gone/.wh..wh..opq", nil), reg("gone/c", []byte("c")),
		reg("usr/bin/x", text(9, 5000)), reg("usr/new", noise(4, 100_000)),
	}
}

func makeTar(t testing.TB, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := f.Header
		h.Size = int64(len(f.body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// layout is an OCI image layout on disk.
type layout string

func (l layout) put(t testing.TB, mediaType string, b []byte) descriptor {
	t.Helper()
	d := descriptor{MediaType: mediaType, Digest: digestOf(b), Size: len(b)}
	if err := os.WriteFile(filepath.Join(string(l), "blobs/sha256", d.Digest[7:]), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return d
}

func (l layout) get(t testing.TB, digest string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(string(l), "blobs/sha256", digest[7:]))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// makeImage writes an image with these layers and returns its reference.
func makeImage(t testing.TB, layers ...[]file) string {
	t.Helper()
	var tars [][]byte
	for _, files := range layers {
		tars = append(tars, makeTar(t, files))
	}
	return imageOf(t, tars...)
}

func imageOf(t testing.TB, tars ...[]byte) string {
	t.Helper()
	l := layout(t.TempDir())
	if err := os.MkdirAll(filepath.Join(string(l), "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	var descs []descriptor
	var diffIDs []string
	for _, b := range tars {
		var z bytes.Buffer
		w, _ := gzip.NewWriterLevel(&z, gzip.BestSpeed)
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		descs = append(descs, l.put(t, mediaTypeOCI, z.Bytes()))
		diffIDs = append(diffIDs, digestOf(b))
	}
	config := l.put(t, "application/vnd.oci.image.config.v1+json", marshal(t, map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	}))
	manifest := l.put(t, "application/vnd.oci.image.manifest.v1+json", marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": descs,
	}))
	manifest.Annotations = map[string]string{"org.opencontainers.image.ref.name": "src"}
	for name, b := range map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
		"index.json": marshal(t, map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifest}}),
	} {
		if err := os.WriteFile(filepath.Join(string(l), name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return "oci:" + string(l) + ":src"
}
