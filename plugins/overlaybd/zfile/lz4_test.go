package zfile

import (
	"bytes"
	"encoding/binary"
	"math/rand"
	"os"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

// The file holds pairs: u32 length of the input, u32 length of what liblz4 made of it, both.
func TestLZ4EqualsReference(t *testing.T) {
	b := vectors.Layer(t, "lz4-blocks")
	if name := os.Getenv("LZ4_BLOCKS"); name != "" { // more of them, made in a lab
		var err error
		if b, err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	var e lzEncoder
	pairs := 0
	for ; len(b) > 0; pairs++ {
		n, m := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		in, want := b[8:8+n], b[8+n:8+n+m]
		b = b[8+n+m:]
		if got := e.append(nil, in); !bytes.Equal(got, want) {
			t.Fatalf("pair %d, %d bytes: got %d bytes, want %d", pairs, n, len(got), m)
		}
	}
	if pairs < 200 {
		t.Fatal("only", pairs)
	}
}

// The figures that the format's reference gives.
func TestKnownBlocks(t *testing.T) {
	zeros, err := appendBlock(nil, make([]byte, 4096), LZ4, true)
	if err != nil {
		t.Fatal(err)
	}
	want := append([]byte{0x1f, 0, 1, 0}, bytes.Repeat([]byte{0xff}, 15)...)
	want = append(want, 0xf6, 0x50, 0, 0, 0, 0, 0, 0x24, 0x17, 0x91, 0xb4)
	if !bytes.Equal(zeros, want) {
		t.Errorf("%x", zeros)
	}
	noise := make([]byte, 4096)
	rand.New(rand.NewSource(1)).Read(noise)
	if got, _ := appendBlock(nil, noise, LZ4, true); len(got) != 4118 {
		t.Error("noise:", len(got))
	}
	for _, c := range []struct {
		seed uint32
		in   []byte
		want uint32
	}{{0, []byte("123456789"), 0x58e3fa20}, {blockSeed, []byte("123456789"), 0x3c9bd4e0}, {0, make([]byte, 99), 0}, {blockSeed, make([]byte, 4096), 0x18746ccd}} {
		if got := rawCRC(c.seed, c.in); got != c.want {
			t.Errorf("crc from %d: %#x, want %#x", c.seed, got, c.want)
		}
	}
}

// law: what is compressed comes back, and does not grow beyond the format's bound.
func FuzzLZ4(f *testing.F) {
	f.Add([]byte("abcabcabcabcabcabcabcabcabcabc"), uint16(1))
	f.Add([]byte{0}, uint16(4096))
	f.Add([]byte("0123456789ab0123456789ab"), uint16(300))
	f.Fuzz(func(t *testing.T, p []byte, times uint16) {
		in := bytes.Repeat(p, int(times)%2000+1)
		in = in[:min(len(in), lzMaxInput)]
		if len(in) == 0 {
			return
		}
		var e lzEncoder
		for k := range e.table {
			e.table[k] = 0xffff // what an earlier block left must not matter
		}
		out := e.append(nil, in)
		if len(out) > len(in)+len(in)/255+16 {
			t.Fatal("too long", len(in), len(out))
		}
		back := make([]byte, len(in))
		if n, err := lz4.UncompressBlock(out, back); err != nil || n != len(in) || !bytes.Equal(back, in) {
			t.Fatal(n, err)
		}
	})
}
