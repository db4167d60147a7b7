package ext4

import (
	"errors"
	"fmt"
	"io"

	"github.com/convhost/convhost/abi"
)

const formatName = "ext4"

// bad reports bytes that break a rule of the format. off is a byte offset on the device, -1 if unknown.
func bad(off int64, field string, got any, want string) error {
	return &abi.FormatError{Class: abi.ErrCorrupt, Format: formatName, Field: field, Off: off, Got: fmt.Sprint(got), Want: want}
}

func unsupported(off int64, field string, got any, want string) error {
	return &abi.FormatError{Class: abi.ErrUnsupported, Format: formatName, Field: field, Off: off, Got: fmt.Sprint(got), Want: want}
}

func inoName(ino uint32) string { return fmt.Sprintf("inode %d", ino) }

// entryError reports an entry that this file system cannot take.
func entryError(e *abi.Entry, c abi.Class, field, got, want string) error {
	return &abi.FormatError{Class: c, Format: "layer", Entry: e.Path, Off: e.HdrOff, Field: field, Got: got, Want: want}
}

// readFull reads len(p) bytes at off; a device that ends early is truncated.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return &abi.FormatError{Class: abi.ErrTruncated, Format: formatName, Field: "device", Off: off + int64(n), Got: "at its end", Want: fmt.Sprintf("%d more bytes", len(p)-n)}
	}
	return classed(err, "read device at 0x%x", off)
}

// classed gives an error of a stranger a class.
func classed(err error, format string, args ...any) error {
	c := abi.ClassOf(err)
	if c == abi.ErrInternal && !errors.Is(err, abi.ErrInternal) {
		c = abi.ErrIO
	}
	return abi.Errorf(c, "%s: %w", fmt.Sprintf(format, args...), err)
}
