package turbo

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/zran"
)

// Names of the members.
const (
	Ext4Name   = "ext4.fs.meta"
	ErofsName  = "erofs.fs.meta"
	MarkerName = ".turbo.ociv1"
	IndexName  = "gzip.meta"
)

// defaultLimit is generous: the metadata of a million files takes some 300 MB before compression.
const defaultLimit = 8 << 30

// Spool is where a member comes to rest: written once from its start, then read.
type Spool interface {
	io.Writer
	io.ReaderAt
}

// Options say where members go. The zero value keeps them in memory.
type Options struct {
	// NewSpool makes a place for a member; nil: memory. It belongs to the caller.
	NewSpool func() Spool

	// MaxBytes limits the members together, uncompressed; 0 means 8 GiB. More is ErrLimit.
	MaxBytes int64
}

// Member is a member's content.
type Member struct {
	io.ReaderAt
	Size int64 // bytes
}

// Layer is what a blob holds.
type Layer struct {
	FS    string  // ext4 or erofs
	Meta  Member  // the file system's metadata
	Index *Member // gzip index of the original layer; nil if that is not compressed
	Notes []error // deviations that readers ignore
}

// Read reads a layer's blob to its end: a tar, with or without gzip around it. Errors are ErrCorrupt, ErrTruncated, ErrLimit, or
// those of r and of spools.
func Read(r io.Reader, o Options) (*Layer, error) {
	if o.NewSpool == nil {
		o.NewSpool = func() Spool { return &memory{} }
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultLimit
	}
	src := &source{r: r}
	var in io.Reader = bufio.NewReaderSize(src, 64<<10)
	if head, err := in.(*bufio.Reader).Peek(2); err == nil && head[0] == 0x1f && head[1] == 0x8b {
		in = zran.NewReader(in, zran.Options{Trailing: zran.Zeros})
	}
	raw := &source{r: in}
	l := &layerReader{Options: o, raw: raw, tar: tar.NewReader(raw), seen: map[string]bool{}}
	if err := l.read(); err != nil {
		return nil, l.explain(err, src)
	}
	return &l.Layer, nil
}

// layerReader reads members.
type layerReader struct {
	Options
	Layer
	raw  *source
	tar  *tar.Reader
	left int64
	seen map[string]bool
}

func (l *layerReader) read() error {
	l.left = l.MaxBytes
	for {
		h, err := l.tar.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := l.member(h); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, l.raw); err != nil { // up to the checksum
		return err
	}
	if l.FS == "" {
		return corrupt(l.raw.n, "members", "without metadata", Ext4Name+" or "+ErofsName)
	}
	if !l.seen[MarkerName] {
		l.note("members", "without "+MarkerName)
	}
	return nil
}

// member takes one member.
func (l *layerReader) member(h *tar.Header) error {
	name := path.Clean("/" + h.Name)[1:]
	switch name {
	case Ext4Name, ErofsName, IndexName, MarkerName:
	default:
		if name != "" {
			l.note("member", strconv.Quote(h.Name))
		}
		return nil
	}
	if h.Typeflag != tar.TypeReg || l.seen[name] {
		return corrupt(l.raw.n, "member", strconv.Quote(h.Name), "a file, once")
	}
	l.seen[name] = true
	if name == MarkerName {
		return nil
	}
	if h.Size > l.left {
		return fail(abi.ErrLimit, l.raw.n, "size of "+name, strconv.FormatInt(h.Size, 10), "at most "+strconv.FormatInt(l.left, 10)+" bytes more")
	}
	l.left -= h.Size
	spool := l.NewSpool()
	if _, err := io.Copy(writer{spool}, l.tar); err != nil {
		return err
	}
	m := Member{spool, h.Size}
	if name == IndexName {
		l.Index = &m
		return nil
	}
	if l.FS != "" {
		l.note("members", "with two file systems") // the snapshotter takes what the kernel can mount; ext4 can be read here
	}
	if l.FS == "" || name == Ext4Name {
		l.FS, l.Meta = strings.TrimSuffix(name, ".fs.meta"), m
	}
	return nil
}

func (l *layerReader) note(field, got string) {
	l.Notes = append(l.Notes, corrupt(l.raw.n, field, got, ""))
}

// explain gives errors of the archive their class.
func (l *layerReader) explain(err error, src *source) error {
	var w *writeError
	var fe *abi.FormatError
	switch {
	case src.err != nil:
		return outer(src.err, "turbo layer: read")
	case errors.As(err, &w):
		return outer(w.err, "turbo layer: keep member")
	case errors.As(err, &fe):
		return err
	case l.raw.err != nil:
		return outer(l.raw.err, "turbo layer")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fail(abi.ErrTruncated, l.raw.n, "tar", "cut", "whole members")
	}
	return corrupt(l.raw.n, "tar", err.Error(), "")
}

// source counts what is read and tells errors of the reader from those of the archive.
type source struct {
	r   io.Reader
	n   int64
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// writer marks errors of a spool.
type writer struct{ w io.Writer }

type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }

// Write implements io.Writer.
func (w writer) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}

// memory is a Spool in memory.
type memory struct{ bytes.Buffer }

// ReadAt implements io.ReaderAt.
func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.Bytes()).ReadAt(p, off)
}

func fail(class abi.Class, off int64, field, got, want string) error {
	return &abi.FormatError{Class: class, Format: "turbo layer", Field: field, Off: off, Got: got, Want: want}
}

func corrupt(off int64, field, got, want string) error {
	return fail(abi.ErrCorrupt, off, field, got, want)
}

// outer adds context to an error of the caller's; one without a class is ErrIO.
func outer(err error, context string) error {
	if abi.ClassOf(err) == abi.ErrInternal && !errors.Is(err, abi.ErrInternal) {
		return abi.Errorf(abi.ErrIO, "%s: %w", context, err)
	}
	return fmt.Errorf("%s: %w", context, err)
}
