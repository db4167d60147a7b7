package sdk

import (
	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/tarwrite"
)

// AppendTarHeader appends the header blocks of a tar member to dst. The same entry always gives the same bytes; what USTAR
// cannot say goes into a pax header.
func AppendTarHeader(dst []byte, e *abi.Entry) ([]byte, error) { return tarwrite.AppendHeader(dst, e) }

// AppendTarPadding appends the zeros that follow a body of size bytes.
func AppendTarPadding(dst []byte, size int64) []byte { return tarwrite.AppendPadding(dst, size) }

// AppendTarEnd appends what ends an archive.
func AppendTarEnd(dst []byte) []byte { return tarwrite.AppendEnd(dst) }
