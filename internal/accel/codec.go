package accel

import (
	"crypto/sha256"
	"sync"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel/lz4enc"
	"github.com/convhost/convhost/internal/accel/zstdenc"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/zeebo/blake3"
)

// codecs is the codec state of one worker, made when first used. It is not safe for concurrent use.
type codecs struct {
	zstd    *zstdenc.Encoder
	zstdEnc map[zstdKey]*zstd.Encoder
	zstdDec *zstd.Decoder
	gzipEnc map[int]*gzip.Writer
	gzipDec *gzip.Reader
	flatEnc map[int]*flate.Writer
	lz4     *lz4enc.Encoder
	lz4HC   *lz4.CompressorHC
}

var idle = sync.Pool{New: func() any { return new(codecs) }}

// Sum computes a digest of p. ErrUnsupported: unknown digest; ErrLimit: more than abi.MaxSmallBuffer.
func Sum(alg abi.Digest, p []byte) (d [32]byte, err error) {
	if len(p) > abi.MaxSmallBuffer {
		return d, abi.Errorf(abi.ErrLimit, "sum: buffer has %d bytes, limit %d", len(p), abi.MaxSmallBuffer)
	}
	if alg != abi.DigestSHA256 && alg != abi.DigestBLAKE3 {
		return d, abi.Errorf(abi.ErrUnsupported, "sum: digest %d is not known", alg)
	}
	(*codecs)(nil).sum(alg, p, &d)
	return d, nil
}

// Encode compresses src and appends the result to dst. Level 0 is the codec's default. The bytes depend on codec,
// level and src only. ErrUnsupported: unknown codec or level; ErrLimit: more than abi.MaxSmallBuffer.
func Encode(codec abi.Codec, level int, dst, src []byte) ([]byte, error) {
	if err := checkCodec(codec, level); err != nil {
		return dst, err
	}
	if len(src) > abi.MaxSmallBuffer {
		return dst, abi.Errorf(abi.ErrLimit, "encode: buffer has %d bytes, limit %d", len(src), abi.MaxSmallBuffer)
	}
	c := idle.Get().(*codecs)
	out, err := c.encode(codec, level, dst, src)
	idle.Put(c)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// Decode decompresses src, which must yield exactly size bytes, and appends them to dst. ErrCorrupt: src is not
// valid or yields more or fewer bytes; ErrLimit: size is more than abi.MaxSmallBuffer; ErrUnsupported: unknown codec.
func Decode(codec abi.Codec, dst, src []byte, size int) ([]byte, error) {
	if err := checkCodec(codec, 0); err != nil {
		return dst, err
	}
	if size < 0 || size > abi.MaxSmallBuffer || len(src) > abi.MaxSmallBuffer {
		return dst, abi.Errorf(abi.ErrLimit, "decode: %d bytes to %d, limit %d", len(src), size, abi.MaxSmallBuffer)
	}
	c := idle.Get().(*codecs)
	out, err := c.decode(codec, dst, src, size)
	idle.Put(c)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// sum sets d to the digest of p; it needs no state. DigestNone leaves d as it is.
func (*codecs) sum(alg abi.Digest, p []byte, d *[32]byte) {
	switch alg {
	case abi.DigestSHA256:
		*d = sha256.Sum256(p)
	case abi.DigestBLAKE3:
		*d = blake3.Sum256(p)
	}
}

// topLevel is the highest level of each codec. CodecNone has none and takes any.
var topLevel = map[abi.Codec]int{
	abi.CodecNone: 22, abi.CodecLZ4Block: 9, abi.CodecGzip: 9, abi.CodecZstd: 22, abi.CodecDeflate: 9,
}

// checkCodec reports ErrUnsupported for what encode cannot do.
func checkCodec(codec abi.Codec, level int) error {
	t, ok := topLevel[codec]
	if !ok {
		return abi.Errorf(abi.ErrUnsupported, "codec %d is not known", codec)
	}
	if level < 0 || level > t {
		return abi.Errorf(abi.ErrUnsupported, "level %d of codec %d, want 0 to %d", level, codec, t)
	}
	return nil
}

// bound returns how long the compressed form of n bytes can get.
func bound(n int) int { return n + n/255 + 512 }
