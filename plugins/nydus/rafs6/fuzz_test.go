package rafs6

import (
	"bytes"
	"testing"

	"github.com/convhost/convhost/abi"
)

// known fails the test unless err has a class that input can cause.
func known(t *testing.T, err error) {
	t.Helper()
	switch abi.ClassOf(err) {
	case abi.ErrCorrupt, abi.ErrTruncated, abi.ErrUnsupported, abi.ErrLimit:
	default:
		t.Fatalf("class %v: %v", abi.ClassOf(err), err)
	}
}

// law: any bytes are refused with a known class, or what is written from them reads as the same tree, and writing that
// again gives the same bytes.
func roundTrip(t *testing.T, data []byte) {
	tree, err := Open(data)
	errs := Check(data)
	if err != nil {
		known(t, err)
		if len(errs) == 0 {
			t.Fatalf("Open says %v, Check nothing", err)
		}
		return
	}
	before := list(t, tree)
	one, err := tree.Bootstrap()
	if err != nil {
		known(t, err)
		return
	}
	again, err := Open(one)
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, again, before...)
	two, err := again.Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Fatal("written twice differs")
	}
	m := NewMerger(MergeOptions{Correct: true})
	for _, id := range []string{"a", "b"} {
		if err := m.AddBootstrap(two, nil, id); err != nil {
			known(t, err)
			return
		}
	}
	image, err := m.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.Bootstrap(); err != nil {
		known(t, err)
	}
}

func FuzzOpen(f *testing.F) {
	for v := range supported {
		data, _ := boot(f, v)
		f.Add(data)
	}
	f.Fuzz(roundTrip)
}

func FuzzRegion(f *testing.F) {
	good, _ := boot(f, "merge-base-mid-top")
	f.Add(uint32(0x3000), []byte{1, 2, 3})
	f.Add(uint32(0x3040), bytes.Repeat([]byte{0}, 64))
	f.Add(uint32(1152), []byte{0x94, 1, 0, 1})
	f.Add(uint32(0x4000), bytes.Repeat([]byte{0xff}, 80))
	f.Fuzz(func(t *testing.T, off uint32, patch []byte) {
		p := bytes.Clone(good)
		copy(p[int(off)%len(p):], patch)
		roundTrip(t, p)
	})
}

func FuzzBlob(f *testing.F) {
	for _, v := range []string{"zstd-blake3-tiny", "plain-base", "inline-notoc-base", "zstd-blake3-nodata", "ref-gz-base"} {
		f.Add(layerBlob(f, v))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := OpenBlob(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			known(t, err)
			return
		}
		for _, m := range []*Member{b.Data, b.Meta, b.Head, b.Digest, b.Boot} {
			if m != nil && (m.Offset < 0 || m.Stored < 0 || m.Offset+m.Stored > int64(len(data))) {
				t.Fatalf("%s leaves the file: %+v", m.Name, m)
			}
		}
	})
}

// script turns bytes into entries of a small world, so that paths meet.
func script(data []byte) []tarEntry {
	names := []string{"", "a", "b", "a/b", "a/b/c", "b/a", "l", "l/a", "m/l/b", ".wh.a", "a/.wh..wh..opq", "-", ".!", "a/..."}
	var out []tarEntry
	for k := 0; k+3 <= len(data) && len(out) < 60; k += 3 {
		e := tarEntry{Entry: abi.Entry{Path: names[int(data[k+1])%len(names)], Mode: uint32(data[k+2]), MtimeSec: int64(int8(data[k+2])), Seq: uint64(len(out))}}
		switch data[k] % 6 {
		case 0:
			e.Kind = abi.KindRegular
			e.body = bytes.Repeat(data[k:k+1], int(data[k+2])*64)
			e.Size = int64(len(e.body))
		case 1:
			e.Kind = abi.KindDir
		case 2:
			e.Kind, e.Link = abi.KindSymlink, []string{"a", "/b", "../l", "m", "/", "a/b"}[int(data[k+2])%6]
		case 3:
			e.Kind, e.Link = abi.KindHardlink, names[int(data[k+2])%len(names)]
		case 4:
			e.Kind, e.DevMajor = abi.KindChar, uint32(data[k+2])
		case 5:
			e.Kind = abi.KindDir
			e.Xattrs = []abi.Xattr{{Key: "user.x", Value: data[k : k+3]}, {Key: "trusted.y", Value: nil}}
		}
		out = append(out, e)
	}
	return out
}

// law: entries are refused with a known class, or the bootstrap made from them passes Check and reads as the same tree.
func FuzzBuilder(f *testing.F) {
	f.Add([]byte{0, 1, 1, 3, 2, 1, 1, 3, 7, 2, 6, 0, 0, 7, 9})
	f.Add([]byte{2, 6, 1, 0, 7, 200, 5, 4, 4, 3, 5, 7, 4, 12, 9, 0, 11, 64})
	f.Fuzz(func(t *testing.T, data []byte) {
		stored := func(_ uint32, raw []byte) uint32 { return uint32(len(raw)) }
		half := len(data) / 6 * 3
		var trees []*Tree
		for _, part := range [][]byte{data[:half], data[half:]} {
			tree, err := build(plainOptions, script(part), stored)
			if err != nil {
				known(t, err)
				return
			}
			want := list(t, tree)
			got := reread(t, tree)
			wantList(t, got, want...)
			trees = append(trees, got)
		}
		for _, o := range []MergeOptions{{}, {Correct: true}} {
			m := NewMerger(o)
			var err error
			for k, l := range trees {
				if err = m.Add(l, string(rune('a'+k))); err != nil {
					known(t, err)
					break
				}
			}
			if err != nil {
				continue
			}
			image, err := m.Finish()
			if err != nil {
				t.Fatal(err)
			}
			reread(t, image)
		}
	})
}
