package judges

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/test/judge"
)

// The kernel mounts the merged bootstrap with the uncompressed blobs as devices, and every attribute of every name is that of
// the flattened source.
func TestKernelErofs(t *testing.T) {
	judge.Root(t)
	kernelHas(t, "erofs")
	h := newHost(t)
	erofsCases(t, func(t *testing.T, ref, platform string, o map[string]string) {
		x := expand(t, convert(t, h, ref, platform, o))
		options := "ro"
		for _, d := range x.devices {
			options += ",device=" + loop(t, d)
		}
		dir := mounted(t, "erofs", options, loop(t, x.boot))
		opt := flatten.CompareOptions{WholeSeconds: true, ImpliedUnspecified: true}
		report(t, flatten.Compare(sourceTree(t, ref, platform).Records(), func(yield func(flatten.Record) bool) {
			for _, r := range mountRecords(t, dir) {
				if !yield(r) {
					return
				}
			}
		}, opt))
	})
}

// loop makes a read-only block device of a file, for as long as the test lasts.
func loop(t testing.TB, file string) string {
	t.Helper()
	losetup := judge.Tool(t, "losetup")
	dev := strings.TrimSpace(judge.Run(t, losetup, "--find", "--show", "--read-only", file))
	t.Cleanup(func() { judge.Run(t, losetup, "--detach", dev) })
	return dev
}

// mounted mounts a device for as long as the test lasts and returns the directory.
func mounted(t testing.TB, fstype, options, device string) string {
	t.Helper()
	dir := t.TempDir()
	judge.Run(t, judge.Tool(t, "mount"), "-t", fstype, "-o", options, device, dir)
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// kernelHas skips the test where the kernel lacks a file system.
func kernelHas(t *testing.T, name string) {
	t.Helper()
	judge.Try("", "modprobe", name) // built in or not there: the list below tells
	list, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(list), "\t"+name+"\n") {
		judge.Missing(t, "this kernel has no "+name)
	}
}

// mountRecords lists a mounted tree with what the system calls say.
func mountRecords(t testing.TB, root string) []flatten.Record {
	t.Helper()
	var out []flatten.Record
	groups := map[uint64][]int{}
	err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if rel == "." {
			rel = ""
		}
		r := flatten.Record{Path: rel, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MtimeSec: int64(st.Mtim.Sec), MtimeNs: uint32(st.Mtim.Nsec)}
		if r.Xattrs, err = xattrs(name); err != nil {
			return err
		}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			r.Kind, r.Size = abi.KindRegular, st.Size
			if r.SHA256, err = sum(name); err != nil {
				return err
			}
		case syscall.S_IFDIR:
			r.Kind = abi.KindDir
		case syscall.S_IFLNK:
			r.Kind = abi.KindSymlink
			if r.Link, err = os.Readlink(name); err != nil {
				return err
			}
		case syscall.S_IFIFO:
			r.Kind = abi.KindFifo
		case syscall.S_IFCHR, syscall.S_IFBLK:
			if r.Kind = abi.KindChar; st.Mode&syscall.S_IFMT == syscall.S_IFBLK {
				r.Kind = abi.KindBlock
			}
			r.DevMajor, r.DevMinor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
		}
		if r.Kind != abi.KindDir && st.Nlink > 1 {
			groups[st.Ino] = append(groups[st.Ino], len(out))
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return grouped(out, groups)
}

func sum(name string) (s [32]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return s, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return [32]byte(h.Sum(nil)), err
}

// xattrs reads the attributes of a name, links not followed.
func xattrs(name string) ([]abi.Xattr, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(name, buf)
	if err != nil {
		return nil, err
	}
	var out []abi.Xattr
	for key := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if key == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(name, key, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, abi.Xattr{Key: key, Value: value[:n]})
	}
	return out, nil
}
