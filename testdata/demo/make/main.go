// Make builds the demo image of this repository: an OCI layout with two platforms, each of three layers. It is deterministic:
// the same Go version and the same zone files give the same bytes.
//
//	go run ./testdata/demo/make -zoneinfo /usr/share/zoneinfo -out testdata/demo/image
//
// README.md beside this folder says what the image contains and where it comes from.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    map[string]string `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

type layout struct{ dir string }

func (l layout) blob(mediaType string, b []byte) descriptor {
	sum := fmt.Sprintf("%x", sha256.Sum256(b))
	dir := filepath.Join(l.dir, "blobs", "sha256")
	check(os.MkdirAll(dir, 0o755))
	check(os.WriteFile(filepath.Join(dir, sum), b, 0o644))
	return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(b)}
}

func (l layout) json(mediaType string, v any) descriptor {
	b, err := json.Marshal(v)
	check(err)
	return l.blob(mediaType, b)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

type layer struct {
	buf bytes.Buffer
	tw  *tar.Writer
}

func newLayer() *layer {
	l := &layer{}
	l.tw = tar.NewWriter(&l.buf)
	return l
}

func (l *layer) add(h tar.Header, body []byte) {
	if h.ModTime.IsZero() {
		h.ModTime = epoch
	}
	h.Size, h.Format = int64(len(body)), tar.FormatPAX
	check(l.tw.WriteHeader(&h))
	_, err := l.tw.Write(body)
	check(err)
}

func (l *layer) dir(name string) {
	l.add(tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
}

// finish returns the layer's descriptor and its diff ID.
func (l *layer) finish(to layout) (descriptor, string) {
	check(l.tw.Close())
	diffID := fmt.Sprintf("sha256:%x", sha256.Sum256(l.buf.Bytes()))
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	check(err)
	_, err = w.Write(l.buf.Bytes())
	check(err)
	check(w.Close())
	return to.blob("application/vnd.oci.image.layer.v1.tar+gzip", z.Bytes()), diffID
}

// zones is the base layer: the zone files of the tz database.
func zones(root string) *layer {
	l := newLayer()
	for _, d := range []string{"usr", "usr/share", "usr/share/zoneinfo"} {
		l.dir(d)
	}
	check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		check(err)
		rel, err := filepath.Rel(root, path)
		check(err)
		if rel == "." {
			return nil
		}
		name := "usr/share/zoneinfo/" + filepath.ToSlash(rel)
		switch {
		case d.IsDir():
			l.dir(name)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			check(err)
			l.add(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, nil)
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			check(err)
			l.add(tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, b)
		}
		return nil
	}))
	return l
}

// app is the second layer: a static program.
func app(arch string) *layer {
	l := newLayer()
	l.dir("app")
	tmp, err := os.MkdirTemp("", "demo")
	check(err)
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "clock")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./testdata/demo/make/clock")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	cmd.Stderr = os.Stderr
	check(cmd.Run())
	b, err := os.ReadFile(out)
	check(err)
	l.add(tar.Header{Name: "app/clock", Typeflag: tar.TypeReg, Mode: 0o755}, b)
	return l
}

// edits is the third layer: it removes, replaces and adds the odd things that images contain.
func edits() *layer {
	l := newLayer()
	l.add(tar.Header{Name: "usr/share/zoneinfo/right/.wh..wh..opq", Typeflag: tar.TypeReg}, nil)
	l.add(tar.Header{Name: "usr/share/zoneinfo/.wh.Zulu", Typeflag: tar.TypeReg}, nil)
	l.dir("etc")
	l.add(tar.Header{Name: "etc/localtime", Typeflag: tar.TypeSymlink, Linkname: "../usr/share/zoneinfo/Etc/UTC", Mode: 0o777}, nil)
	l.add(tar.Header{Name: "etc/motd", Typeflag: tar.TypeReg, Mode: 0o644, Uid: 100, Gid: 65000,
		PAXRecords: map[string]string{"SCHILY.xattr.user.origin": "convhost demo"}}, []byte("time flies\n"))
	l.add(tar.Header{Name: "etc/motd.link", Typeflag: tar.TypeLink, Linkname: "etc/motd", Mode: 0o644, Uid: 100, Gid: 65000}, nil)
	l.add(tar.Header{Name: "etc/sparse", Typeflag: tar.TypeReg, Mode: 0o600}, append(make([]byte, 300<<10), "end"...))
	l.add(tar.Header{Name: "app/helper", Typeflag: tar.TypeReg, Mode: 0o4755}, []byte("#!/app/clock\n"))
	l.dir("dev")
	l.add(tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}, nil)
	l.add(tar.Header{Name: "dev/queue", Typeflag: tar.TypeFifo, Mode: 0o600}, nil)
	l.dir("grüße")
	l.add(tar.Header{Name: "grüße/leer", Typeflag: tar.TypeReg, Mode: 0o644}, nil)
	return l
}

func main() {
	zoneinfo := flag.String("zoneinfo", "/usr/share/zoneinfo", "zone files to put into the base layer")
	out := flag.String("out", "testdata/demo/image", "where the layout is written")
	flag.Parse()
	check(os.RemoveAll(*out))
	to := layout{*out}
	base, baseID := zones(*zoneinfo).finish(to)
	top, topID := edits().finish(to)
	var manifests []descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		mid, midID := app(arch).finish(to)
		config := to.json("application/vnd.oci.image.config.v1+json", map[string]any{
			"architecture": arch, "os": "linux", "created": epoch,
			"config": map[string]any{"Entrypoint": []string{"/app/clock"}, "Env": []string{"PATH=/app"}, "WorkingDir": "/"},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{baseID, midID, topID}},
			"history": []map[string]any{
				{"created": epoch, "created_by": "tz database"}, {"created": epoch, "created_by": "ENTRYPOINT", "empty_layer": true},
				{"created": epoch, "created_by": "clock"}, {"created": epoch, "created_by": "edits"},
			},
		})
		m := to.json("application/vnd.oci.image.manifest.v1+json", map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"config": config, "layers": []descriptor{base, mid, top},
		})
		m.Platform = map[string]string{"os": "linux", "architecture": arch}
		manifests = append(manifests, m)
	}
	index := to.json("application/vnd.oci.image.index.v1+json", map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
	})
	index.Annotations = map[string]string{"org.opencontainers.image.ref.name": "demo"}
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{index}})
	check(err)
	check(os.WriteFile(filepath.Join(*out, "index.json"), append(b, '\n'), 0o644))
	check(os.WriteFile(filepath.Join(*out, "oci-layout"), []byte("{\"imageLayoutVersion\":\"1.0.0\"}\n"), 0o644))
}
