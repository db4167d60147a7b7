package ext4_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
)

// An overlay is its base with what was written over it, with a spill file and without.
func TestOverlay(t *testing.T) {
	const blocks = 600
	rng := rand.New(rand.NewPCG(5, 6))
	base := make([]byte, (blocks-100)*ext4.BlockSize-5) // shorter than the device
	for i := range base {
		base[i] = byte(i / 999)
	}
	for _, spill := range []ext4.Scratch{nil, spillFile(t)} {
		want := append(slices.Clone(base), make([]byte, blocks*ext4.BlockSize-len(base))...)
		dev := ext4.NewOverlay(bytes.NewReader(base), blocks*ext4.BlockSize, spill)
		changed := map[uint64]bool{}
		for range 400 {
			at, n := rng.IntN(blocks), 1+rng.IntN(8)
			n = min(n, blocks-at)
			p := bytes.Repeat([]byte{byte(rng.Uint32())}, n*ext4.BlockSize)
			if k, err := dev.WriteAt(p, int64(at)*ext4.BlockSize); err != nil || k != len(p) {
				t.Fatal(k, err)
			}
			copy(want[at*ext4.BlockSize:], p)
			for i := range n {
				changed[uint64(at+i)] = true
			}
			off := rng.IntN(len(want))
			q := make([]byte, rng.IntN(50000))
			k, err := dev.ReadAt(q, int64(off))
			if !bytes.Equal(q[:k], want[off:off+k]) || k < len(q) != (err == io.EOF) || k < min(len(q), len(want)-off) {
				t.Fatalf("read %d at %d: %d, %v", len(q), off, k, err)
			}
		}
		count := uint64(0)
		for _, r := range dev.Changes() {
			for b := r.Block; b < r.Block+r.Count; b++ {
				if !changed[b] {
					t.Errorf("block %d was not written", b)
				}
				count++
			}
		}
		if count != uint64(len(changed)) || count != dev.Changed() {
			t.Errorf("%d blocks changed, Changed says %d, want %d", count, dev.Changed(), len(changed))
		}
		for _, off := range []int64{-1, 1, blocks * ext4.BlockSize} {
			if _, err := dev.WriteAt(make([]byte, ext4.BlockSize), off); abi.ClassOf(err) != abi.ErrInvalid {
				t.Errorf("write at %d: %v", off, err)
			}
		}
	}
}

// once fails when a block is written twice, or read after it was written.
type once struct {
	*ext4.Overlay
	t       *testing.T
	written map[int64]bool
}

func (o *once) WriteAt(p []byte, off int64) (int, error) {
	for i := int64(0); i < int64(len(p)); i += ext4.BlockSize {
		if o.written[off+i] {
			o.t.Errorf("block at %d is written twice", off+i)
		}
		o.written[off+i] = true
	}
	return o.Overlay.WriteAt(p, off)
}

func (o *once) ReadAt(p []byte, off int64) (int, error) {
	if o.written[off&^(ext4.BlockSize-1)] {
		o.t.Errorf("block at %d is read after it was written", off)
	}
	return o.Overlay.ReadAt(p, off)
}

// What a device may rely on; and little memory with a scratch file gives the bytes that much memory gives.
func TestDevice(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	ms := acceptable(nil, append(attributes(), randomLayer(rng, 60)...))
	for i := range 4000 {
		ms = append(ms, smallFile(rng.IntN(2500), strings.Repeat("b", i*3)))
	}
	var first []byte
	for _, opt := range []ext4.Options{{}, {Memory: 1, Scratch: spillFile(t)}, {Memory: 1 << 20, Scratch: spillFile(t)}, {Memory: 1}} {
		dev := &once{ext4.NewOverlay(nil, 128<<20, spillFile(t)), t, map[int64]bool{}}
		ap, err := ext4.Format(dev, ext4.MkfsOptions{Checksums: true}, opt)
		if err != nil {
			t.Fatal(err)
		}
		for i := range ms {
			if err := ap.Apply(context.Background(), &ms[i].Entry, strings.NewReader(ms[i].body)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ap.Commit(); err != nil {
			t.Fatal(err)
		}
		for _, err := range ext4.Check(dev.Overlay, dev.Size()) {
			t.Error(err)
		}
		b := make([]byte, dev.Size())
		if _, err := dev.Overlay.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		}
		if !bytes.Equal(first, b) {
			t.Errorf("%+v: other bytes", opt)
		}
	}
}

// Formats that leave data elsewhere learn where each byte of each file belongs.
func TestRemote(t *testing.T) {
	dev := ext4.NewOverlay(nil, 64<<20, nil)
	got := map[string]int64{}
	ap, err := ext4.Format(dev, ext4.MkfsOptions{}, ext4.Options{Remote: func(e *abi.Entry, block uint64, blocks uint32, off int64) error {
		if off != got[e.Path] || block == 0 || blocks == 0 {
			t.Errorf("%s: %d blocks from %d on for offset %d, want %d", e.Path, blocks, block, off, got[e.Path])
		}
		got[e.Path] += int64(blocks) * ext4.BlockSize
		p := bytes.Repeat([]byte(e.Path[:1]), int(blocks)*ext4.BlockSize)
		_, err := dev.WriteAt(p, int64(block)*ext4.BlockSize)
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{"a": 0, "b": 1, "c": 4096, "d": 40 << 20, "e": 5000}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if err := ap.Apply(t.Context(), &abi.Entry{Kind: abi.KindRegular, Path: name, Size: sizes[name]}, nil); err != nil {
			t.Fatal(err)
		}
	}
	st, err := ap.Commit()
	if err != nil || st.DataBlocks != 0 {
		t.Fatalf("%+v %v", st, err)
	}
	for name, size := range sizes {
		if want := (size + 4095) / 4096 * 4096; got[name] != want {
			t.Errorf("%s: %d bytes, want %d", name, got[name], want)
		}
		im, err := ext4.Open(dev, dev.Size())
		if err != nil {
			t.Fatal(err)
		}
		_, f, err := im.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil || !bytes.Equal(b, bytes.Repeat([]byte(name), int(size))) {
			t.Errorf("%s: other content: %v", name, err)
		}
	}
	judge(t, dev)
}
