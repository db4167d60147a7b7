package zfile

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

// payload takes the ZFile out of a layer's tar: its place is fixed, its length is the record's.
func payload(t testing.TB, name string) []byte {
	b := vectors.Layer(t, name)
	if Match(b) {
		return b
	}
	b = b[1536:]
	end := binary.LittleEndian.Uint64(b[offIndex:]) + 4*binary.LittleEndian.Uint64(b[offEntries:]) + HeaderSize
	return b[:end]
}

var upstream = []string{"hello-world.overlaybd", "layer1.overlaybd", "layer2.overlaybd", "ext4.fs.meta"}

// Every checksum of upstream's layers is right, and their content compressed again gives their bytes.
func TestUpstream(t *testing.T) {
	for _, name := range upstream {
		b := payload(t, name)
		size := int64(len(b))
		errs, notes := Check(bytes.NewReader(b), size, Options{})
		if len(errs)+len(notes) != 0 {
			t.Errorf("%s: %v %v", name, errs, notes)
		}
		f, err := Open(bytes.NewReader(b), size, Options{})
		if err != nil {
			t.Fatal(name, err)
		}
		for _, workers := range []int{1, 3} {
			var out bytes.Buffer
			w, err := NewParallelWriter(&out, Config{}, workers)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(w, io.NewSectionReader(f, 0, f.Size())); err != nil {
				t.Fatal(name, err)
			}
			info, err := w.Close()
			if err != nil {
				t.Fatal(err)
			}
			got := out.Bytes()
			copy(got, info.Header)
			if !bytes.Equal(got, b) {
				k := 0
				for k < min(len(got), len(b)) && got[k] == b[k] {
					k++
				}
				t.Errorf("%s: %d bytes, want %d; the first difference is at %d", name, len(got), len(b), k)
			}
		}
	}
}
