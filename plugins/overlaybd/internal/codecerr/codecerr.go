// Package codecerr makes the errors of overlaybd's codecs: what is wrong with which field of a format, at which offset.
package codecerr

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/convhost/convhost/abi"
)

// Format is the name of a format as errors say it.
type Format string

// Fail returns an error of any class about a field; off is a byte offset, -1 if there is none.
func (f Format) Fail(class abi.Class, off int64, field, got, want string) error {
	return &abi.FormatError{Class: class, Format: string(f), Field: field, Off: off, Got: got, Want: want}
}

// Corrupt returns an ErrCorrupt: a rule of the format is broken.
func (f Format) Corrupt(off int64, field, got, want string) error {
	return f.Fail(abi.ErrCorrupt, off, field, got, want)
}

// Truncated returns an ErrTruncated: bytes are missing.
func (f Format) Truncated(off int64, field, want string) error {
	return f.Fail(abi.ErrTruncated, off, field, "", want)
}

// Invalid returns an ErrInvalid: the caller asks for what cannot be.
func (f Format) Invalid(msg string, args ...any) error {
	return abi.Errorf(abi.ErrInvalid, string(f)+": "+msg, args...)
}

// ReadFull reads len(p) bytes at off; what says of what. An early end is ErrTruncated; errors of r keep their class or
// become ErrIO.
func (f Format) ReadFull(r io.ReaderAt, p []byte, off int64, what string) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return f.Truncated(off+int64(n), what, strconv.Itoa(len(p)-n)+" more bytes")
	}
	return Outer(err, fmt.Sprintf("%s: read %s at 0x%x", f, what, off))
}

// Outer adds context to an error of the caller's reader or writer; one without a class is ErrIO.
func Outer(err error, context string) error {
	if abi.ClassOf(err) == abi.ErrInternal && !errors.Is(err, abi.ErrInternal) {
		return abi.Errorf(abi.ErrIO, "%s: %w", context, err)
	}
	return fmt.Errorf("%s: %w", context, err)
}

// Dec writes a number as errors show it.
func Dec[T ~int | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64](v T) string { return fmt.Sprint(v) }

// Hex writes bits as errors show them.
func Hex[T ~uint32 | ~uint64](v T) string { return "0x" + strconv.FormatUint(uint64(v), 16) }
