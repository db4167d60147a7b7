package transport

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas/lockfile"
)

const (
	maxMembers = 100_000   // members of an archive: ten times the references a graph may have
	maxSpool   = 256 << 30 // bytes a compressed archive may have when it is unpacked
	maxWindow  = 128 << 20 // zstd window, what the zstd tool accepts by default
)

// tarFile is a tar archive with random access to its members.
type tarFile struct {
	name    string // for messages
	file    *os.File
	members map[string]tarMember
	scratch *lockfile.Scratch // holds file when the archive was compressed
}

type tarMember struct {
	off, size int64
	link      string // what a symbolic or hard link points to, a member name
}

// openTar indexes an archive in one pass over its headers. A compressed one is unpacked into a temporary file first.
func openTar(ctx context.Context, name string, opts Options) (_ *tarFile, err error) {
	r, err := openRegular(name)
	if err != nil {
		return nil, wrap(err, "open archive")
	}
	t := &tarFile{name: name, file: r.file, members: map[string]tarMember{}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	magic := make([]byte, 4)
	n, err := r.file.ReadAt(magic, 0)
	if err != nil && err != io.EOF {
		return nil, wrap(err, "read archive "+name)
	}
	if open := decompressor(magic[:n]); open != nil {
		if err := t.spool(ctx, open, opts.TempDir); err != nil {
			return nil, wrap(err, "unpack archive "+name)
		}
	}
	return t, t.index(ctx)
}

// decompressor tells from the first bytes what an archive is compressed with; nil if it is not.
func decompressor(magic []byte) func(io.Reader) (io.ReadCloser, error) {
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return func(r io.Reader) (io.ReadCloser, error) {
			d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
			if err != nil {
				return nil, err
			}
			return d.IOReadCloser(), nil
		}
	}
	return nil
}

// spool replaces the compressed file by a temporary plain one.
func (t *tarFile) spool(ctx context.Context, open func(io.Reader) (io.ReadCloser, error), tempDir string) error {
	if tempDir == "" {
		tempDir = os.TempDir()
	}
	var err error
	if t.scratch, err = lockfile.NewScratch(tempDir, "convhost-"); err != nil {
		return err
	}
	plain, err := os.CreateTemp(t.scratch.Dir, "archive-*.tar")
	if err != nil {
		return err
	}
	compressed := t.file
	defer compressed.Close()
	t.file = plain
	in := &ctxReader{ctx: ctx, ReadCloser: compressed}
	d, err := open(bufio.NewReaderSize(in, 256<<10))
	if err != nil {
		return t.badStream(err, 0)
	}
	defer d.Close()
	n, err := io.Copy(plain, io.LimitReader(d, maxSpool+1))
	var perr *os.PathError
	switch {
	case err != nil && (errors.As(err, &perr) || ctx.Err() != nil):
		return err
	case err != nil:
		return t.badStream(err, n)
	case n > maxSpool:
		return abi.Errorf(abi.ErrLimit, "it has more than %d bytes", int64(maxSpool))
	}
	return nil
}

func (t *tarFile) badStream(err error, off int64) error {
	class := abi.ErrCorrupt
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		class = abi.ErrTruncated
	}
	return &abi.FormatError{Class: class, Format: "unpacked archive", Field: err.Error(), Off: off}
}

// index notes where the members are. Later members of a name replace earlier ones, as in tar.
func (t *tarFile) index(ctx context.Context) error {
	fi, err := t.file.Stat()
	if err != nil {
		return wrap(err, "read archive "+t.name)
	}
	in := &seekCounter{file: t.file}
	r := tar.NewReader(in)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return wrap(err, "read archive "+t.name)
		}
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return t.badTar(err, in.off)
		}
		if n >= maxMembers {
			return abi.Errorf(abi.ErrLimit, "archive %s has more than %d members", t.name, maxMembers)
		}
		if sparse(h) {
			return abi.Errorf(abi.ErrUnsupported, "archive %s: member %q is sparse", t.name, h.Name)
		}
		m := tarMember{off: in.off, size: h.Size}
		switch h.Typeflag {
		case tar.TypeReg:
			if h.Size < 0 || h.Size > fi.Size()-in.off {
				return &abi.FormatError{Class: abi.ErrTruncated, Format: "archive " + t.name, Entry: h.Name, Field: "size", Off: in.off,
					Got: fmt.Sprint(h.Size), Want: fmt.Sprintf("at most the %d bytes that follow", fi.Size()-in.off)}
			}
		case tar.TypeSymlink: // docker save links equal layers
			m.link = memberName(path.Join(path.Dir(memberName(h.Name)), h.Linkname))
		case tar.TypeLink:
			m.link = memberName(h.Linkname)
		default:
			continue
		}
		t.members[memberName(h.Name)] = m
	}
	if len(t.members) == 0 {
		return abi.Errorf(abi.ErrCorrupt, "archive %s holds no files", t.name)
	}
	return nil
}

// sparse tells members whose stored bytes are not their content.
func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

func (t *tarFile) badTar(err error, off int64) error {
	class := abi.ErrCorrupt
	var perr *os.PathError
	switch {
	case errors.As(err, &perr):
		return wrap(err, "read archive "+t.name)
	case errors.Is(err, io.ErrUnexpectedEOF):
		class = abi.ErrTruncated
	}
	return &abi.FormatError{Class: class, Format: "archive " + t.name, Field: err.Error(), Off: off}
}

// memberName brings names into one form: "./a//b" is "a/b". Names that leave the archive are harmless: they are only
// looked up.
func memberName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// seekCounter lets archive/tar skip bodies by seeking, and knows the position, which is that of the body after Next.
type seekCounter struct {
	file *os.File
	off  int64
}

func (s *seekCounter) Read(p []byte) (int, error) {
	n, err := s.file.ReadAt(p, s.off)
	s.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (s *seekCounter) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += s.off
	case io.SeekEnd:
		fi, err := s.file.Stat()
		if err != nil {
			return 0, err
		}
		off += fi.Size()
	}
	if off < 0 {
		return 0, errors.New("seek before the start")
	}
	s.off = off
	return off, nil
}

// open gives a member, through links; abi.ErrNotFound if there is none.
func (t *tarFile) open(name string) (part, error) {
	for range 8 {
		m, ok := t.members[memberName(name)]
		if !ok {
			break
		}
		if m.link == "" {
			return part{io.NewSectionReader(t.file, m.off, m.size)}, nil
		}
		name = m.link
	}
	return part{}, abi.Errorf(abi.ErrNotFound, "archive %s has no member %s", t.name, name)
}

func (t *tarFile) readAll(name string) ([]byte, error) {
	p, err := t.open(name)
	if err != nil {
		return nil, err
	}
	return readAll(p, name+" in archive "+t.name)
}

func (t *tarFile) close() error {
	err := t.file.Close()
	if t.scratch != nil {
		if rerr := t.scratch.Remove(); err == nil {
			err = rerr
		}
	}
	return err
}
