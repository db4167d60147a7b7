package judges

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/erofs/go-erofs"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/test/judge"
	"github.com/convhost/convhost/test/rawrafs"
)

// expanded is a merged bootstrap as a file, with one file for each device, in the order of the blob table.
type expanded struct {
	boot    string
	devices []string
}

// expand makes the devices of an image: each blob uncompressed, each chunk at its place.
func expand(t testing.TB, c *converted) expanded {
	t.Helper()
	dir := t.TempDir()
	x := expanded{boot: filepath.Join(dir, "boot")}
	if err := os.WriteFile(x.boot, c.boot, 0o600); err != nil {
		t.Fatal(err)
	}
	img := rawrafs.Open(c.boot)
	for i, b := range img.Blobs() {
		at := slices.IndexFunc(c.blobs, func(d descriptor) bool { return d.Digest.Encoded() == b.ID })
		if at < 0 {
			t.Fatalf("blob %s is not a layer", b.ID)
		}
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("device%d", i+1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := img.Expand(i, c.dir.Read(c.blobs[at]), f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		x.devices = append(x.devices, f.Name())
	}
	return x
}

// erofsCases are what the readers of EROFS judge: images with every layer kind and option that changes the tree.
func erofsCases(t *testing.T, judge func(t *testing.T, ref, platform string, o map[string]string)) {
	sets := optionSets()
	for tag := range images {
		src := source(t, tag)
		for _, o := range []map[string]string{{}, sets[0], sets[13]} {
			t.Run(tag+"/"+nameOf(o), func(t *testing.T) { judge(t, src, "", o) })
		}
	}
	for _, p := range []string{"linux/amd64", "linux/arm64"} {
		t.Run("demo/"+p, func(t *testing.T) { judge(t, demo+":demo", p, nil) })
	}
	t.Run("debian", func(t *testing.T) { judge(t, debian(t), "", nil) })
}

// go-erofs, a reader in Go that knows nothing of nydus, sees the tree of the source.
func TestGoErofs(t *testing.T) {
	h := newHost(t)
	erofsCases(t, func(t *testing.T, ref, platform string, o map[string]string) {
		x := expand(t, convert(t, h, ref, platform, o))
		var files []io.ReaderAt
		for _, name := range append([]string{x.boot}, x.devices...) {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			files = append(files, f)
		}
		img, err := erofs.Open(files[0], erofs.WithExtraDevices(files[1:]...))
		if err != nil {
			t.Fatal(err)
		}
		want := sourceTree(t, ref, platform)
		opt := flatten.CompareOptions{WholeSeconds: true, ImpliedUnspecified: true}
		permissions := func(yield func(flatten.Record) bool) { // go-erofs 0.3 does not tell of setuid, setgid and sticky
			for r := range want.Records() {
				if r.Mode &= 0o777; !yield(r) {
					return
				}
			}
		}
		report(t, flatten.Compare(permissions, slices.Values(goErofsRecords(t, img)), opt))
	})
}

// goErofsRecords lists the tree that go-erofs sees.
func goErofsRecords(t testing.TB, img fs.FS) []flatten.Record {
	t.Helper()
	var out []flatten.Record
	groups := map[uint64][]int{}
	err := fs.WalkDir(img, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := fs.Lstat(img, name)
		if err != nil {
			return err
		}
		st := info.Sys().(*erofs.Stat)
		r := flatten.Record{Path: name, UID: st.UID, GID: st.GID, MtimeSec: int64(st.Mtime)}
		if name == "." {
			r.Path = ""
		}
		for k, v := range st.Xattrs {
			r.Xattrs = append(r.Xattrs, abi.Xattr{Key: k, Value: []byte(v)})
		}
		mode := info.Mode()
		r.Mode = uint32(mode.Perm())
		switch mode.Type() {
		case 0:
			r.Kind, r.Size = abi.KindRegular, info.Size()
			body, err := fs.ReadFile(img, name)
			if err != nil {
				return err
			}
			r.SHA256 = sha256.Sum256(body)
			if st.Nlink > 1 {
				groups[uint64(st.Ino)] = append(groups[uint64(st.Ino)], len(out))
			}
		case fs.ModeDir:
			r.Kind = abi.KindDir
		case fs.ModeSymlink:
			r.Kind = abi.KindSymlink
			if r.Link, err = fs.ReadLink(img, name); err != nil {
				return err
			}
		case fs.ModeNamedPipe:
			r.Kind = abi.KindFifo
		default:
			r.Kind = abi.KindBlock
			if mode&fs.ModeCharDevice != 0 {
				r.Kind = abi.KindChar
			}
			r.DevMajor, r.DevMinor = st.Rdev>>8&0xfff, st.Rdev&0xff|st.Rdev>>12&0xfff00
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return grouped(out, groups)
}

// grouped names hard-link groups after their first path and sorts records and attributes.
func grouped(all []flatten.Record, groups map[uint64][]int) []flatten.Record {
	for _, g := range groups {
		slices.SortFunc(g, func(a, b int) int { return comparePaths(all[a].Path, all[b].Path) })
		for _, i := range g {
			all[i].Group = all[g[0]].Path
		}
	}
	for i := range all {
		slices.SortFunc(all[i].Xattrs, func(a, b abi.Xattr) int { return strings.Compare(a.Key, b.Key) })
	}
	slices.SortFunc(all, func(a, b flatten.Record) int { return comparePaths(a.Path, b.Path) })
	return all
}

// comparePaths orders a directory before its content and siblings by their bytes.
func comparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// fsck.erofs walks the tree with the devices beside it and reads every file.
func TestFsckErofs(t *testing.T) {
	tool := judge.Tool(t, "fsck.erofs")
	h := newHost(t)
	devices := strings.Contains(help(tool), "--device")
	if !devices {
		t.Log("this fsck.erofs knows no --device: it looks at the metadata only")
	}
	erofsCases(t, func(t *testing.T, ref, platform string, o map[string]string) {
		x := expand(t, convert(t, h, ref, platform, o))
		args := []string{x.boot}
		if devices {
			args = []string{"--extract"}
			for _, d := range x.devices {
				args = append(args, "--device="+d)
			}
			args = append(args, x.boot)
		}
		out := judge.Run(t, tool, args...)
		if strings.Contains(out, "<E>") || strings.Contains(out, "<W>") {
			t.Errorf("fsck.erofs: %s", out)
		}
	})
}

func help(tool string) string {
	out, _ := judge.Try("", tool, "--help")
	return out
}

// The comparison has teeth: one changed byte of a device, and one changed mode in the bootstrap, are found.
func TestErofsComparisonFinds(t *testing.T) {
	h := newHost(t)
	ref := demo + ":demo"
	c := convert(t, h, ref, "linux/amd64", nil)
	want := sourceTree(t, ref, "linux/amd64")
	x := expand(t, c)
	device := read(t, x.devices[0])
	for name, damage := range map[string]func(boot, device []byte){
		"content": func(_, device []byte) { device[0] ^= 1 },
		"mode":    func(boot, _ []byte) { boot[rawrafs.RootInode(boot)+4] ^= 1 },
	} {
		boot, dev := bytes.Clone(c.boot), bytes.Clone(device)
		damage(boot, dev)
		files := []io.ReaderAt{bytes.NewReader(dev)}
		for _, d := range x.devices[1:] {
			files = append(files, bytes.NewReader(read(t, d)))
		}
		img, err := erofs.Open(bytes.NewReader(boot), erofs.WithExtraDevices(files...))
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, d := range flatten.Compare(want.Records(), slices.Values(goErofsRecords(t, img)), flatten.CompareOptions{WholeSeconds: true}) {
			found[d.Field] = true
		}
		if !found[name] {
			t.Errorf("a damaged %s is not found, only %v", name, found)
		}
	}
}
