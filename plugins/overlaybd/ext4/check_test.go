package ext4_test

import (
	"errors"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
)

// Check finds what e2fsck finds in damaged images, and nothing else.
func TestCheckAgainstFsck(t *testing.T) {
	tool := find("e2fsck")
	if tool == "" {
		missing(t, "e2fsck")
		t.Skip("e2fsck is not installed")
	}
	base, err := good()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(9, 9))
	found := 0
	for i := range 100 {
		p := []byte{byte(rng.Uint32())}
		if i%3 == 0 {
			p = append(p, byte(rng.Uint32()), 0, 0)
		}
		block, off := uint16(rng.Uint32()), uint16(rng.Uint32())
		if i%2 == 0 {
			off %= 300 // most blocks are empty further behind
		}
		dev := damage(t, block, off, p)
		errs := ext4.Check(dev, dev.Size())
		out, err := exec.Command(tool, "-fn", sparse(t, dev, dev.Size(), append(base.Changes(), dev.Changes()...))).CombinedOutput()
		if (len(errs) > 0) != (err != nil) {
			t.Errorf("block %d, %x at %d: we: %v\ne2fsck: %v\n%s", dev.Changes()[0].Block, p, off%ext4.BlockSize, errs, err, out)
		}
		if err != nil {
			found++
		}
	}
	t.Logf("%d of 100 damages matter", found)
}

// Fields of the superblock with values that must be refused, and what the error names.
func TestSuperblock(t *testing.T) {
	base, err := good()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off   int
		data  string
		class abi.Class
		want  string
	}{
		{0x38, "\x00\x00", abi.ErrCorrupt, "magic"},
		{0x18, "\x03", abi.ErrUnsupported, "block size"},
		{0x4C, "\x00", abi.ErrUnsupported, "revision"},
		{0x04, "\xff\xff\xff\x00", abi.ErrCorrupt, "blocks"},
		{0x04, "\x00\x00\x00\x00", abi.ErrCorrupt, "blocks"},
		{0x20, "\x08\x00\x00\x00", abi.ErrUnsupported, "blocks per group"},
		{0x28, "\x00\x00\x00\x00", abi.ErrCorrupt, "inodes per group"},
		{0x00, "\x01\x00\x00\x00", abi.ErrCorrupt, "inodes"},
		{0x14, "\x01", abi.ErrCorrupt, "first data block"},
		{0x54, "\x01", abi.ErrCorrupt, "first inode"},
		{0x58, "\x81\x00", abi.ErrCorrupt, "inode size"},
		{0xFE, "\x80\x00", abi.ErrUnsupported, "descriptor size"},
		{0x60, "\xc6", abi.ErrUnsupported, "journal"},
		{0x60, "\xc3", abi.ErrUnsupported, "compression"},
		{0x63, "\x80", abi.ErrUnsupported, "0x80000000"},
		{0x65, "\x02", abi.ErrUnsupported, "bigalloc"},
		{0x68, "other uuid", abi.ErrCorrupt, "checksum of group 0"},
		{4096 - 1024 + 0x10, "\x99", abi.ErrCorrupt, "checksum of group 0"},
	} {
		dev := ext4.NewOverlay(base, base.Size(), nil)
		b := make([]byte, 2*ext4.BlockSize)
		if _, err := base.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		copy(b[1024+c.off:], c.data)
		if _, err := dev.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		_, err := ext4.Open(dev, dev.Size())
		var fe *abi.FormatError
		if !errors.Is(err, c.class) || !errors.As(err, &fe) || fe.Off < 1024 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q at 0x%x: %v", c.data, c.off, err)
		}
		if errs := ext4.Check(dev, dev.Size()); len(errs) != 1 || errs[0].Error() != err.Error() {
			t.Errorf("%q at 0x%x: check: %v", c.data, c.off, errs)
		}
	}
}

// A device that is cut off is truncated, wherever.
func TestTruncated(t *testing.T) {
	base, err := good()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, base.Size())
	if _, err := base.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 1023, 1024, 1025, 2047, 4095, 4096, 4097, 8191, 8192, 32 * 4096, 33*4096 - 1, 40 * 4096, 85 * 4096} {
		r := strings.NewReader(string(b[:n]))
		errs := ext4.Check(r, base.Size())
		if len(errs) == 0 || !errors.Is(errs[0], abi.ErrTruncated) {
			t.Errorf("%d bytes: %v", n, errs)
		}
		if _, err := ext4.Open(r, int64(n)); err == nil {
			t.Errorf("%d bytes, and the reader knows: no error", n)
		}
	}
}
