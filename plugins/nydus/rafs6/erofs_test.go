package rafs6

import (
	"bytes"
	"io/fs"
	"testing"

	"github.com/erofs/go-erofs"

	"github.com/convhost/convhost/abi"
)

// go-erofs, which knows nothing of nydus, reads our bootstraps with the expansion of the blob as device.
func TestErofsReads(t *testing.T) {
	for _, set := range []string{"kitchen", "base", "dev", "missing"} {
		t.Run(set, func(t *testing.T) {
			device := []byte{}
			entries := tarEntries(t, inputTar(t, set))
			bodies := map[string][]byte{}
			tree, err := build(plainOptions, entries, func(_ uint32, raw []byte) uint32 {
				device = append(device, raw...)
				device = append(device, make([]byte, roundup(len(raw), 4096)-len(raw))...)
				return uint32(len(raw))
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				bodies[e.Path] = e.body
				if e.Kind == abi.KindHardlink {
					bodies[e.Path] = bodies[e.Link]
				}
			}
			tree.blobs[0].ID = "x"
			data, err := tree.Bootstrap()
			if err != nil {
				t.Fatal(err)
			}
			img, err := erofs.Open(bytes.NewReader(data), erofs.WithExtraDevices(bytes.NewReader(device)))
			if err != nil {
				t.Fatal(err)
			}
			names := 0
			err = tree.Walk(func(e *abi.Entry, _ File) error {
				names++
				if e.Path == "" {
					return nil
				}
				info, err := fs.Lstat(img, e.Path)
				if err != nil {
					return err
				}
				st := info.Sys().(*erofs.Stat)
				if st.UID != e.UID || st.GID != e.GID || int64(st.Mtime) != e.MtimeSec || info.Mode().Perm() != fs.FileMode(e.Mode&0o777) ||
					info.IsDir() != (e.Kind == abi.KindDir) || len(st.Xattrs) < len(e.Xattrs) && e.Kind != abi.KindHardlink {
					t.Errorf("%s: %+v, want %+v", e.Path, st, e)
				}
				switch e.Kind {
				case abi.KindRegular, abi.KindHardlink:
					if p, err := fs.ReadFile(img, e.Path); err != nil || !bytes.Equal(p, bodies[e.Path]) {
						t.Errorf("%s: other content, %v", e.Path, err)
					}
				case abi.KindSymlink:
					if s, err := fs.ReadLink(img, e.Path); err != nil || s != e.Link {
						t.Errorf("%s: links to %q, %v", e.Path, s, err)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			seen := 0
			if err := fs.WalkDir(img, ".", func(string, fs.DirEntry, error) error { seen++; return nil }); err != nil || seen != names {
				t.Errorf("%d names, want %d: %v", seen, names, err)
			}
		})
	}
}
