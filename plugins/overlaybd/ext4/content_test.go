package ext4_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
)

func xattrs(kv ...string) (out []abi.Xattr) {
	for i := 0; i < len(kv); i += 2 {
		out = append(out, abi.Xattr{Key: kv[i], Value: []byte(kv[i+1])})
	}
	slices.SortFunc(out, func(a, b abi.Xattr) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// acl makes a POSIX ACL as an xattr holds it: tag, permissions and id in turn.
func acl(v ...uint32) string {
	b := []byte{2, 0, 0, 0}
	for i := 0; i < len(v); i += 3 {
		b = binary.LittleEndian.AppendUint16(b, uint16(v[i]))
		b = binary.LittleEndian.AppendUint16(b, uint16(v[i+1]))
		b = binary.LittleEndian.AppendUint32(b, v[i+2])
	}
	return string(b)
}

const none = 0xffffffff

// attributes is a layer with everything that an inode can hold.
func attributes() []member {
	access := acl(1, 6, none, 2, 7, 1000, 4, 4, none, 8, 5, 70000, 16, 7, none, 32, 4, none)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	ms := []member{
		{Entry: abi.Entry{Kind: abi.KindDir, Mode: 0o750, UID: 1, GID: 2, MtimeSec: 5, Xattrs: xattrs("user.root", "yes")}},
		{Entry: abi.Entry{Kind: abi.KindRegular, Path: "ids", Mode: 0o6755, UID: 4294967294, GID: 100000, MtimeSec: -1, MtimeNs: 999999999}},
		{Entry: abi.Entry{Kind: abi.KindRegular, Path: "old", Mode: 0o1644, MtimeSec: -1 << 31}},
		{Entry: abi.Entry{Kind: abi.KindRegular, Path: "late", Mode: 0o644, MtimeSec: 1<<34 - 1<<31 - 1, MtimeNs: 1}},
		{Entry: abi.Entry{Kind: abi.KindRegular, Path: "y2038", Mode: 0o644, MtimeSec: 1 << 31, MtimeNs: 500}},
		{Entry: abi.Entry{Kind: abi.KindChar, Path: "null", Mode: 0o666, DevMajor: 1, DevMinor: 3}},
		{Entry: abi.Entry{Kind: abi.KindBlock, Path: "big", Mode: 0o600, DevMajor: 259, DevMinor: 300000}},
		{Entry: abi.Entry{Kind: abi.KindChar, Path: "zero", Mode: 0o600}},
		{Entry: abi.Entry{Kind: abi.KindFifo, Path: "fifo", Mode: 0o622}},
		{Entry: abi.Entry{Kind: abi.KindSymlink, Path: "fast", Mode: 0o777, Link: strings.Repeat("f", 59)}},
		{Entry: abi.Entry{Kind: abi.KindSymlink, Path: "slow", Mode: 0o777, Link: strings.Repeat("s", 60)}},
		{Entry: abi.Entry{Kind: abi.KindSymlink, Path: "slowest", Mode: 0o644, Link: strings.Repeat("./", 2047) + "x"}},
		{Entry: abi.Entry{Kind: abi.KindRegular, Path: "small", Mode: 0o644, Xattrs: xattrs("user.a", "1", "user.empty", "", "security.capability", capability)}},
		{Entry: abi.Entry{Kind: abi.KindRegular, Path: "large", Mode: 0o644, Xattrs: xattrs("user.a", strings.Repeat("v", 80), "user.bb", strings.Repeat("w", 1000), "trusted.c", strings.Repeat("x", 33), "security.selinux", "system_u:object_r:bin_t:s0\x00", "user.longer."+strings.Repeat("n", 200), "z")}},
		{Entry: abi.Entry{Kind: abi.KindRegular, Path: "full", Mode: 0o644, Xattrs: xattrs("user.v", strings.Repeat("v", 4096-32-4-20))}},
		{Entry: abi.Entry{Kind: abi.KindRegular, Path: "acl", Mode: 0o674, Xattrs: xattrs("system.posix_acl_access", access)}},
		{Entry: abi.Entry{Kind: abi.KindDir, Path: "acls", Mode: 0o775, Xattrs: xattrs("system.posix_acl_default", access, "system.posix_acl_access", acl(1, 7, none, 2, 7, 5, 4, 5, none, 16, 7, none, 32, 5, none))}},
	}
	for i := range ms {
		ms[i].body = ms[i].Path
		if ms[i].Kind == abi.KindRegular {
			ms[i].Size = int64(len(ms[i].body))
		}
	}
	return ms
}

func TestAttributes(t *testing.T) {
	for _, sums := range []bool{false, true} {
		more := []member{
			{Entry: abi.Entry{Kind: abi.KindHardlink, Path: "link", Link: "large", Mode: 0o600, UID: 9, MtimeSec: 77, Xattrs: xattrs("user.bb", "short", "user.new", "n")}},
			{Entry: abi.Entry{Kind: abi.KindHardlink, Path: "link2", Link: "full", Mode: 0o600}},
			{Entry: abi.Entry{Kind: abi.KindDir, Path: "acls", Mode: 0o755}},
			{Entry: abi.Entry{Kind: abi.KindRegular, Path: "small", Mode: 0o644}},
			{Entry: abi.Entry{Kind: abi.KindFifo, Path: "slow", Mode: 0o644}},
		}
		less := script(t, ".wh.full .wh.link2 .wh.large slowest null->x")
		dev, tree := chain(t, 16<<20, ext4.MkfsOptions{Checksums: sums}, attributes(), more, less)
		mounted(t, dev, tree)
	}
}

func TestRefused(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, c := range []struct {
		name  string
		entry abi.Entry
		body  string
		class abi.Class
	}{
		{"name", abi.Entry{Kind: abi.KindFifo, Path: long}, "", abi.ErrUnsupported},
		{"implied name", abi.Entry{Kind: abi.KindFifo, Path: long + "/x"}, "", abi.ErrUnsupported},
		{"link", abi.Entry{Kind: abi.KindSymlink, Path: "x", Link: strings.Repeat("x", 4096)}, "", abi.ErrUnsupported},
		{"empty link", abi.Entry{Kind: abi.KindSymlink, Path: "x"}, "", abi.ErrUnsupported},
		{"major", abi.Entry{Kind: abi.KindChar, Path: "x", DevMajor: 4096}, "", abi.ErrUnsupported},
		{"minor", abi.Entry{Kind: abi.KindChar, Path: "x", DevMinor: 1 << 20}, "", abi.ErrUnsupported},
		{"kind", abi.Entry{Kind: 99, Path: "x"}, "", abi.ErrUnsupported},
		{"no kind", abi.Entry{Path: "x"}, "", abi.ErrUnsupported},
		{"root", abi.Entry{Kind: abi.KindFifo}, "", abi.ErrCorrupt},
		{"attributes", abi.Entry{Kind: abi.KindFifo, Path: "x", Xattrs: xattrs("user.a", strings.Repeat("v", 5000))}, "", abi.ErrUnsupported},
		{"inline", abi.Entry{Kind: abi.KindFifo, Path: "x", Xattrs: xattrs("system.data", "v")}, "", abi.ErrUnsupported},
		{"acl", abi.Entry{Kind: abi.KindFifo, Path: "x", Xattrs: xattrs("system.posix_acl_access", "v")}, "", abi.ErrCorrupt},
		{"short body", abi.Entry{Kind: abi.KindRegular, Path: "x", Size: 10}, "123", abi.ErrTruncated},
		{"device full", abi.Entry{Kind: abi.KindRegular, Path: "x", Size: 8 << 20}, strings.Repeat("x", 8<<20), abi.ErrLimit},
		{"negative size", abi.Entry{Kind: abi.KindRegular, Path: "x", Size: -1}, "", abi.ErrUnsupported},
	} {
		dev := ext4.NewOverlay(nil, 4<<20, nil)
		ap, err := ext4.Format(dev, ext4.MkfsOptions{}, ext4.Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = ap.Apply(context.Background(), &c.entry, strings.NewReader(c.body))
		if abi.ClassOf(err) != c.class {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, again := ap.Commit(); again != err {
			t.Errorf("%s: commit after an error: %v", c.name, again)
		}
	}
	for _, size := range []int64{-1, 0, 1000, 1 << 20, 1 << 60} {
		if _, err := ext4.Format(ext4.NewOverlay(nil, size, nil), ext4.MkfsOptions{}, ext4.Options{}); abi.ClassOf(err) != abi.ErrInvalid && size != 1<<20 {
			t.Errorf("device of %d bytes: %v", size, err)
		}
	}
}

// Directories of 100,000 names, in one layer and grown in the next; removed again at the end.
func TestHugeDirectory(t *testing.T) {
	for _, sums := range []bool{false, true} {
		var one, two, three []member
		for i := range 100_000 {
			one = append(one, member{Entry: abi.Entry{Kind: abi.KindFifo, Path: fmt.Sprintf("d/file with a name %d %s", i, strings.Repeat("x", i%40)), Mode: 0o644}})
		}
		for i := range 50 {
			two = append(two, member{Entry: abi.Entry{Kind: abi.KindFifo, Path: fmt.Sprintf("d/new %d", i), Mode: 0o644}})
			two = append(two, member{Entry: abi.Entry{Kind: abi.KindRegular, Flags: abi.EntryWhiteout, Path: fmt.Sprintf("d/.wh.file with a name %d %s", i*77, strings.Repeat("x", i*77%40))}})
		}
		three = script(t, "d/.wh..wh..opq d/only")
		dev, tree := chain(t, 512<<20, ext4.MkfsOptions{Checksums: sums, InodeRatio: 4096}, one, two)
		if sums {
			mounted(t, dev, tree)
		}
		next(t, dev, tree, three)
	}
}

// A changed file in a big directory costs a few blocks.
func TestFewBlocks(t *testing.T) {
	var one []member
	for i := range 5000 {
		one = append(one, member{Entry: abi.Entry{Kind: abi.KindRegular, Path: fmt.Sprintf("d/%d", i), Mode: 0o644, Size: 3}, body: "abc"})
	}
	base, _ := chain(t, 64<<30, ext4.MkfsOptions{}, one)
	for _, c := range []struct {
		layer string
		most  uint64
	}{{"d/77=changed", 6}, {"d/.wh.77", 6}, {"d/new", 7}, {"d/new/deep/er", 10}, {"d/77@600", 6}, {"", 0}} {
		top := ext4.NewOverlay(base, base.Size(), nil)
		ap, err := ext4.NewApplier(top, ext4.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range script(t, c.layer) {
			if err := ap.Apply(t.Context(), &m.Entry, strings.NewReader(m.body)); err != nil {
				t.Fatal(err)
			}
		}
		st, err := ap.Commit()
		if err != nil || top.Changed() > c.most || uint64(st.DataBlocks+st.MetadataBlocks) != top.Changed() {
			t.Errorf("%q: %d blocks, %+v, want at most %d: %v", c.layer, top.Changed(), st, c.most, err)
		}
	}
}

// Files with holes, and with so many extents that their tree has several levels.
func TestExtents(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	body := func(blocks, every, hole int) string {
		b := make([]byte, blocks*ext4.BlockSize-100)
		for i := 0; i < blocks; i++ {
			if i/hole%every == 0 {
				p := b[i*ext4.BlockSize : min(len(b), (i+1)*ext4.BlockSize)]
				for k := range p {
					p[k] = byte(rng.Uint32())
				}
			}
		}
		return string(b)
	}
	var one []member
	for i, b := range []string{"", "x", body(64, 1, 1), body(65, 1, 1), body(200, 2, 8), body(200, 2, 7), body(400, 2, 16), body(30000, 2, 8), strings.Repeat("\x00", 3<<20) + "end"} {
		one = append(one, member{Entry: abi.Entry{Kind: abi.KindRegular, Path: fmt.Sprint(i), Mode: 0o644, Size: int64(len(b))}, body: b})
	}
	for _, sums := range []bool{false, true} {
		dev, tree := chain(t, 300<<20, ext4.MkfsOptions{Checksums: sums}, one, script(t, "2=short .wh.7 8=x"))
		mounted(t, dev, tree)
	}
}

// Free space in small pieces: files and directories of very many extents.
func TestFragments(t *testing.T) {
	var fill, holes, big []member
	block := strings.Repeat("b", ext4.BlockSize)
	for i := range 6000 {
		fill = append(fill, member{Entry: abi.Entry{Kind: abi.KindRegular, Path: fmt.Sprintf("f%d", i), Mode: 0o644, Size: int64(len(block))}, body: block})
		if i%2 == 0 {
			holes = append(holes, member{Entry: abi.Entry{Kind: abi.KindRegular, Flags: abi.EntryWhiteout, Path: fmt.Sprintf(".wh.f%d", i)}})
		}
	}
	long := strings.Repeat(block, 4500)
	big = append(big, member{Entry: abi.Entry{Kind: abi.KindRegular, Path: "big", Mode: 0o644, Size: int64(len(long))}, body: long})
	dev, tree := chain(t, 40<<20, ext4.MkfsOptions{Checksums: true, InodeRatio: 4096}, fill, holes, big, script(t, ".wh.big x"))
	mounted(t, dev, tree)
}

// More subdirectories than a directory can count, and fewer again.
func TestManySubdirectories(t *testing.T) {
	var one, two []member
	for i := range 65_003 {
		one = append(one, member{Entry: abi.Entry{Kind: abi.KindDir, Path: fmt.Sprintf("d/%d", i), Mode: 0o755}})
	}
	for i := range 10 {
		two = append(two, member{Entry: abi.Entry{Kind: abi.KindRegular, Flags: abi.EntryWhiteout, Path: fmt.Sprintf("d/.wh.%d", i*6000)}})
	}
	chain(t, 1<<30, ext4.MkfsOptions{InodeRatio: 8192}, one, two)
}
