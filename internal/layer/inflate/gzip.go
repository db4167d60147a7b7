package inflate

import (
	"bufio"
	"errors"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
)

// input is the stored bytes with their position.
type input struct {
	*bufio.Reader
	v *Verifier
}

func (in *input) pos() int64 { return in.v.n - int64(in.Buffered()) }

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

// gzipReader reads the members of a gzip file one after the other.
type gzipReader struct {
	in    *input
	z     *gzip.Reader
	open  bool
	start int64 // of the current member
}

func (g *gzipReader) Read(p []byte) (int, error) {
	for {
		if !g.open {
			if err := g.member(); err != nil {
				return 0, err
			}
		}
		n, err := g.z.Read(p)
		if err == io.EOF {
			g.open, err = false, nil
		}
		if err != nil {
			err = g.fail(err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// member opens the next member, or returns io.EOF.
func (g *gzipReader) member() error {
	head, err := g.in.Peek(2)
	if len(head) == 0 || err != nil && err != io.EOF {
		return err // io.EOF, or what the source says
	}
	if len(head) == 2 && head[0] == 0x1f && head[1] == 0x8b {
		g.start = g.in.pos()
		if g.z == nil {
			g.z, err = gzip.NewReader(g.in.Reader)
		} else {
			err = g.z.Reset(g.in.Reader)
		}
		if err != nil {
			return g.fail(err)
		}
		g.z.Multistream(false)
		g.open = true
		return nil
	}
	if len(head) == 1 && head[0] == 0x1f && err == io.EOF {
		return g.in.truncated("gzip", "member header", "10 bytes")
	}
	return g.in.end("gzip")
}

func (g *gzipReader) fail(err error) error {
	if e := g.in.v.err; e != nil && e != io.EOF {
		return e
	}
	var bad flate.CorruptInputError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return g.in.truncated("gzip", "member", "its end")
	case errors.Is(err, gzip.ErrChecksum):
		return &abi.FormatError{Class: abi.ErrCorrupt, Format: "gzip", Off: g.in.pos(), Field: "trailer", Got: "another CRC-32 or length",
			Want: "that of the decompressed bytes"}
	case errors.Is(err, gzip.ErrHeader):
		return &abi.FormatError{Class: abi.ErrCorrupt, Format: "gzip", Off: g.start, Field: "member header", Got: "malformed", Want: "RFC 1952"}
	case errors.As(err, &bad):
		return &abi.FormatError{Class: abi.ErrCorrupt, Format: "gzip", Off: g.in.pos(), Field: "deflate data", Got: "malformed", Want: "RFC 1951"}
	}
	return abi.Errorf(abi.ErrCorrupt, "gzip at 0x%x: %w", g.in.pos(), err)
}
