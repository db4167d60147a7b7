package native

import (
	"io"
	"os"
	"testing"
)

// containerdReader has the shape of the reader of containerd's local content store.
type containerdReader struct {
	*os.File
	size int64
}

func (r containerdReader) Reader() io.Reader { return io.LimitReader(r.File, r.size) }

type ownSection struct{ f *os.File }

func (s ownSection) Read([]byte) (int, error)              { return 0, io.EOF }
func (s ownSection) FileSection() (*os.File, int64, int64) { return s.f, 3, 4 }

type hidden struct{ io.Reader }

// A ReaderAt is the whole, wherever its file stands; a Reader is what is left.
func TestSections(t *testing.T) {
	path := t.TempDir() + "/f"
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(6, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	section := io.NewSectionReader(f, 2, 7)
	if _, err := section.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	type span struct {
		off, n int64
		ok     bool
	}
	for _, test := range []struct {
		name     string
		v        any
		at, left span
	}{
		{"file", f, span{0, 10, true}, span{6, 4, true}},
		{"section", section, span{2, 7, true}, span{7, 2, true}},
		{"section of containerd's reader", io.NewSectionReader(containerdReader{f, 8}, 1, 100), span{1, 7, true}, span{1, 7, true}},
		{"containerd's reader", containerdReader{f, 8}, span{0, 8, true}, span{}},
		{"own", ownSection{f}, span{3, 4, true}, span{3, 4, true}},
		{"hidden", hidden{f}, span{}, span{}},
		{"section of something else", io.NewSectionReader(hiddenAt{f}, 0, 3), span{}, span{}},
		{"nothing", nil, span{}, span{}},
	} {
		if _, off, n, ok := sectionOf(test.v); (ok || test.at.ok) && (span{off, n, ok}) != test.at {
			t.Errorf("%s: all is %d+%d %v, want %v", test.name, off, n, ok, test.at)
		}
		if _, off, n, ok := remaining(test.v); (ok || test.left.ok) && (span{off, n, ok}) != test.left {
			t.Errorf("%s: the rest is %d+%d %v, want %v", test.name, off, n, ok, test.left)
		}
	}
}

type hiddenAt struct{ io.ReaderAt }

// A plugin never gets a descriptor with which it could write.
func TestWritableFilesAreNotPassed(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if passable(f) {
		t.Error("a writable file was passed")
	}
}
