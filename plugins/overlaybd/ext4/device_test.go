package ext4_test

import (
	"bytes"
	"context"
	"fmt"
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

// elsewhere has no content of some blocks.
type elsewhere struct {
	*ext4.Overlay
	absent map[uint64]bool
}

func (d *elsewhere) ReadAt(p []byte, off int64) (int, error) {
	for at := off; at < off+int64(len(p)); at += ext4.BlockSize {
		if d.absent[uint64(at)/ext4.BlockSize] {
			return 0, abi.Errorf(abi.ErrCorrupt, "block %d: %w", at/ext4.BlockSize, ext4.ErrAbsent)
		}
	}
	return d.Overlay.ReadAt(p, off)
}

// Data of lower files is not needed, also where its blocks become metadata; sparse files are written though the others stay elsewhere.
func TestAbsent(t *testing.T) {
	const size = 2 << 20
	base := &elsewhere{Overlay: ext4.NewOverlay(nil, size, nil), absent: map[uint64]bool{}}
	remote := func(_ *abi.Entry, block uint64, blocks uint32, _ int64) error {
		for k := range uint64(blocks) {
			base.absent[block+k] = true
		}
		return nil
	}
	apply := func(ap *ext4.Applier, err error, entries ...abi.Entry) {
		t.Helper()
		for i := range entries {
			if err == nil {
				err = ap.Apply(t.Context(), &entries[i], strings.NewReader(strings.Repeat("s", int(entries[i].Size))))
			}
		}
		if err == nil {
			_, err = ap.Commit()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ap, err := ext4.Format(base, ext4.MkfsOptions{InodeRatio: 4096}, ext4.Options{Remote: remote})
	apply(ap, err, abi.Entry{Kind: abi.KindRegular, Path: "big", Size: size / 2})
	lower := len(base.absent)
	if lower != size/2/ext4.BlockSize {
		t.Fatal(lower)
	}
	// The file goes, and directories take its place: the device has no room elsewhere.
	gone := []abi.Entry{{Kind: abi.KindRegular, Flags: abi.EntryWhiteout, Path: ".wh.big"}}
	top := &elsewhere{Overlay: ext4.NewOverlay(base, size, nil), absent: base.absent}
	ap, err = ext4.NewApplier(top, ext4.Options{Remote: remote})
	apply(ap, err, gone...)
	if top.Changed() == 0 {
		t.Fatal("nothing changed")
	}
	var dirs []abi.Entry
	for i := range 120 {
		dirs = append(dirs, abi.Entry{Kind: abi.KindDir, Path: fmt.Sprintf("d%03d", i), Mode: 0o755})
	}
	dirs = append(dirs, abi.Entry{Kind: abi.KindRegular, Flags: abi.EntrySparse, Path: "sparse", Size: 100_000})
	next := &elsewhere{Overlay: ext4.NewOverlay(top, size, nil), absent: base.absent}
	before := len(base.absent)
	ap, err = ext4.NewApplier(next, ext4.Options{Remote: remote})
	apply(ap, err, dirs...)
	if len(base.absent) != before {
		t.Error("a sparse file stays elsewhere")
	}
	reused := 0
	for _, r := range next.Changes() {
		for b := r.Block; b < r.Block+r.Count; b++ {
			if base.absent[b] {
				reused++
			}
		}
	}
	if reused == 0 {
		t.Error("no block was used again: the test shows nothing")
	}
	im, err := ext4.Open(next.Overlay, size)
	if err != nil {
		t.Fatal(err)
	}
	_, f, err := im.Stat("sparse")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != strings.Repeat("s", 100_000) {
		t.Error(len(b), err)
	}
}
