package ext4_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
)

// mke2fs makes a file system with the tool and returns a device over it.
func mke2fs(t *testing.T, size int64, args ...string) *ext4.Overlay {
	t.Helper()
	tool := find("mke2fs")
	if tool == "" {
		missing(t, "mke2fs")
		t.Skip("mke2fs is not installed: no foreign file systems")
	}
	name := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	args, tune := args, []string(nil)
	if i := slices.Index(args, "|"); i >= 0 {
		args, tune = args[:i], args[i+1:]
	}
	if out, err := exec.Command(tool, append(append([]string{"-q", "-F", "-b", "4096"}, args...), name)...).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	if tune != nil {
		if out, err := exec.Command(find("tune2fs"), append(tune, name)...).CombinedOutput(); err != nil {
			t.Fatalf("tune2fs: %v\n%s", err, out)
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	dev := ext4.NewOverlay(nil, size, nil)
	for i := 0; i < len(b); i += ext4.BlockSize {
		if p := b[i : i+ext4.BlockSize]; !bytes.Equal(p, make([]byte, len(p))) {
			if _, err := dev.WriteAt(p, int64(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dev
}

// Layers go on file systems of others: those of ctr obdconv's mkfs, of ext4_64's, with and without journal, old and new features.
func TestForeign(t *testing.T) {
	for name, args := range map[string]string{
		"defaults":      "-t ext4",
		"obdconv":       "-t ext4 -O ^has_journal,sparse_super,flex_bg -G 1 -E discard",
		"ext4_64":       "-t ext4 -O ^metadata_csum,uninit_bg -G 16",
		"no checksums":  "-t ext4 -O ^metadata_csum,^uninit_bg,^has_journal,^resize_inode,sparse_super2",
		"no index":      "-t ext4 -O ^dir_index",
		"32 bit":        "-t ext4 -O ^64bit,^huge_file,^dir_nlink",
		"small inodes":  "-t ext4 -I 128 -O ^extra_isize",
		"large inodes":  "-t ext4 -I 1024",
		"no flex":       "-t ext4 -O ^flex_bg",
		"other hash":    "-t ext4 | -E hash_alg=tea",
		"legacy hash":   "-t ext4 | -E hash_alg=legacy",
		"seed":          "-t ext4 -O metadata_csum_seed",
		"large_dir":     "-t ext4 -O large_dir",
		"not zeroed":    "-t ext4 -O uninit_bg -E lazy_itable_init=1",
		"zeroed tables": "-t ext4 -E lazy_itable_init=0",
	} {
		t.Run(name, func(t *testing.T) {
			dev, tree := mke2fs(t, 300<<20, strings.Fields(args)...), flatten.New(flatten.Options{})
			var many []member
			for i := range 700 {
				many = append(many, script(t, "some/directory/"+strings.Repeat(string(rune('a'+i%26)), 1+i/26)+"é")...)
			}
			first := append(attributes(), many...)
			if name == "small inodes" {
				first = append(script(t, "./"), many...) // no nanoseconds and late times there
				for i := range first {
					first[i].MtimeNs = 0
				}
			}
			next(t, dev, tree, first)
			more := script(t, "some/.wh.directory some/other/x l->some/other l/y")
			for i := range more {
				more[i].MtimeNs = 0
			}
			next(t, dev, tree, more)
			mounted(t, dev, tree)
		})
	}
}

func TestForeignRefused(t *testing.T) {
	for args, want := range map[string]string{
		"-t ext4 -O inline_data": "inline_data", "-t ext4 -O bigalloc": "bigalloc", "-t ext4 -O meta_bg,^resize_inode": "meta_bg",
		"-t ext4 -O ea_inode": "ea_inode", "-t ext4 -O casefold": "casefold", "-t ext4 -O quota": "quota", "-t ext3": "extents", "-t ext4 -O encrypt": "encrypt",
	} {
		_, err := ext4.NewApplier(mke2fs(t, 64<<20, strings.Fields(args)...), ext4.Options{})
		if !errors.Is(err, abi.ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
	small := mke2fs(t, 16<<20, "-t", "ext4", "-b", "1024")
	if _, err := ext4.Open(small, small.Size()); !errors.Is(err, abi.ErrUnsupported) || !strings.Contains(err.Error(), "block size") {
		t.Error(err)
	}
}

// What the tool puts in with its own code is read back: block maps of ext3, and its indexes.
func TestReadForeign(t *testing.T) {
	src := t.TempDir()
	big := strings.Repeat("0123456789abcdef", 6<<20/16)
	for i := range 2000 {
		if err := os.WriteFile(filepath.Join(src, "file "+strings.Repeat("n", i%200)+string(rune('a'+i/200))), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(src, "big"), []byte(big), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"ext2", "ext3", "ext4"} {
		dev := mke2fs(t, 64<<20, "-t", kind, "-d", src)
		im, err := ext4.Open(dev, dev.Size())
		if err != nil {
			t.Fatal(err)
		}
		e, f, err := im.Stat("big")
		if err != nil || e.Size != int64(len(big)) {
			t.Fatalf("%s: %+v %v", kind, e, err)
		}
		b := make([]byte, len(big))
		if _, err := f.ReadAt(b, 0); err != nil || string(b) != big {
			t.Errorf("%s: other content, %v", kind, err)
		}
		names := 0
		if err := im.Walk(context.Background(), func(*abi.Entry, *ext4.File) error { names++; return nil }); err != nil || names != 2002 {
			t.Errorf("%s: %d names, %v", kind, names, err)
		}
		if _, _, err := im.Stat("nothing"); abi.ClassOf(err) != abi.ErrNotFound {
			t.Error(err)
		}
	}
}
