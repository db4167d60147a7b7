package overlaybd

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
)

func TestParseMount(t *testing.T) {
	for _, c := range []struct {
		list     string
		readOnly bool
		flags    map[string]bool
		data     string
	}{
		{"", true, map[string]bool{"suid": false, "dev": false, "ro": true}, "noload"},
		{"", false, map[string]bool{"suid": false, "dev": false, "ro": false}, ""},
		{"suid,dev,noexec,noatime,data=writeback,,acl", false, map[string]bool{"suid": true, "dev": true, "exec": false, "atime": false, "ro": false}, "data=writeback,acl"},
		{"ro", false, map[string]bool{"suid": false, "dev": false, "ro": true}, "noload"},
	} {
		o, err := parseMount(c.list, c.readOnly)
		if err != nil || !reflect.DeepEqual(o.flags, c.flags) || o.forKind("ext4") != c.data {
			t.Errorf("%q: %v, %q, %v", c.list, o.flags, o.forKind("ext4"), err)
		}
	}
	if _, err := parseMount("rw", true); !errors.Is(err, abi.ErrInvalid) {
		t.Errorf("rw on a read-only device: %v", err)
	}
}

func TestFileSystem(t *testing.T) {
	at := func(off int, magic string) []byte {
		b := make([]byte, 4096)
		copy(b[off:], magic)
		return b
	}
	for want, b := range map[string][]byte{"ext4": at(1080, "\x53\xef"), "erofs": at(1024, "\xe2\xe1\xf5\xe0"), "xfs": at(0, "XFSB")} {
		if got, err := fileSystem(bytes.NewReader(b)); got != want || err != nil {
			t.Errorf("%s: %q, %v", want, got, err)
		}
	}
	if _, err := fileSystem(bytes.NewReader(make([]byte, 4096))); !errors.Is(err, abi.ErrUnsupported) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := fileSystem(bytes.NewReader(make([]byte, 1024))); !errors.Is(err, abi.ErrTruncated) {
		t.Errorf("too little: %v", err)
	}
}

func TestParseAttach(t *testing.T) {
	for name, req := range map[string]abi.AttachRequest{
		"relative upper": {Options: map[string]string{"upper": "x"}, StateDir: "/s"},
		"mounted socket": {Options: map[string]string{"device": "socket"}, StateDir: "/s", Target: "/m"},
		"no state":       {Options: map[string]string{"device": "fuse"}},
		"writable":       {Options: map[string]string{"writable": "perhaps"}, StateDir: "/s"},
	} {
		if _, err := parseAttach(&req); !errors.Is(err, abi.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o, err := parseAttach(&abi.AttachRequest{Options: map[string]string{"device": "auto", "upper": filepath.Join(t.TempDir(), "u")}, StateDir: t.TempDir()})
	if err != nil || o.backend != "" || !o.writable || o.mount.flags["ro"] {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestDeviceConfig(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	part := func(annotations ...string) abi.PartInfo {
		p := abi.PartInfo{Digest: digest, Size: 77, Annotations: map[string]string{}}
		for _, a := range annotations {
			k, v, _ := strings.Cut(a, "=")
			p.Annotations[k] = v
		}
		return p
	}
	remote := "https://registry.example/v2/a/b/blobs/" + digest
	for name, c := range map[string]struct {
		parts     []abi.PartInfo
		locations []string
		upper     string
		want      string // "": there is none
	}{
		"registry": {[]abi.PartInfo{part(), part()}, []string{remote, remote}, "",
			`{"repoBlobUrl":"https://registry.example/v2/a/b/blobs","lowers":[{"digest":"` + digest + `","size":77},{"digest":"` + digest + `","size":77}]}`},
		"layout":       {[]abi.PartInfo{part()}, []string{"file:///a%20b/c"}, "", `{"lowers":[{"file":"/a b/c","size":77}]}`},
		"upper":        {[]abi.PartInfo{part()}, []string{"file:///c"}, "/u", `{"lowers":[{"file":"/c","size":77}],"upper":{"index":"/u/writable_index","data":"/u/writable_data"}}`},
		"acceleration": {[]abi.PartInfo{part(), part(annotationAcceleration + "=yes")}, []string{"file:///c", "file:///d"}, "", `{"lowers":[{"file":"/c","size":77}]}`},
		"nowhere":      {[]abi.PartInfo{part()}, []string{""}, "", ""},
		"old host":     {[]abi.PartInfo{part()}, nil, "", ""},
		"repositories": {[]abi.PartInfo{part(), part()}, []string{remote, "https://registry.example/v2/c/blobs/" + digest}, "", ""},
		"other digest": {[]abi.PartInfo{part()}, []string{remote[:len(remote)-1]}, "", ""},
		"turbo":        {[]abi.PartInfo{part(targetKeys[0] + "=" + digest)}, []string{remote}, "", ""},
	} {
		b, err := deviceConfig(&abi.AttachRequest{Parts: c.parts, Locations: c.locations}, attachment{upper: c.upper})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var compact bytes.Buffer
		if len(b) > 0 {
			if err := json.Compact(&compact, b); err != nil {
				t.Error(err)
			}
		}
		if got := strings.ReplaceAll(compact.String(), `\\`, "/"); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// disk makes a stack of one layer with these bytes.
func diskOf(t *testing.T, digest string, b []byte) *stack {
	t.Helper()
	var out bytes.Buffer
	w, err := lsmt.NewWriter(&out, lsmt.Config{VirtualSize: int64(len(b))})
	if err == nil {
		err = w.Data(0, b)
	}
	if err == nil {
		_, err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := lsmt.Open(bytes.NewReader(out.Bytes()), int64(out.Len()), lsmt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dev, err := lsmt.Stack(l)
	if err != nil {
		t.Fatal(err)
	}
	return &stack{Device: dev, layers: []*layerFile{{info: abi.PartInfo{Digest: digest}, layer: l}}}
}

// A writable layer is opened again upon its own image, and upon no other.
func TestOpenDisk(t *testing.T) {
	image := diskOf(t, "sha256:1", bytes.Repeat([]byte{1}, 1<<16))
	s := &attachState{dir: t.TempDir()}
	o := attachment{writable: true, upper: filepath.Join(t.TempDir(), "a", "b")}
	for round := range 3 {
		disk, end, err := openDisk(s, image, o)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1<<16)
		if _, err := disk.ReadAt(got, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if want := slices.Concat(bytes.Repeat([]byte{9}, 100*round), bytes.Repeat([]byte{1}, 1<<16-100*round)); !bytes.Equal(got, want) {
			t.Errorf("round %d: other bytes", round)
		}
		if _, err := disk.(io.WriterAt).WriteAt(bytes.Repeat([]byte{9}, 100), int64(100*round)); err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := openDisk(s, diskOf(t, "sha256:2", bytes.Repeat([]byte{1}, 1<<16)), o); !errors.Is(err, abi.ErrInvalid) {
		t.Errorf("another image: %v", err)
	}
	if _, _, err := openDisk(s, diskOf(t, "sha256:1", bytes.Repeat([]byte{1}, 1<<15)), o); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("another size: %v", err)
	}
	if err := os.WriteFile(filepath.Join(o.upper, upperIndex), []byte("not an index, but longer than"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openDisk(s, image, o); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a broken layer: %v", err)
	}
}

// Detach works from the state directory alone, and as often as it is called.
func TestDetachFromState(t *testing.T) {
	dir := t.TempDir()
	req := &abi.DetachRequest{ID: "x", StateDir: dir}
	if err := (plugin{}).Detach(t.Context(), req); err != nil {
		t.Errorf("nothing was made: %v", err)
	}
	s := &attachState{dir: dir, Upper: filepath.Join(dir, "upper")}
	if err := errors.Join(os.MkdirAll(filepath.Join(s.Upper, "deep"), 0o700), s.save()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := (plugin{}).Detach(t.Context(), req); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	if err := os.WriteFile(stateFile(dir), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (plugin{}).Detach(t.Context(), req); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a broken state: %v", err)
	}
	if err := (plugin{}).Detach(t.Context(), &abi.DetachRequest{StateDir: "relative"}); !errors.Is(err, abi.ErrInvalid) {
		t.Errorf("a relative directory: %v", err)
	}
}
