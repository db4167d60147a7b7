package zstdenc

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/convhost/convhost/test/judge"
)

// inputs are buffers of many kinds and of the lengths at which something changes.
func inputs() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 3<<20)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	kinds := map[string][]byte{
		"noise": noise, "zeros": make([]byte, 3<<20), "text": text(r, 3<<20, 500), "rich text": text(r, 3<<20, 30000),
		"letters": noise[:0:0], "period 3": bytes.Repeat([]byte("abc"), 1<<20), "period 1000": bytes.Repeat(noise[:1000], 3000),
		"mixed": append(append(append([]byte{}, noise[:200<<10]...), text(r, 300<<10, 500)...), noise[:400<<10]...),
	}
	for _, b := range noise {
		kinds["letters"] = append(kinds["letters"], 'a'+b&3)
	}
	lengths := []int{0, 1, 2, 3, 4, 7, 8, 23, 24, 25, 28, 29, 31, 32, 33, 63, 100, 255, 256, 257, 1000, 1023, 1024, 1025, 4096,
		16383, 16384, 16385, 65535, 65536, 65791, 65792, 100000, 131071, 131072, 131073, 131080, 262144, 1 << 20, 3 << 20}
	all := map[string][]byte{}
	for name, b := range kinds {
		for _, n := range lengths {
			if n <= len(b) {
				all[fmt.Sprintf("%s %d", name, n)] = b[:n:n]
			}
		}
	}
	return all
}

// text is words of a vocabulary, the first ones more often.
func text(r *rand.Rand, size, vocabulary int) []byte {
	words := make([]string, vocabulary)
	for i := range words {
		for range 2 + r.IntN(8) {
			words[i] += string(rune('a' + r.IntN(26)))
		}
	}
	var b []byte
	for len(b) < size {
		b = append(append(b, words[int(float64(vocabulary)*r.Float64()*r.Float64())]...), ' ')
	}
	return b[:size]
}

func decoder(t testing.TB) *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// TestRoundTrip: frames decode to their buffers, are no longer than promised, and do not depend on earlier buffers.
func TestRoundTrip(t *testing.T) {
	d := decoder(t)
	var used Encoder
	for name, in := range inputs() {
		frame := used.Append([]byte("x"), in)[1:]
		got, err := d.DecodeAll(frame, nil)
		if err != nil || !bytes.Equal(got, in) {
			t.Fatalf("%s: %d bytes come back: %v", name, len(got), err)
		}
		if fresh := new(Encoder).Append(nil, in); !bytes.Equal(fresh, frame) {
			t.Errorf("%s: a used encoder gives other bytes", name)
		}
		if most := len(in) + len(in)/32768 + 13; len(frame) > most {
			t.Errorf("%s: %d bytes, at most %d are promised", name, len(frame), most)
		}
		var h zstd.Header
		if err := h.Decode(frame); err != nil || !h.HasFCS || h.FrameContentSize != uint64(len(in)) || !h.SingleSegment || h.HasCheckSum {
			t.Errorf("%s: header %+v, %v", name, h, err)
		}
	}
}

// TestReference lets the reference implementation decode all frames.
func TestReference(t *testing.T) {
	tool := judge.Tool(t, "zstd")
	var e Encoder
	var frames, want []byte
	for _, in := range inputs() {
		frames = e.Append(frames, in)
		want = append(want, in...)
	}
	longest := append(append(make([]byte, 5<<20), text(rand.New(rand.NewPCG(3, 4)), 6<<20, 3000)...), make([]byte, 5<<20)...)
	frames, want = e.Append(frames, longest), append(want, longest...)
	cmd := exec.Command(tool, "-d", "-c")
	cmd.Stdin = bytes.NewReader(frames)
	got, err := cmd.Output()
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("zstd -d gives %d bytes, want %d: %v", len(got), len(want), err)
	}
}

// TestFarMatch: a distance of nearly MaxSize.
func TestFarMatch(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	in := make([]byte, MaxSize)
	for i := range 1000 {
		in[i] = byte(r.Uint32())
	}
	copy(in[MaxSize-1000:], in[:1000])
	var e Encoder
	frame := e.Append(nil, in)
	if got, err := decoder(t).DecodeAll(frame, nil); err != nil || !bytes.Equal(got, in) {
		t.Fatal(err)
	}
	if len(frame) > 6000 {
		t.Errorf("%d bytes", len(frame))
	}
	defer func() {
		if recover() == nil {
			t.Error("a longer buffer is accepted")
		}
	}()
	e.Append(nil, append(in, 0))
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

func reference(t testing.TB, level zstd.EncoderLevel) *zstd.Encoder {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(1<<20), zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestSize: frames stay near those of the library's default level.
func TestSize(t *testing.T) {
	w := reference(t, zstd.SpeedDefault)
	var e Encoder
	for name, b := range map[string][]byte{"program": program(t), "text": text(rand.New(rand.NewPCG(1, 1)), 1<<20, 5000)} {
		for _, chunk := range []int{4 << 10, 64 << 10, 1 << 20} {
			ours, theirs := 0, 0
			for at := 0; at < len(b); at += chunk {
				c := b[at:min(at+chunk, len(b))]
				ours += len(e.Append(nil, c))
				theirs += len(w.EncodeAll(c, nil))
			}
			t.Logf("%s in chunks of %d: %.3f of the library's", name, chunk, float64(ours)/float64(theirs))
			if ours > theirs*107/100 {
				t.Errorf("%s in chunks of %d: %d bytes, the library's default level makes %d", name, chunk, ours, theirs)
			}
		}
	}
}

// TestAllocations: an encoder that has seen the largest buffer needs nothing more.
func TestAllocations(t *testing.T) {
	in := program(t)[:1<<20]
	dst := make([]byte, 0, 2<<20)
	var e Encoder
	e.Append(dst, in)
	if n := testing.AllocsPerRun(5, func() { e.Append(dst, in); e.Append(dst, in[:5000]) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRoundTrip: whatever is compressed comes back. The input is a program that makes the buffer, so that repetitions of
// all kinds are near for the fuzzer.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("plain text, and text again, and text"), []byte("\x00\x05\x01\x10\x02\xff"))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, bytes.Repeat([]byte{0x10, 7, 0x21, 3, 0xf2, 200, 3, 9}, 40))
	f.Add(bytes.Repeat([]byte{0xff, 0}, 300), bytes.Repeat([]byte{0xf1, 255}, 200))
	d := decoder(f)
	var used Encoder
	f.Fuzz(func(t *testing.T, raw, ops []byte) {
		in := bytes.Clone(raw)
		for i := 0; i+1 < min(len(ops), 2000) && len(in) < 400<<10; i += 2 {
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
		frame := used.Append(nil, in)
		if got, err := d.DecodeAll(frame, nil); err != nil || !bytes.Equal(got, in) {
			t.Fatalf("%d bytes of %d come back: %v", len(got), len(in), err)
		}
		if fresh := new(Encoder).Append(nil, in); !bytes.Equal(fresh, frame) {
			t.Fatal("a used encoder gives other bytes")
		}
	})
}

// FuzzNormalize: all states are shared out, one at least to each symbol that occurs.
func FuzzNormalize(f *testing.F) {
	f.Add([]byte{1, 1}, uint8(0))
	f.Add([]byte{0, 255, 255, 1, 0, 0, 0, 0, 1, 1, 1, 1}, uint8(3))
	f.Add(bytes.Repeat([]byte{1, 200, 3, 70}, 13), uint8(1))
	f.Fuzz(func(t *testing.T, numbers []byte, scale uint8) {
		var c counts
		total := 0
		for s, n := range numbers[:min(len(numbers), maxSymbols)] {
			c.n[s] = uint32(n) << (uint(n) * uint(scale) % 8)
			total += int(c.n[s])
		}
		if c.finish(total); total < 2 || c.most == total {
			return
		}
		var tb table
		tb.normalize(&c, c.tableLog(maxTableLog))
		sum := 0
		for s, v := range tb.norm[:tb.symbols] {
			if v < -1 || (v != 0) != (c.n[s] > 0) {
				t.Errorf("symbol %d, %d of %d: %d states of %d", s, c.n[s], total, v, 1<<tb.log)
			}
			sum += int(max(v, -v))
		}
		if sum != 1<<tb.log {
			t.Errorf("%d states of %d", sum, 1<<tb.log)
		}
		tb.build()
		tb.appendHeader(nil)
	})
}

func ExampleEncoder_Append() {
	var e Encoder
	frame := e.Append(nil, bytes.Repeat([]byte("convhost "), 1000))
	fmt.Println(len(frame), "bytes")
	d, _ := zstd.NewReader(nil)
	defer d.Close()
	back, err := d.DecodeAll(frame, nil)
	fmt.Println(len(back), err)
	// Output:
	// 27 bytes
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

func BenchmarkAppend(b *testing.B)      { bench(b, 1<<20, new(Encoder).Append) }
func BenchmarkAppendSmall(b *testing.B) { bench(b, 5000, new(Encoder).Append) }

func BenchmarkLibrary(b *testing.B) {
	w := reference(b, zstd.SpeedDefault)
	bench(b, 1<<20, func(dst, src []byte) []byte { return w.EncodeAll(src, dst) })
}

func BenchmarkLibrarySmall(b *testing.B) {
	w := reference(b, zstd.SpeedDefault)
	bench(b, 5000, func(dst, src []byte) []byte { return w.EncodeAll(src, dst) })
}
