package ext4_test

import (
	"crypto/sha256"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
	"golang.org/x/sys/unix"
)

// mounted lets the kernel mount the device read-only and compares what it sees with the tree.
func mounted(t *testing.T, dev *ext4.Overlay, tree *flatten.Tree) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root, to mount,")
		return
	}
	at := t.TempDir()
	if out, err := exec.Command("mount", "-o", "ro,loop", "-t", "ext4", dump(t, dev), at).CombinedOutput(); err != nil {
		if strings.Contains(string(out), "loop device") || strings.Contains(string(out), "unknown filesystem") {
			missing(t, "a kernel with loop devices and ext4")
			return
		}
		t.Fatalf("mount: %v\n%s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	}()
	for _, d := range flatten.Compare(slices.Values(onDisk(t, at)), tree.Records(), flatten.CompareOptions{Max: 10}) {
		t.Errorf("kernel first, flatten second: %v", d)
	}
}

// onDisk describes a mounted tree.
func onDisk(t *testing.T, root string) (out []flatten.Record) {
	first := map[uint64]int{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		r := flatten.Record{Path: strings.TrimPrefix(rel, "."), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MtimeSec: int64(st.Mtim.Sec), MtimeNs: uint32(st.Mtim.Nsec)}
		if rel == "." {
			r.Path = ""
		} else {
			r.Path = rel
		}
		if rel == "lost+found" && r.Mode == 0o700 { // as mkfs made it
			return nil
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			r.Kind = abi.KindDir
		case unix.S_IFLNK:
			r.Kind = abi.KindSymlink
			r.Link, err = os.Readlink(p)
		case unix.S_IFREG:
			r.Kind = abi.KindRegular
			var b []byte
			b, err = os.ReadFile(p)
			r.Size, r.SHA256 = int64(len(b)), sha256.Sum256(b)
		case unix.S_IFCHR, unix.S_IFBLK:
			r.Kind = abi.KindChar
			if st.Mode&unix.S_IFMT == unix.S_IFBLK {
				r.Kind = abi.KindBlock
			}
			r.DevMajor, r.DevMinor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
		case unix.S_IFIFO:
			r.Kind = abi.KindFifo
		}
		if err != nil {
			return err
		}
		r.Xattrs = kernelXattrs(t, p)
		if st.Nlink > 1 && r.Kind != abi.KindDir {
			i, ok := first[st.Ino]
			if !ok {
				i = len(out)
				first[st.Ino] = i
				r.Group = r.Path
			} else {
				r.Group = out[i].Path
			}
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func kernelXattrs(t *testing.T, p string) (out []abi.Xattr) {
	buf := make([]byte, 1<<16)
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return nil
	}
	for _, key := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		val := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(p, key, val)
		if err != nil {
			t.Errorf("%s: %s: %v", p, key, err)
			continue
		}
		out = append(out, abi.Xattr{Key: key, Value: val[:n]})
	}
	slices.SortFunc(out, func(a, b abi.Xattr) int { return strings.Compare(a.Key, b.Key) })
	return out
}
