package ext4_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
)

// known fails for errors without a class that bad input may have.
func known(t *testing.T, err error) {
	t.Helper()
	switch abi.ClassOf(err) {
	case abi.ErrCorrupt, abi.ErrTruncated, abi.ErrUnsupported, abi.ErrLimit:
	default:
		t.Errorf("class %v: %v", abi.ClassOf(err), err)
	}
}

// good is an image with a bit of everything, which many tests damage.
var good = sync.OnceValues(func() (*ext4.Overlay, error) {
	dev := ext4.NewOverlay(nil, 6<<20, nil)
	ap, err := ext4.Format(dev, ext4.MkfsOptions{InodeRatio: 8192}, ext4.Options{})
	if err != nil {
		return nil, err
	}
	ms := attributes()
	for i := range 300 {
		ms = append(ms, member{Entry: abi.Entry{Kind: abi.KindHardlink, Path: fmt.Sprintf("indexed/%s%d", strings.Repeat("n", i%90), i), Link: "large", Mode: 0o644}})
	}
	holes := ""
	for i := range 12 {
		holes += strings.Repeat("x", 4096) + strings.Repeat("\x00", 4096*9+i)
	}
	ms = append(ms, member{Entry: abi.Entry{Kind: abi.KindRegular, Path: "deep/er/holes", Size: int64(len(holes))}, body: holes})
	for i := range ms {
		if err := ap.Apply(context.Background(), &ms[i].Entry, strings.NewReader(ms[i].body)); err != nil {
			return nil, err
		}
	}
	_, err = ap.Commit()
	return dev, err
})

// use does everything that can be done with an image.
func use(t *testing.T, dev *ext4.Overlay) (sound bool) {
	t.Helper()
	errs := ext4.Check(dev, dev.Size())
	for _, err := range errs {
		known(t, err)
	}
	if im, err := ext4.Open(dev, dev.Size()); err != nil {
		known(t, err)
	} else {
		buf := make([]byte, 10000)
		err := im.Walk(context.Background(), func(e *abi.Entry, f *ext4.File) error {
			if f != nil {
				if _, err := f.ReadAt(buf, max(0, f.Size()-5000)); err != nil && err != io.EOF {
					known(t, err)
				}
			}
			return nil
		})
		if err != nil {
			known(t, err)
		}
	}
	top := ext4.NewOverlay(dev, dev.Size(), nil)
	ap, err := ext4.NewApplier(top, ext4.Options{})
	if err != nil {
		known(t, err)
		return false
	}
	for _, l := range []string{"indexed/new indexed/.wh.nnn3 small=changed", ".wh.indexed .wh.deep acl/x", "lost+found/x .wh..wh..opq y"} {
		for _, m := range script(t, l) {
			if err := ap.Apply(context.Background(), &m.Entry, strings.NewReader(m.body)); err != nil {
				if m.Path != "acl/x" {
					known(t, err)
				}
				return len(errs) == 0
			}
		}
	}
	if _, err := ap.Commit(); err != nil {
		known(t, err)
	} else if after := ext4.Check(top, top.Size()); len(errs) == 0 && len(after) > 0 {
		t.Errorf("sound before, and with a layer: %v", after)
	}
	return len(errs) == 0
}

// damage returns good with bytes of one changed block replaced.
func damage(t testing.TB, block uint16, off uint16, data []byte) *ext4.Overlay {
	t.Helper()
	base, err := good()
	if err != nil {
		t.Fatal(err)
	}
	var blocks []uint64
	for _, r := range base.Changes() {
		for b := r.Block; b < r.Block+r.Count; b++ {
			blocks = append(blocks, b)
		}
	}
	b := int64(blocks[int(block)%len(blocks)])
	buf := make([]byte, ext4.BlockSize)
	if _, err := base.ReadAt(buf, b*ext4.BlockSize); err != nil {
		t.Fatal(err)
	}
	copy(buf[int(off)%len(buf):], data)
	dev := ext4.NewOverlay(base, base.Size(), nil)
	if _, err := dev.WriteAt(buf, b*ext4.BlockSize); err != nil {
		t.Fatal(err)
	}
	return dev
}

// Whatever stands in one region of an image, everything ends with a result or an error of a known class, in bounded time.
func FuzzDamage(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 40 {
		p := make([]byte, 1+rng.IntN(8))
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		f.Add(uint16(rng.Uint32()), uint16(rng.Uint32()), p)
	}
	f.Fuzz(func(t *testing.T, block, off uint16, data []byte) {
		start := time.Now()
		use(t, damage(t, block, off, data))
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// randomLayer makes entries out of few names, so that they meet often.
func randomLayer(rng *rand.Rand, n int) (out []member) {
	names := []string{"a", "b", "cc", "d.d", "usr", "lib", "x"}
	name := func() string {
		p := names[rng.IntN(len(names))]
		for rng.IntN(3) > 0 {
			p += "/" + names[rng.IntN(len(names))]
		}
		return p
	}
	for range n {
		m := member{Entry: abi.Entry{Path: name(), Mode: rng.Uint32() & 0o7777, UID: uint32(rng.IntN(3)) * 40000, MtimeSec: rng.Int64N(1 << 31), MtimeNs: uint32(rng.IntN(1e9))}}
		switch rng.IntN(12) {
		case 0, 1, 2:
			m.Kind = abi.KindDir
		case 3:
			m.Kind, m.Link = abi.KindSymlink, strings.Repeat("./", rng.IntN(2)*40)+"/"+name()
		case 4, 5:
			m.Kind, m.Link = abi.KindHardlink, name()
		case 6:
			m.Kind, m.DevMajor, m.DevMinor = abi.KindChar, uint32(rng.IntN(300)), uint32(rng.IntN(300))
		case 7:
			m.Kind, m.Flags = abi.KindRegular, abi.EntryWhiteout
			i := strings.LastIndexByte(m.Path, '/') + 1
			m.Path = m.Path[:i] + ".wh." + m.Path[i:]
		case 8:
			if rng.IntN(3) == 0 {
				m.Kind, m.Flags, m.Path = abi.KindRegular, abi.EntryOpaque, m.Path+"/.wh..wh..opq"
				break
			}
			fallthrough
		default:
			m.Kind = abi.KindRegular
			m.body = strings.Repeat(string(rune('a'+rng.IntN(2))), rng.IntN(3)*rng.IntN(9000)) + strings.Repeat("\x00", rng.IntN(2)*rng.IntN(50000))
			m.Size = int64(len(m.body))
		}
		if m.Flags == 0 && rng.IntN(4) == 0 {
			m.Xattrs = xattrs("trusted.x", strings.Repeat("v", rng.IntN(300)), "security.y", "z")
		}
		out = append(out, m)
	}
	return out
}

// acceptable returns the entries of layer that can be applied on the lower layers, in turn.
func acceptable(lower [][]member, layer []member) (out []member) {
	for _, m := range layer {
		tree := flatten.New(flatten.Options{})
		ok := true
		for _, l := range append(lower, append(out, m)) {
			tree.BeginLayer()
			for i := range l {
				ok = ok && tree.Apply(&l[i].Entry, [32]byte{}) == nil
			}
		}
		if ok {
			out = append(out, m)
		}
	}
	return out
}

// applyRandom applies layers. dev is nil if they do not fit on the device.
func applyRandom(t *testing.T, seed uint64, layers int) (dev *ext4.Overlay, tree *flatten.Tree) {
	rng := rand.New(rand.NewPCG(seed, seed))
	dev, tree = ext4.NewOverlay(nil, 4<<20+int64(rng.IntN(3)*5)<<20, nil), flatten.New(flatten.Options{})
	ap, err := ext4.Format(dev, ext4.MkfsOptions{Checksums: seed%2 == 0}, ext4.Options{})
	var lower [][]member
	for i := range layers {
		if i > 0 {
			ap, err = ext4.NewApplier(dev, ext4.Options{})
		}
		if err != nil {
			t.Fatal(err)
		}
		tree.BeginLayer()
		layer := acceptable(lower, randomLayer(rng, 5+rng.IntN(50)))
		lower = append(lower, layer)
		for _, m := range layer {
			if err := ap.Apply(context.Background(), &m.Entry, strings.NewReader(m.body)); abi.ClassOf(err) == abi.ErrLimit {
				return nil, nil
			} else if err != nil {
				t.Fatalf("seed %d, layer %d, %q: %v", seed, i, m.Path, err)
			}
			if err := tree.Apply(&m.Entry, sha256.Sum256([]byte(m.body))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ap.Commit(); err != nil {
			t.Fatal(err)
		}
		compare(t, dev, tree)
		for _, err := range ext4.Check(dev, dev.Size()) {
			t.Errorf("check: %v", err)
		}
		if t.Failed() {
			t.Fatalf("seed %d, layer %d", seed, i)
		}
	}
	return dev, tree
}

// Random layers give the tree that flatten says, and a sound file system.
func FuzzTrees(f *testing.F) {
	for i := range uint64(30) {
		f.Add(i)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { applyRandom(t, seed, 3) })
}

// The same before other judges.
func TestRandomTrees(t *testing.T) {
	for seed := range uint64(12) {
		if dev, tree := applyRandom(t, seed, 3); dev != nil {
			judge(t, dev)
			if seed%4 == 0 {
				mounted(t, dev, tree)
			}
		}
	}
}

// Directories that contain themselves or the root, and names that lead to one directory twice.
func TestCycles(t *testing.T) {
	for name, link := range map[string]string{"itself": "deep/er", "parent": "deep", "root": "", "brother": "acls"} {
		base, err := good()
		if err != nil {
			t.Fatal(err)
		}
		im, err := ext4.Open(base, base.Size())
		if err != nil {
			t.Fatal(err)
		}
		inode := func(path string) uint32 {
			e, _, err := im.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			return uint32((e.HdrOff-im.TableOffset())/256) + 1
		}
		holes := inode("deep/er/holes")
		dev := ext4.NewOverlay(base, base.Size(), nil)
		buf := make([]byte, ext4.BlockSize)
		changed := 0
		for _, r := range base.Changes() {
			for b := r.Block; b < r.Block+r.Count; b++ {
				if _, err := base.ReadAt(buf, int64(b)*ext4.BlockSize); err != nil {
					t.Fatal(err)
				}
				i := strings.Index(string(buf), "holes\x00")
				if i < 8 || uint32(buf[i-8])|uint32(buf[i-7])<<8 != holes {
					continue
				}
				ino := inode(link)
				buf[i-8], buf[i-7], buf[i-1] = byte(ino), byte(ino>>8), 2
				if _, err := dev.WriteAt(buf, int64(b)*ext4.BlockSize); err != nil {
					t.Fatal(err)
				}
				changed++
			}
		}
		if changed != 1 {
			t.Fatalf("%d blocks name the file", changed)
		}
		if use(t, dev) {
			t.Errorf("%s: check finds nothing", name)
		}
		for _, l := range []string{".wh.deep", "deep/.wh.er", ".wh..wh..opq", "deep/er/.wh.holes deep/er/holes/holes/x", "deep/er/holes"} {
			ap, err := ext4.NewApplier(ext4.NewOverlay(dev, dev.Size(), nil), ext4.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range script(t, l) {
				if err = ap.Apply(t.Context(), &m.Entry, strings.NewReader(m.body)); err != nil {
					known(t, err)
					break
				}
			}
		}
	}
}

// A directory whose blocks are all the same one.
func TestBomb(t *testing.T) {
	base, err := good()
	if err != nil {
		t.Fatal(err)
	}
	im, err := ext4.Open(base, base.Size())
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := im.Stat("indexed")
	if err != nil {
		t.Fatal(err)
	}
	at := e.HdrOff &^ (ext4.BlockSize - 1)
	buf := make([]byte, ext4.BlockSize)
	if _, err := base.ReadAt(buf, at); err != nil {
		t.Fatal(err)
	}
	raw := buf[e.HdrOff-at:]
	le := binary.LittleEndian
	le.PutUint32(raw[0x20:], 0x80000) // no index
	phys := le.Uint32(raw[0x28+12+8:])
	le.PutUint16(raw[0x28+2:], 2)
	for i := range uint32(2) {
		x := raw[0x28+12+12*i:]
		le.PutUint32(x, i)
		le.PutUint16(x[4:], 1)
		le.PutUint32(x[8:], phys+1)
	}
	le.PutUint32(raw[4:], 2*ext4.BlockSize)
	dev := ext4.NewOverlay(base, base.Size(), nil)
	if _, err := dev.WriteAt(buf, at); err != nil {
		t.Fatal(err)
	}
	if im, err = ext4.Open(dev, dev.Size()); err != nil {
		t.Fatal(err)
	}
	err = im.Walk(t.Context(), func(*abi.Entry, *ext4.File) error { return nil })
	if !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), "each block once") {
		t.Error(err)
	}
	use(t, dev)
}
