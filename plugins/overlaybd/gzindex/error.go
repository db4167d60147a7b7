package gzindex

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/convhost/convhost/abi"
)

const format = "gzip index"

func fail(class abi.Class, off int64, field, got, want string) error {
	return &abi.FormatError{Class: class, Format: format, Field: field, Off: off, Got: got, Want: want}
}

func corrupt(off int64, field, got, want string) error {
	return fail(abi.ErrCorrupt, off, field, got, want)
}

func truncated(off int64, field, want string) error {
	return fail(abi.ErrTruncated, off, field, "", want)
}

func invalid(msg string, args ...any) error {
	return abi.Errorf(abi.ErrInvalid, "gzip index: "+msg, args...)
}

func dec[T ~int | ~int64 | ~uint8 | ~uint32 | ~uint64](v T) string { return fmt.Sprint(v) }
func hex(v uint32) string                                          { return "0x" + strconv.FormatUint(uint64(v), 16) }

// readFull reads len(p) bytes at off; what says of what. An early end is ErrTruncated; errors of r keep their class or
// become ErrIO.
func readFull(r io.ReaderAt, p []byte, off int64, what string) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return truncated(off+int64(n), what, strconv.Itoa(len(p)-n)+" more bytes")
	}
	return outer(err, fmt.Sprintf("gzip index: read %s at 0x%x", what, off))
}

// outer adds context to an error of the caller's reader or writer; one without a class is ErrIO.
func outer(err error, context string) error {
	if abi.ClassOf(err) == abi.ErrInternal && !errors.Is(err, abi.ErrInternal) {
		return abi.Errorf(abi.ErrIO, "%s: %w", context, err)
	}
	return fmt.Errorf("%s: %w", context, err)
}
