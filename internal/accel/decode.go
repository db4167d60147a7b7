package accel

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/convhost/convhost/abi"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// decode appends exactly size bytes to dst. A size that src cannot yield by the codec's largest ratio is refused
// before anything is allocated.
func (c *codecs) decode(codec abi.Codec, dst, src []byte, size int) ([]byte, error) {
	var ratio int
	switch codec {
	case abi.CodecNone:
		if len(src) != size {
			return nil, wrongSize("uncompressed chunk", len(src), size)
		}
		return append(dst, src...), nil
	case abi.CodecLZ4Block:
		ratio = 255
	case abi.CodecZstd:
		ratio = 128 << 10 / 4 // a block of one repeated byte
	default:
		ratio = 1032
	}
	if len(src) == 0 {
		return nil, abi.Errorf(abi.ErrTruncated, "compressed chunk has no bytes")
	}
	if size/ratio > len(src) {
		return nil, abi.Errorf(abi.ErrCorrupt, "%d compressed bytes cannot yield %d", len(src), size)
	}
	dst = slices.Grow(dst, size)
	base := len(dst)
	var out []byte
	var err error
	switch codec {
	case abi.CodecLZ4Block:
		var n int
		if n, err = lz4.UncompressBlock(src, dst[base:base+size]); err != nil {
			return nil, abi.Errorf(abi.ErrCorrupt, "lz4 block: %w", err)
		}
		out = dst[:base+n]
	case abi.CodecZstd:
		out, err = c.decodeZstd(dst[:base:base+size], src)
	case abi.CodecGzip:
		out, err = c.decodeGzip(dst[:base:base+size], src)
	default:
		out, err = decodeDeflate(dst[:base:base+size], src)
	}
	if err != nil {
		return nil, err
	}
	if len(out)-base != size {
		return nil, wrongSize("decompressed chunk", len(out)-base, size)
	}
	return out, nil
}

// decodePrefix is decode for bytes that may go on after what is wanted: what follows is not looked at, nor is a gzip
// member's checksum.
func (c *codecs) decodePrefix(codec abi.Codec, dst, src []byte, size int) ([]byte, error) {
	if size/1032 > len(src) {
		return nil, abi.Errorf(abi.ErrCorrupt, "%d compressed bytes cannot yield %d", len(src), size)
	}
	base := len(dst)
	dst = slices.Grow(dst, size)[:base+size]
	var r io.Reader
	what := "gzip member"
	switch codec {
	case abi.CodecGzip:
		if c.gzipDec == nil {
			c.gzipDec = new(gzip.Reader)
		}
		if err := c.gzipDec.Reset(bytes.NewReader(src)); err != nil {
			return nil, inflateError(what, err)
		}
		r = c.gzipDec
	case abi.CodecDeflate:
		what = "deflate stream"
		f := flate.NewReader(bytes.NewReader(src))
		defer f.Close()
		r = f
	default:
		return nil, abi.Errorf(abi.ErrUnsupported, "codec %d cannot decode a prefix", codec)
	}
	if _, err := io.ReadFull(r, dst[base:]); err != nil {
		return nil, inflateError(what, err)
	}
	return dst, nil
}

func wrongSize(what string, got, want int) error {
	return abi.Errorf(abi.ErrCorrupt, "%s has %d bytes, want %d", what, got, want)
}

// decodeZstd decodes into the room of dst and not beyond.
func (c *codecs) decodeZstd(dst, src []byte) ([]byte, error) {
	if c.zstdDec == nil {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(abi.MaxSmallBuffer))
		if err != nil {
			return nil, abi.Errorf(abi.ErrInternal, "zstd: %w", err)
		}
		c.zstdDec = d
	}
	out, err := c.zstdDec.DecodeAll(src, dst)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, abi.Errorf(abi.ErrTruncated, "zstd frame: %w", err)
	case err != nil:
		return nil, abi.Errorf(abi.ErrCorrupt, "zstd frame: %w", err)
	}
	return out, nil
}

func (c *codecs) decodeGzip(dst, src []byte) ([]byte, error) {
	r := bytes.NewReader(src)
	if c.gzipDec == nil {
		c.gzipDec = new(gzip.Reader)
	}
	if err := c.gzipDec.Reset(r); err != nil {
		return nil, inflateError("gzip member", err)
	}
	out, err := readExactly("gzip member", c.gzipDec, dst)
	if err == nil && r.Len() > 0 {
		err = abi.Errorf(abi.ErrCorrupt, "gzip member: %d bytes follow its end", r.Len())
	}
	return out, err
}

func decodeDeflate(dst, src []byte) ([]byte, error) {
	r := bytes.NewReader(src)
	f := flate.NewReader(r)
	defer f.Close()
	out, err := readExactly("deflate stream", f, dst)
	if err == nil && r.Len() > 0 {
		err = abi.Errorf(abi.ErrCorrupt, "deflate stream: %d bytes follow its end", r.Len())
	}
	return out, err
}

// readExactly fills dst up to its capacity and wants the end of r there.
func readExactly(what string, r io.Reader, dst []byte) ([]byte, error) {
	base, size := len(dst), cap(dst)-len(dst)
	n, err := io.ReadFull(r, dst[base:cap(dst)])
	if err != nil && (n > 0 || size > 0) {
		if err == io.EOF {
			return nil, wrongSize(what, 0, size)
		}
		return nil, inflateError(what, err)
	}
	var one [1]byte
	switch n, err := io.ReadFull(r, one[:]); {
	case n > 0:
		return nil, abi.Errorf(abi.ErrCorrupt, "%s has more than %d bytes", what, size)
	case err != io.EOF:
		return nil, inflateError(what, err)
	}
	return dst[:cap(dst)], nil
}

func inflateError(what string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return abi.Errorf(abi.ErrTruncated, "%s ends too early or is shorter than promised", what)
	}
	return abi.Errorf(abi.ErrCorrupt, "%s: %w", what, err)
}
