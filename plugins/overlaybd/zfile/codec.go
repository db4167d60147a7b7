package zfile

import (
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// Algorithm is how blocks are compressed.
type Algorithm byte

// The algorithms that files in the field use.
const (
	LZ4  Algorithm = 1 // blocks without a frame; the default
	Zstd Algorithm = 2 // one frame a block, level 3
)

// String returns upstream's name.
func (a Algorithm) String() string {
	switch a {
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return "algorithm " + codecerr.Dec(byte(a))
}

// Encoders and decoders are kept for the process: none of them owns a goroutine or holds data.
var (
	lzEncoders = sync.Pool{New: func() any { return new(lzEncoder) }}

	zstdEncoder = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	})
	zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true))
	})
)

// appendBlock appends the compressed form of src, which is not empty, and its checksum.
func appendBlock(dst, src []byte, a Algorithm, verify bool) ([]byte, error) {
	start := len(dst)
	if a == Zstd {
		e, err := zstdEncoder()
		if err != nil {
			return nil, abi.Errorf(abi.ErrInternal, "zfile: zstd: %w", err)
		}
		dst = e.EncodeAll(src, dst)
	} else {
		e := lzEncoders.Get().(*lzEncoder)
		dst = e.append(dst, src)
		lzEncoders.Put(e)
	}
	if verify {
		c := rawCRC(blockSeed, dst[start:])
		dst = append(dst, byte(c), byte(c>>8), byte(c>>16), byte(c>>24))
	}
	return dst, nil
}

// expand decompresses stored, the block at byte off, into all of dst.
func expand(dst, stored []byte, a Algorithm, off int64) error {
	var n int
	var err error
	if a == Zstd {
		var d *zstd.Decoder
		if d, err = zstdDecoder(); err != nil {
			return abi.Errorf(abi.ErrInternal, "zfile: zstd: %w", err)
		}
		var out []byte
		out, err = d.DecodeAll(stored, dst[:0:len(dst)])
		n = len(out)
	} else {
		n, err = lz4.UncompressBlock(stored, dst)
	}
	if err != nil {
		return format.Corrupt(off, "block", "not valid "+a.String()+" ("+err.Error()+")", codecerr.Dec(len(dst))+" bytes in it")
	}
	if n != len(dst) {
		return format.Corrupt(off, "length of the block's content", codecerr.Dec(n), codecerr.Dec(len(dst)))
	}
	return nil
}
