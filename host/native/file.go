package native

import (
	"io"
	"os"
)

// FileSection is implemented by readers that are n bytes of a file, from off, and want them to be read from the file
// directly: for a Layer.Open reader what it has not read yet, for an At all of it.
type FileSection interface {
	FileSection() (f *os.File, off, n int64)
}

// remaining tells whether what r has not read yet is a part of a file, and which. Besides FileSection it knows
// *os.File, everything that has a method File() *os.File, and *io.SectionReader.
func remaining(r any) (f *os.File, off, n int64, ok bool) {
	f, off, n, ok = sectionOf(r)
	if !ok {
		return nil, 0, 0, false
	}
	var pos int64
	var err error
	switch v := r.(type) {
	case FileSection:
		return f, off, n, true
	case *io.SectionReader:
		pos, err = v.Seek(0, io.SeekCurrent)
	case *os.File, interface{ File() *os.File }:
		pos, err = f.Seek(0, io.SeekCurrent)
	default: // where it stands is not known
		return nil, 0, 0, false
	}
	if err != nil || pos > n {
		return nil, 0, 0, false
	}
	return f, off + pos, n - pos, true
}

// sectionOf tells whether an io.ReaderAt reads a part of a file, and which. It knows what remaining knows, and the
// reader of containerd's content store.
func sectionOf(at any) (f *os.File, off, n int64, ok bool) {
	switch r := at.(type) {
	case FileSection:
		f, off, n = r.FileSection()
		return f, off, n, f != nil
	case *os.File:
		return wholeFile(r)
	case interface{ File() *os.File }:
		return wholeFile(r.File())
	case *io.SectionReader:
		outer, base, size := r.Outer()
		if f, off, n, ok = sectionOf(outer); !ok || base > n {
			return nil, 0, 0, false
		}
		return f, off + base, min(size, n-base), true
	case interface{ Reader() io.Reader }:
		if l, limited := r.Reader().(*io.LimitedReader); limited {
			f, ok = l.R.(*os.File)
			return f, 0, l.N, ok
		}
	}
	return nil, 0, 0, false
}

func wholeFile(f *os.File) (*os.File, int64, int64, bool) {
	if f == nil {
		return nil, 0, 0, false
	}
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return nil, 0, 0, false
	}
	return f, 0, fi.Size(), true
}
