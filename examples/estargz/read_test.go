package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
)

// oneBlob is a host with one part and nothing else.
type oneBlob struct {
	abi.Host
	b []byte
}

func (o oneBlob) Open(abi.Role, int) (abi.Handle, error) { return 1, nil }
func (o oneBlob) Size(abi.Handle) (int64, error)         { return int64(len(o.b)), nil }
func (o oneBlob) ReadAt(_ abi.Handle, p []byte, off int64) (int, error) {
	return copy(p, o.b[min(off, int64(len(o.b))):]), nil
}

// blobWith wraps a TOC: some bytes of chunks, the TOC, the footer.
func blobWith(t testing.TB, toc []byte) (blob []byte, digest string) {
	t.Helper()
	var b bytes.Buffer
	b.Write(make([]byte, 1000))
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: tocName, Typeflag: tar.TypeReg, Size: int64(len(toc))}); err != nil {
		t.Fatal(err)
	}
	_, err := w.Write(toc)
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return appendFooter(b.Bytes(), 1000), fmt.Sprintf("sha256:%x", sha256.Sum256(toc))
}

const (
	sumA = `"sha256:` + "0000000000000000000000000000000000000000000000000000000000000000" + `"`
	seed = `{"version":1,"entries":[{"name":"d/","type":"dir","modtime":"2020-01-02T03:04:05.5Z","mode":493,"xattrs":{"a":"Yg=="}},` +
		`{"name":"d/f","type":"reg","size":10,"offset":5,"chunkSize":6,"chunkDigest":` + sumA + `},{"name":"d/f","type":"chunk","offset":50,"chunkOffset":6,"chunkDigest":` + sumA + `}]}`
	entry = `{"version":1,"entries":[{"name":"f","type":"reg","size":10,"offset":5,"chunkDigest":` + sumA + `}]}`
)

func TestTOCRules(t *testing.T) {
	swap := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(entry) }
	tests := []struct {
		name, toc string
		want      abi.Class
	}{
		{"good", entry, 0}, {"chunks", seed, 0},
		{"no JSON", "{", abi.ErrCorrupt},
		{"version 2", swap(`"version":1`, `"version":2`), abi.ErrUnsupported},
		{"unknown type", swap(`"reg"`, `"socket"`), abi.ErrCorrupt},
		{"begins with a chunk", swap(`"reg"`, `"chunk"`), abi.ErrCorrupt},
		{"no offset", swap(`"offset":5`, `"offset":0`), abi.ErrCorrupt},
		{"offset in the TOC", swap(`"offset":5`, `"offset":1000`), abi.ErrCorrupt},
		{"offset below 0", swap(`"offset":5`, `"offset":-5`), abi.ErrCorrupt},
		{"inner offset", swap(`"offset":5`, `"offset":5,"innerOffset":7`), abi.ErrUnsupported},
		{"chunk larger than the file", swap(`"offset":5`, `"offset":5,"chunkSize":11`), abi.ErrCorrupt},
		{"chunk smaller than the file", swap(`"offset":5`, `"offset":5,"chunkSize":9`), abi.ErrCorrupt},
		{"chunk too large", swap(`"size":10`, `"size":16777217`), abi.ErrLimit},
		{"size below 0", swap(`"size":10`, `"size":-1`), abi.ErrCorrupt},
		{"short digest", swap("00", "0"), abi.ErrCorrupt},
		{"other digest", swap("sha256", "sha512"), abi.ErrCorrupt},
		{"time", swap(`"offset":5`, `"offset":5,"modtime":"yesterday"`), abi.ErrCorrupt},
	}
	for _, tt := range tests {
		blob, sum := blobWith(t, []byte(tt.toc))
		parts := []abi.PartInfo{{Annotations: map[string]string{annotationDigest: sum}}}
		if _, err := openLayer(oneBlob{b: blob}, parts, 0); abi.ClassOf(err) != tt.want {
			t.Errorf("%s: %v (%v), want %v", tt.name, err, abi.ClassOf(err), tt.want)
		}
	}
	blob, _ := blobWith(t, []byte(entry))
	parts := []abi.PartInfo{{Annotations: map[string]string{annotationDigest: "sha256:00"}}}
	if _, err := openLayer(oneBlob{b: blob}, parts, 0); abi.ClassOf(err) != abi.ErrDigest {
		t.Errorf("another digest than annotated: %v", err)
	}
}

// FuzzTOC: whatever a table of contents says, chunks that are accepted lie before it and make up their files.
func FuzzTOC(f *testing.F) {
	f.Add([]byte(seed))
	f.Add([]byte(entry))
	f.Fuzz(func(t *testing.T, toc []byte) {
		blob, sum := blobWith(t, toc)
		l, err := openLayer(oneBlob{b: blob}, []abi.PartInfo{{Annotations: map[string]string{annotationDigest: sum}}}, 0)
		if err != nil {
			if abi.ClassOf(err) == abi.ErrInternal {
				t.Errorf("error without a class: %v", err)
			}
			return
		}
		for _, file := range l.files {
			var n int64
			for _, c := range file.chunks {
				if n += int64(c.size); c.off < 1 || c.size < 1 || c.stored < 1 || c.off+int64(c.stored) > 1000 {
					t.Errorf("%q has the chunk %+v", file.Path, c)
				}
			}
			if n != file.Size {
				t.Errorf("%q has %d bytes in chunks, its size is %d", file.Path, n, file.Size)
			}
		}
	})
}

// FuzzFooter: no end of a blob makes the reader fall over.
func FuzzFooter(f *testing.F) {
	blob, sum := blobWith(f, []byte(entry))
	f.Add(blob[1000:])
	f.Add(blob[len(blob)-footerSize:])
	f.Fuzz(func(t *testing.T, tail []byte) {
		_, err := openLayer(oneBlob{b: tail}, []abi.PartInfo{{Annotations: map[string]string{annotationDigest: sum}}}, 0)
		if err == nil && len(tail) < footerSize {
			t.Error("accepted")
		}
	})
}
