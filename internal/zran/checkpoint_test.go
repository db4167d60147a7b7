package zran_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/zran"
)

// index reads all of b and returns its checkpoints and members.
func index(t *testing.T, b []byte, f zran.Format) (out []byte, cps []zran.Checkpoint, members []zran.Member) {
	t.Helper()
	z := zran.NewReader(bytes.NewReader(b), zran.Options{Format: f,
		OnMember: func(m zran.Member) error { members = append(members, m); return nil },
		OnBlock: func(b *zran.Block) error {
			if b.Members != len(members) || len(b.Window()) != int(min(b.Out-b.Start, 32768)) {
				t.Fatalf("block at %d: members %d, window %d, out %d, start %d", b.In, b.Members, len(b.Window()), b.Out, b.Start)
			}
			if first := len(members) > 0 && b.In == members[len(members)-1].Data; f == zran.Gzip && first != b.First {
				t.Fatalf("block at %d: first %v", b.In, b.First)
			}
			cps = append(cps, b.Checkpoint())
			return nil
		}})
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out, cps, members
}

func mixedMembers() []byte {
	var b []byte
	for _, raw := range texts(200_000) {
		b = append(b, gzipped(raw, 6)...)
	}
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Name, w.Comment, w.Extra = "näme", "comment", []byte("AB\x02\x00cd")
	for i := range 300 {
		w.Write(bytes.Repeat([]byte{byte(i), 'x'}, i))
		w.Flush() // many short blocks, stored ones among them, at all bit positions
	}
	w.Close()
	return append(b, buf.Bytes()...)
}

// From every checkpoint on the same comes out, and the same end.
func TestResume(t *testing.T) {
	b := mixedMembers()
	out, cps, members := index(t, b, zran.Gzip)
	bitsSeen := 0
	z := zran.NewReader(nil, zran.Options{})
	for i, c := range cps {
		bitsSeen |= 1 << c.Bits
		if c.Bits > 0 && b[c.In-1] != c.Byte {
			t.Fatalf("checkpoint %d: byte %x, want %x", i, c.Byte, b[c.In-1])
		}
		z.ResetAt(bytes.NewReader(b[c.In:]), c)
		rest := out[c.Out:]
		if i%16 != 0 { // not all to the end
			rest = rest[:min(len(rest), 100_000)]
		}
		got := make([]byte, len(rest))
		if _, err := io.ReadFull(z, got); err != nil || !bytes.Equal(got, rest) {
			t.Fatalf("checkpoint %d: %v", i, err)
		}
		if i%16 == 0 {
			if n, err := z.Read(got[:1]); n != 0 || err != io.EOF || z.InputOffset() != int64(len(b)) || z.OutputOffset() != int64(len(out)) {
				t.Fatalf("checkpoint %d: %d, %v at the end %d, %d", i, n, err, z.InputOffset(), z.OutputOffset())
			}
		}
	}
	if bitsSeen != 255 || len(members) != 9 {
		t.Errorf("bits %08b, %d members", bitsSeen, len(members))
	}
	last := members[8]
	if last.Name != "n\xe4me" || last.Comment != "comment" || string(last.Extra) != "AB\x02\x00cd" || last.OS != 255 ||
		b[last.In] != 0x1f || last.Data != last.In+10+8+5+8 {
		t.Errorf("%+v", last)
	}
}

// The standard library goes on from our checkpoints: with the bits put before the bytes it is an oracle for all fields.
func TestResumeByStandardLibrary(t *testing.T) {
	raw := texts(300_000)["mixed"]
	b := deflated(raw, 6)
	_, cps, _ := index(t, b, zran.Deflate)
	for i, c := range cps {
		var w bitWriter
		if c.Bits > 0 {
			// an empty block of fixed codes is 10 bits long: pad with such until the bits fit before a byte
			for (w.n+uint(c.Bits))%8 != 0 {
				if w.n > 80 {
					break
				}
				w.bits(2, 3)
				w.bits(0, 7)
			}
			if (w.n+uint(c.Bits))%8 != 0 {
				continue // ten times anything is even: odd counts cannot be reached this way
			}
			w.bits(uint(c.Byte>>(8-c.Bits)), uint(c.Bits))
		}
		r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(w.b), bytes.NewReader(b[c.In:])), c.Window)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, raw[c.Out:]) {
			t.Fatalf("checkpoint %d: %d bytes, %v", i, len(got), err)
		}
	}
	if len(cps) < 5 {
		t.Error("few checkpoints")
	}
}

// The input of a context may end where its last byte of output does.
func TestResumeCut(t *testing.T) {
	raw := texts(200_000)["text"]
	b := gzipped(raw, 6)
	_, cps, _ := index(t, b, zran.Gzip)
	for i := 1; i < len(cps); i++ {
		from, to := cps[i-1], cps[i]
		z := zran.NewReaderAt(bytes.NewReader(b[from.In:to.In]), from, zran.Options{})
		got := make([]byte, to.Out-from.Out)
		if _, err := io.ReadFull(z, got); err != nil || !bytes.Equal(got, raw[from.Out:to.Out]) {
			t.Fatalf("context %d: %v", i, err)
		}
	}
}

func TestResumeRefused(t *testing.T) {
	b := gzipped(texts(200_000)["mixed"], 6)
	_, cps, _ := index(t, b, zran.Gzip)
	c := cps[1]
	for name, bad := range map[string]zran.Checkpoint{"bits": {Bits: 8}, "window": {Window: make([]byte, 32769)}, "input": {In: -1}, "output": {Out: -1}} {
		if _, err := io.ReadAll(zran.NewReaderAt(bytes.NewReader(b[c.In:]), bad, zran.Options{})); abi.ClassOf(err) != abi.ErrInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.Window = nil
	if _, err := io.ReadAll(zran.NewReaderAt(bytes.NewReader(b[c.In:]), c, zran.Options{})); abi.ClassOf(err) != abi.ErrCorrupt {
		t.Error("no window:", err)
	}
}

func TestCallbackErrors(t *testing.T) {
	b := gzipped([]byte("abc"), 6)
	stop := errors.New("stop")
	for _, opt := range []zran.Options{{OnMember: func(zran.Member) error { return stop }}, {OnBlock: func(*zran.Block) error { return stop }}} {
		if _, err := io.ReadAll(zran.NewReader(bytes.NewReader(b), opt)); err != stop {
			t.Error(err)
		}
	}
}
