package turbo

import (
	"archive/tar"
	"io"
	"strconv"

	"github.com/convhost/convhost/abi"
)

// memberMode is what upstream gives its members.
const memberMode = 0o444

// Contents are the members of a layer to be written.
type Contents struct {
	FS        string    // ext4 or erofs
	Meta      io.Reader // the file system's metadata, MetaSize bytes
	MetaSize  int64
	Index     io.Reader // gzip index of the original layer, IndexSize bytes; nil if that is not compressed
	IndexSize int64
}

// Write writes the tar of a layer. Readers that give more or fewer bytes than their size are ErrInvalid; errors of w keep their
// class or become ErrIO.
func Write(w io.Writer, c Contents) error {
	name := Ext4Name
	switch c.FS {
	case "ext4":
	case "erofs":
		name = ErofsName
	default:
		return abi.Errorf(abi.ErrInvalid, "turbo layer: file system %s, want ext4 or erofs", strconv.Quote(c.FS))
	}
	out := tar.NewWriter(w)
	if err := member(out, name, c.Meta, c.MetaSize); err != nil {
		return err
	}
	if err := member(out, MarkerName, nil, 0); err != nil {
		return err
	}
	if c.Index != nil {
		if err := member(out, IndexName, c.Index, c.IndexSize); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return outer(err, "turbo layer: write")
	}
	return nil
}

func member(out *tar.Writer, name string, r io.Reader, size int64) error {
	if size < 0 {
		return abi.Errorf(abi.ErrInvalid, "turbo layer: %s of %d bytes", name, size)
	}
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: memberMode, Size: size}); err != nil {
		return outer(err, "turbo layer: write")
	}
	if r == nil {
		return nil
	}
	src := &source{r: io.LimitReader(r, size+1)}
	n, err := io.CopyBuffer(onlyWriter{out}, src, make([]byte, 256<<10))
	switch {
	case src.err != nil:
		return outer(src.err, "turbo layer: read "+name)
	case n != size || err == tar.ErrWriteTooLong:
		return abi.Errorf(abi.ErrInvalid, "turbo layer: %s has not the %d bytes that were announced", name, size)
	case err != nil:
		return outer(err, "turbo layer: write")
	}
	return nil
}

// onlyWriter hides what else a writer can do, so that a copy uses its buffer.
type onlyWriter struct{ io.Writer }
