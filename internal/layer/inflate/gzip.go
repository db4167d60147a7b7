package inflate

import (
	"bufio"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/zran"
)

// input is the stored bytes with their position.
type input struct {
	*bufio.Reader
	v  *Verifier
	gz *zran.Reader // reads ahead by itself; nil if the layer is no gzip
}

// pos is how far the stored bytes were needed.
func (in *input) pos() int64 {
	if in.gz != nil {
		return in.gz.InputOffset()
	}
	return in.v.n - int64(in.Buffered())
}

// gunzip returns the decompressed members, checked. Zeros may follow them.
func (in *input) gunzip(opt Options) *zran.Reader {
	in.gz = zran.NewReader(in.Reader, zran.Options{Trailing: zran.Zeros, OnMember: opt.OnMember, OnBlock: opt.OnBlock})
	return in.gz
}

// end is called where a stream may end: io.EOF at the end and after zeros up to it.
func (in *input) end(format string) error {
	for {
		c, err := in.ReadByte()
		if err != nil {
			return err
		}
		if c != 0 {
			return &abi.FormatError{Class: abi.ErrCorrupt, Format: format, Off: in.pos() - 1, Field: "data after the last member",
				Got: "not empty", Want: "nothing but zeros"}
		}
	}
}

func (in *input) truncated(format, field, want string) error {
	return &abi.FormatError{Class: abi.ErrTruncated, Format: format, Off: in.pos(), Field: field, Got: "cut", Want: want}
}
