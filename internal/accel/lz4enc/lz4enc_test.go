package lz4enc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/convhost/convhost/test/judge"
)

// inputs are buffers of many kinds and of the lengths at which something changes.
func inputs() map[string][]byte {
	const size = 1<<20 + 77
	r := rand.New(rand.NewPCG(1, 2))
	noise, letters, text := make([]byte, size), make([]byte, size), []byte{}
	for i := range noise {
		noise[i] = byte(r.Uint32())
		letters[i] = 'a' + noise[i]&3
	}
	for len(text) < size {
		text = fmt.Appendf(text, "word%d ", int(r.ExpFloat64()*400))
	}
	far := make([]byte, 0, size) // the same bytes at distances around the largest
	for n := maxDistance - 40; len(far) < 600<<10; n += 7 {
		far = append(far[:len(far):cap(far)], noise[:n-50]...)
		far = append(far, text[:50]...)
	}
	kinds := map[string][]byte{"noise": noise, "letters": letters, "text": text[:size], "zeros": make([]byte, size), "far": far,
		"period 3": bytes.Repeat([]byte("abc"), size/3), "mixed": append(append(bytes.Clone(noise[:100<<10]), text[:300<<10]...), noise...)}
	all := map[string][]byte{}
	for name, b := range kinds {
		for _, n := range []int{0, 1, 4, 5, 12, 13, 14, 15, 16, 27, 28, 29, 30, 33, 34, 50, 100, 254, 255, 270, 271, 285, 286, 1000, 4096, 65535, 65536, 100000, len(b)} {
			all[fmt.Sprintf("%s %d", name, n)] = b[:n:n]
		}
	}
	return all
}

func decode(t testing.TB, block []byte, size int) []byte {
	out := make([]byte, size)
	n, err := lz4.UncompressBlock(block, out)
	if err != nil {
		t.Fatal(err)
	}
	return out[:n]
}

// TestRoundTrip: blocks decode to their buffers, are no longer than promised, and do not depend on earlier buffers.
func TestRoundTrip(t *testing.T) {
	var used Encoder
	for name, in := range inputs() {
		block := used.Append([]byte("x"), in)[1:]
		if got := decode(t, block, len(in)); !bytes.Equal(got, in) {
			t.Fatalf("%s: %d bytes come back", name, len(got))
		}
		if fresh := new(Encoder).Append(nil, in); !bytes.Equal(fresh, block) {
			t.Errorf("%s: a used encoder gives other bytes", name)
		}
		if len(block) > Bound(len(in)) {
			t.Errorf("%s: %d bytes, at most %d are promised", name, len(block), Bound(len(in)))
		}
	}
}

// TestReference lets the reference implementation decode all blocks, each in a frame.
func TestReference(t *testing.T) {
	tool := judge.Tool(t, "lz4")
	var e Encoder
	var frames, want []byte
	for _, in := range inputs() {
		if len(in) == 0 {
			continue // a frame has no empty blocks
		}
		frames = append(frames, 4, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73) // independent blocks up to 4 MiB, no checksums
		block := e.Append(nil, in)
		frames = append(binary.LittleEndian.AppendUint32(frames, uint32(len(block))), block...)
		frames = append(frames, 0, 0, 0, 0)
		want = append(want, in...)
	}
	cmd := exec.Command(tool, "-d", "-c")
	cmd.Stdin = bytes.NewReader(frames)
	got, err := cmd.Output()
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("lz4 -d gives %d bytes, want %d: %v", len(got), len(want), err)
	}
}

// program is this test as a file: machine code and tables, as most of what images hold.
func program(t testing.TB) []byte {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[:min(len(b), 4<<20)]
}

// TestSize: blocks stay near those of the library.
func TestSize(t *testing.T) {
	b := program(t)
	var theirs lz4.Compressor
	var e Encoder
	for _, chunk := range []int{4 << 10, 64 << 10, 1 << 20} {
		sum, want := 0, 0
		buf := make([]byte, lz4.CompressBlockBound(chunk))
		for at := 0; at < len(b); at += chunk {
			c := b[at:min(at+chunk, len(b))]
			sum += len(e.Append(nil, c))
			n, err := theirs.CompressBlock(c, buf)
			if err != nil {
				t.Fatal(err)
			}
			want += n
		}
		t.Logf("chunks of %d: %.3f of the library's", chunk, float64(sum)/float64(want))
		if sum > want*106/100 {
			t.Errorf("chunks of %d: %d bytes, the library makes %d", chunk, sum, want)
		}
	}
}

// TestAllocations: an encoder needs no memory of its own, and none for output that has room.
func TestAllocations(t *testing.T) {
	in := program(t)[:1<<20]
	dst := make([]byte, 0, 2<<20)
	var e Encoder
	if n := testing.AllocsPerRun(5, func() { e.Append(dst, in) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRoundTrip: whatever is compressed comes back. The input is a program that makes the buffer, so that repetitions of
// all kinds are near for the fuzzer.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("plain text, and text again, and text"), []byte("\x00\x05\x01\x10\x02\xff"))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, bytes.Repeat([]byte{0x10, 7, 0x21, 3, 0xf2, 200, 3, 9}, 40))
	f.Add(bytes.Repeat([]byte{0xff, 0}, 300), bytes.Repeat([]byte{0xf1, 255}, 200))
	var used Encoder
	f.Fuzz(func(t *testing.T, raw, ops []byte) {
		in := bytes.Clone(raw)
		for i := 0; i+1 < min(len(ops), 2000) && len(in) < 200<<10; i += 2 {
			n := (int(ops[i]>>4)*int(ops[i]>>4)*16 + int(ops[i+1])) % 4000
			switch at := int(ops[i+1]) * (len(in) + 1) / 256; ops[i] & 3 {
			case 0: // a part of what is there
				in = append(in, in[at:min(at+n, len(in))]...)
			case 1: // one byte, many times
				in = append(in, bytes.Repeat(ops[i+1:i+2], n)...)
			case 2: // numbers without a pattern
				r := rand.New(rand.NewPCG(uint64(i), uint64(n)))
				for range n {
					in = append(in, byte(r.Uint32())>>(ops[i+1]&7))
				}
			default:
				in = append(in, raw[:min(n, len(raw))]...)
			}
		}
		block := used.Append(nil, in)
		if got := decode(t, block, len(in)); !bytes.Equal(got, in) {
			t.Fatalf("%d bytes of %d come back", len(got), len(in))
		}
		if fresh := new(Encoder).Append(nil, in); !bytes.Equal(fresh, block) {
			t.Fatal("a used encoder gives other bytes")
		}
	})
}

func ExampleEncoder_Append() {
	var e Encoder
	block := e.Append(nil, bytes.Repeat([]byte("convhost "), 1000))
	fmt.Println(len(block), "bytes")
	back := make([]byte, 9000)
	n, err := lz4.UncompressBlock(block, back)
	fmt.Println(n, err)
	// Output:
	// 54 bytes
	// 9000 <nil>
}

func bench(b *testing.B, chunk int, encode func(dst, src []byte) []byte) {
	in := program(b)
	dst := make([]byte, 0, 2<<20)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		for at := 0; at < len(in); at += chunk {
			encode(dst, in[at:min(at+chunk, len(in))])
		}
	}
}

func library(b *testing.B) func(dst, src []byte) []byte {
	var c lz4.Compressor
	return func(dst, src []byte) []byte {
		n, err := c.CompressBlock(src, dst[:cap(dst)])
		if err != nil {
			b.Fatal(err)
		}
		return dst[:n]
	}
}

func BenchmarkAppend(b *testing.B)       { bench(b, 1<<20, new(Encoder).Append) }
func BenchmarkAppendSmall(b *testing.B)  { bench(b, 5000, new(Encoder).Append) }
func BenchmarkLibrary(b *testing.B)      { bench(b, 1<<20, library(b)) }
func BenchmarkLibrarySmall(b *testing.B) { bench(b, 5000, library(b)) }
