package accel

import (
	"slices"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel/lz4enc"
	"github.com/convhost/convhost/internal/accel/zstdenc"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// encode appends the compressed src to dst. Codec and level must have passed checkCodec.
func (c *codecs) encode(codec abi.Codec, level int, dst, src []byte) ([]byte, error) {
	switch codec {
	case abi.CodecNone:
		return append(dst, src...), nil
	case abi.CodecLZ4Block:
		return c.encodeLZ4(level, dst, src)
	case abi.CodecZstd:
		return c.encodeZstd(level, dst, src)
	case abi.CodecGzip:
		return c.encodeGzip(level, dst, src)
	}
	return c.encodeDeflate(level, dst, src)
}

// encodeLZ4 has an encoder of our own for level 0, and the library's for the levels of the slow kind.
func (c *codecs) encodeLZ4(level int, dst, src []byte) ([]byte, error) {
	if level == 0 {
		if c.lz4 == nil {
			c.lz4 = new(lz4enc.Encoder)
		}
		return c.lz4.Append(dst, src), nil
	}
	if c.lz4HC == nil {
		c.lz4HC = new(lz4.CompressorHC)
	}
	c.lz4HC.Level = lz4.CompressionLevel(1 << (8 + level)) // lz4.Level1 to Level9
	dst = slices.Grow(dst, lz4.CompressBlockBound(len(src)))
	n, err := c.lz4HC.CompressBlock(src, dst[len(dst):cap(dst)])
	if err != nil || n == 0 {
		return nil, abi.Errorf(abi.ErrInternal, "lz4 produced nothing from %d bytes: %v", len(src), err)
	}
	return dst[:len(dst)+n], nil
}

// zstdKey names an encoder. Few windows are used, so that few encoders exist: chunks up to 1, 4 and 16 MiB are one
// segment; a longer buffer (Encode only) has a window of 8 MiB and is none.
type zstdKey struct {
	level  zstd.EncoderLevel
	window int
	single bool
}

// encodeZstd has an encoder of our own for level 0, and the library's for the levels that are asked for and for what is too
// long for ours.
func (c *codecs) encodeZstd(level int, dst, src []byte) ([]byte, error) {
	if level == 0 && len(src) <= zstdenc.MaxSize {
		if c.zstd == nil {
			c.zstd = new(zstdenc.Encoder)
		}
		return c.zstd.Append(dst, src), nil
	}
	enc, err := c.zstdEncoder(level, len(src))
	if err != nil {
		return nil, err
	}
	return enc.EncodeAll(src, dst), nil
}

const maxZstdEncoders = 4 // of one worker; each has tables and a history of the window's size

func (c *codecs) zstdEncoder(level, size int) (*zstd.Encoder, error) {
	if level == 0 {
		level = 3
	}
	k := zstdKey{zstd.EncoderLevelFromZstd(level), 1 << 20, true}
	switch {
	case size > 16<<20:
		k.window, k.single = 8<<20, false
	case size > 4<<20:
		k.window = 16 << 20
	case size > 1<<20:
		k.window = 4 << 20
	}
	if e := c.zstdEnc[k]; e != nil {
		return e, nil
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(k.level), zstd.WithWindowSize(k.window),
		zstd.WithSingleSegment(k.single), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithZeroFrames(true), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, abi.Errorf(abi.ErrInternal, "zstd: %w", err)
	}
	if c.zstdEnc == nil || len(c.zstdEnc) >= maxZstdEncoders {
		c.zstdEnc = make(map[zstdKey]*zstd.Encoder)
	}
	c.zstdEnc[k] = e
	return e, nil
}

// appender is an io.Writer that appends.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

func deflateLevel(level int) int {
	if level == 0 {
		return 6
	}
	return level
}

func (c *codecs) encodeGzip(level int, dst, src []byte) ([]byte, error) {
	out := &appender{dst}
	w := c.gzipEnc[level]
	if w == nil {
		var err error
		if w, err = gzip.NewWriterLevel(out, deflateLevel(level)); err != nil {
			return nil, abi.Errorf(abi.ErrInternal, "gzip: %w", err)
		}
		if c.gzipEnc == nil {
			c.gzipEnc = make(map[int]*gzip.Writer)
		}
		c.gzipEnc[level] = w
	}
	w.Reset(out)
	w.ModTime = time.Unix(0, 0) // the zero Time would be written as a time
	_, err := w.Write(src)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, abi.Errorf(abi.ErrInternal, "gzip: %w", err)
	}
	return out.b, nil
}

func (c *codecs) encodeDeflate(level int, dst, src []byte) ([]byte, error) {
	out := &appender{dst}
	w := c.flatEnc[level]
	if w == nil {
		var err error
		if w, err = flate.NewWriter(out, deflateLevel(level)); err != nil {
			return nil, abi.Errorf(abi.ErrInternal, "deflate: %w", err)
		}
		if c.flatEnc == nil {
			c.flatEnc = make(map[int]*flate.Writer)
		}
		c.flatEnc[level] = w
	}
	w.Reset(out)
	_, err := w.Write(src)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, abi.Errorf(abi.ErrInternal, "deflate: %w", err)
	}
	return out.b, nil
}
