package rafs6

import (
	"strconv"

	"github.com/convhost/convhost/abi"
)

// Names of the formats in errors.
const (
	formatBoot = "rafs v6 bootstrap"
	formatBlob = "nydus blob"
	formatMeta = "nydus blob.meta"
	formatTree = "rafs v6 tree"
)

func fail(class abi.Class, format string, off int64, field, got, want string) error {
	return &abi.FormatError{Class: class, Format: format, Field: field, Off: off, Got: got, Want: want}
}

// badBoot is a broken rule of a bootstrap at a file offset.
func badBoot(off int64, field, got, want string) error {
	return fail(abi.ErrCorrupt, formatBoot, off, field, got, want)
}

func unsupported(format string, off int64, what string) error {
	return fail(abi.ErrUnsupported, format, off, "not supported yet: "+what, "", "")
}

// badEntry is an entry of a layer that this format or the layer itself does not allow.
func badEntry(e *abi.Entry, class abi.Class, field, got, want string) error {
	return &abi.FormatError{Class: class, Format: "layer tar", Entry: e.Path, Off: e.HdrOff, Field: field, Got: got, Want: want}
}

func dec[T ~int | ~int32 | ~int64](v T) string       { return strconv.FormatInt(int64(v), 10) }
func udec[T ~uint16 | ~uint32 | ~uint64](v T) string { return strconv.FormatUint(uint64(v), 10) }
func hex[T ~uint8 | ~uint16 | ~uint32 | ~uint64](v T) string {
	return "0x" + strconv.FormatUint(uint64(v), 16)
}

// maxErrors bounds the violations that a check collects.
const maxErrors = 1000
