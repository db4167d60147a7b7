package accel

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel/lz4enc"
	"github.com/convhost/convhost/internal/accel/zstdenc"
	"github.com/klauspost/compress/zstd"
)

func TestSumVectors(t *testing.T) {
	fox := []byte("The quick brown fox jumps over the lazy dog")
	for alg, want := range map[abi.Digest]string{
		abi.DigestSHA256: "d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592",
		abi.DigestBLAKE3: "2f1514181aadccd913abd94cfa592701a5686ab23f8df1dff1b74710febc6d4a",
	} {
		if d := must[[32]byte](t)(Sum(alg, fox)); hex.EncodeToString(d[:]) != want {
			t.Errorf("digest %d: %x", alg, d)
		}
	}
	_, err := Sum(abi.DigestNone, fox)
	wantClass(t, err, abi.ErrUnsupported)
}

func inputs() map[string][]byte {
	return map[string][]byte{"empty": {}, "byte": {7}, "short": []byte("hello, hello, hello"), "text": words(1, 70000),
		"200": words(2, 200), "noise": noise(1, 300000), "zeros": make([]byte, 1<<20), "3 MiB": words(3, 3<<20), "17 MiB": make([]byte, 17<<20)}
}

func TestEncodeDecode(t *testing.T) {
	for codec := abi.CodecNone; codec <= abi.CodecDeflate; codec++ {
		for name, in := range inputs() {
			for _, level := range []int{0, 1, topLevel[codec]} {
				if len(in) > 1<<20 && level > 0 {
					continue // takes long and adds nothing
				}
				first, err := new(codecs).encode(codec, level, nil, in)
				if err != nil {
					t.Fatal(err)
				}
				enc := must[[]byte](t)(Encode(codec, level, []byte("pre"), in))
				if !bytes.Equal(enc, append([]byte("pre"), first...)) {
					t.Errorf("codec %d, level %d, %s: a used encoder gives other bytes", codec, level, name)
				}
				if len(first) > bound(len(in)) {
					t.Errorf("codec %d, level %d, %s: %d bytes, bound says %d", codec, level, name, len(first), bound(len(in)))
				}
				dec := must[[]byte](t)(Decode(codec, []byte("x"), first, len(in)))
				if string(dec[:1]) != "x" || !bytes.Equal(dec[1:], in) {
					t.Errorf("codec %d, level %d, %s: not the input", codec, level, name)
				}
				if _, err := Decode(codec, nil, first, len(in)+1); err == nil {
					t.Errorf("codec %d, level %d, %s: accepts a size that is too large", codec, level, name)
				}
			}
		}
	}
}

// TestForeignDecoders: what Encode makes is what its doc promises, by the standard library and by frame headers.
func TestForeignDecoders(t *testing.T) {
	for name, in := range inputs() {
		gz := must[[]byte](t)(Encode(abi.CodecGzip, 0, nil, in))
		if !bytes.Equal(gz[:4], []byte{0x1f, 0x8b, 8, 0}) || !bytes.Equal(gz[4:8], make([]byte, 4)) || gz[9] != 255 {
			t.Errorf("%s: gzip header % x", name, gz[:10])
		}
		r := must[*gzip.Reader](t)(gzip.NewReader(bytes.NewReader(gz)))
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, in) {
			t.Errorf("%s: gzip: %v", name, err)
		}
		fl := must[[]byte](t)(Encode(abi.CodecDeflate, 0, nil, in))
		if got, err := io.ReadAll(flate.NewReader(bytes.NewReader(fl))); err != nil || !bytes.Equal(got, in) {
			t.Errorf("%s: deflate: %v", name, err)
		}
		zs := must[[]byte](t)(Encode(abi.CodecZstd, 0, nil, in))
		var h zstd.Header
		if err := h.Decode(zs); err != nil {
			t.Fatal(err)
		}
		if !h.HasFCS || h.FrameContentSize != uint64(len(in)) || h.HasCheckSum || h.DictionaryID != 0 ||
			h.SingleSegment != (len(in) <= abi.MaxChunkSize) {
			t.Errorf("%s: zstd header %+v", name, h)
		}
	}
}

// TestFeatures: the names of our encoders' versions, on which output bits depend, are what hosts tell plugins.
func TestFeatures(t *testing.T) {
	for name, version := range map[string]int{"codec/lz4_block": lz4enc.Version, "codec/zstd": zstdenc.Version} {
		if f := fmt.Sprintf("%s:convhost-%d", name, version); !slices.Contains(abi.Features(), f) {
			t.Errorf("%s is not a feature", f)
		}
	}
}

// TestHostileFrames: small inputs that promise a lot are refused without the memory they promise.
func TestHostileFrames(t *testing.T) {
	claim := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0x10, 0, 0, 0, 0, 1, 0, 0} // content size 256 MiB
	window := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 1, 0, 0}                     // window of 2 TiB
	bomb := must[[]byte](t)(Encode(abi.CodecZstd, 0, nil, make([]byte, 16<<20)))
	for codec, in := range map[abi.Codec][][]byte{
		abi.CodecZstd:     {claim, window, bomb, nil},
		abi.CodecGzip:     {{0x1f, 0x8b}, bomb, nil, append(must[[]byte](t)(Encode(abi.CodecGzip, 0, nil, make([]byte, 1000))), 1)},
		abi.CodecDeflate:  {{0}, bomb, nil, append(must[[]byte](t)(Encode(abi.CodecDeflate, 0, nil, make([]byte, 1000))), 1)},
		abi.CodecLZ4Block: {{0xff}, bomb, nil},
	} {
		for i, b := range in {
			_, err := Decode(codec, nil, b, 1000)
			if abi.ClassOf(err) != abi.ErrCorrupt && abi.ClassOf(err) != abi.ErrTruncated {
				t.Errorf("codec %d, %d: %v", codec, i, err)
			}
			if _, err := Decode(codec, nil, b[:min(len(b), 16)], 256<<20); err == nil {
				t.Errorf("codec %d, %d: decodes to 256 MiB", codec, i)
			}
		}
	}
	_, err := Decode(abi.CodecZstd, nil, claim, abi.MaxSmallBuffer+1)
	wantClass(t, err, abi.ErrLimit)
	_, err = Decode(abi.CodecNone, nil, claim, 3)
	wantClass(t, err, abi.ErrCorrupt)
}
