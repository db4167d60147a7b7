package native

import (
	"io"
	"os"
)

// FileSection is implemented by readers that are n bytes of a file, from off, and want them to be read from the file
// directly. A reader that is not at the start of them counts from where it is.
type FileSection interface {
	FileSection() (f *os.File, off, n int64)
}

// sectionOf tells whether v reads a part of a file, and which. Besides FileSection it knows *os.File, everything that
// has a method File() *os.File, *io.SectionReader, and the reader of containerd's content store. For a reader that
// has a position, what it has not read yet is meant; for an io.ReaderAt everything.
func sectionOf(v any) (f *os.File, off, n int64, ok bool) {
	switch r := v.(type) {
	case FileSection:
		f, off, n = r.FileSection()
		return f, off, n, f != nil
	case *os.File:
		return wholeFile(r)
	case interface{ File() *os.File }:
		return wholeFile(r.File())
	case *io.SectionReader:
		outer, base, size := r.Outer()
		if f, ok = outer.(*os.File); !ok {
			return nil, 0, 0, false
		}
		pos, err := r.Seek(0, io.SeekCurrent)
		return f, base + pos, size - pos, err == nil
	case interface{ Reader() io.Reader }:
		l, isLimited := r.Reader().(*io.LimitedReader)
		if !isLimited {
			return nil, 0, 0, false
		}
		if f, ok = l.R.(*os.File); !ok {
			return nil, 0, 0, false
		}
		return f, 0, l.N, true
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
	off, err := f.Seek(0, io.SeekCurrent)
	return f, off, fi.Size() - off, err == nil && off <= fi.Size()
}
