package tarwrite_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/tarwrite"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func Example() {
	e := abi.Entry{Kind: abi.KindRegular, Path: "etc/hostname", Mode: 0o644, Size: 5}
	b, err := tarwrite.AppendHeader(nil, &e)
	b = append(b, "name\n"...)
	b = tarwrite.AppendPadding(b, e.Size)
	b = tarwrite.AppendEnd(b)
	fmt.Println(len(b), err)
	// Output: 2048 <nil>
}

func entries() []abi.Entry {
	long := strings.Repeat("0123456789/", 30) + "x"
	noSplit := strings.Repeat("n", 101)
	return []abi.Entry{
		{Kind: abi.KindDir, Mode: 0o755},
		{Kind: abi.KindDir, Path: "a", Mode: 0o7777, UID: 1, GID: 2, MtimeSec: 1700000000},
		{Kind: abi.KindRegular, Path: "a/f", Size: 700, MtimeSec: 5, MtimeNs: 1},
		{Kind: abi.KindRegular, Path: "a/neg", MtimeSec: -1, MtimeNs: 500000000},
		{Kind: abi.KindRegular, Path: "a/neg2", MtimeSec: -2},
		{Kind: abi.KindRegular, Path: "a/min", MtimeSec: -1 << 63, MtimeNs: 999999999},
		{Kind: abi.KindRegular, Path: "a/max", MtimeSec: 1<<63 - 1, MtimeNs: 999999990},
		{Kind: abi.KindRegular, Path: long}, {Kind: abi.KindDir, Path: long[:150]}, {Kind: abi.KindRegular, Path: noSplit},
		{Kind: abi.KindDir, Path: strings.Repeat("d", 100)}, {Kind: abi.KindRegular, Path: strings.Repeat("p", 155) + "/" + strings.Repeat("n", 100)},
		{Kind: abi.KindSymlink, Path: "s", Link: "../" + long}, {Kind: abi.KindHardlink, Path: "h", Link: "a/f"},
		{Kind: abi.KindHardlink, Path: "h2", Link: long},
		{Kind: abi.KindChar, Path: "c", DevMajor: 1, DevMinor: 1<<32 - 1}, {Kind: abi.KindBlock, Path: "b", DevMajor: 1 << 21, DevMinor: 7},
		{Kind: abi.KindFifo, Path: "p"},
		{Kind: abi.KindRegular, Path: "ids", UID: 1<<32 - 1, GID: 1 << 21},
		{Kind: abi.KindRegular, Path: "\xff\n", Xattrs: []abi.Xattr{{Key: "security.capability", Value: []byte{0, 10, 255, '='}},
			{Key: "user.e", Value: []byte{}}, {Key: "user.long", Value: bytes.Repeat([]byte("v"), 970)}}},
	}
}

func body(n int64) []byte { return bytes.Repeat([]byte("b"), int(n)) }

func archive(t testing.TB, es []abi.Entry) (b []byte) {
	for i := range es {
		var err error
		if b, err = tarwrite.AppendHeader(b, &es[i]); err != nil {
			t.Fatal(err)
		}
		b = tarwrite.AppendPadding(append(b, body(es[i].Size)...), es[i].Size)
	}
	return tarwrite.AppendEnd(b)
}

var ignore = cmp.Options{cmpopts.IgnoreFields(abi.Entry{}, "HdrOff", "BodyOff", "Seq", "Flags"), cmpopts.EquateEmpty()}

// reader(write(e)) == e.
func TestRoundTrip(t *testing.T) {
	es := entries()
	b := archive(t, es)
	if again := archive(t, es); !bytes.Equal(b, again) {
		t.Error("not deterministic")
	}
	r := layer.NewReader(bytes.NewReader(b), layer.Limits{})
	for i := range es {
		var got abi.Entry
		if err := r.Next(&got); err != nil {
			t.Fatalf("%q: %v", es[i].Path, err)
		}
		if d := cmp.Diff(es[i], got, ignore); d != "" {
			t.Error(d)
		}
		if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, body(es[i].Size)) {
			t.Errorf("%q: body of %d bytes, %v", es[i].Path, len(data), err)
		}
	}
	if err := r.Next(new(abi.Entry)); err != io.EOF {
		t.Error(err)
	}
}

func TestArchiveTarReadsIt(t *testing.T) {
	tr := tar.NewReader(bytes.NewReader(archive(t, entries())))
	for _, e := range entries() {
		h, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Trim(h.Name, "./") != e.Path && h.Name != e.Path && h.Name != e.Path+"/" {
			t.Errorf("name %q, want %q", h.Name, e.Path)
		}
		if h.Linkname != e.Link || h.Size != e.Size || h.Mode != int64(e.Mode) || uint32(h.Uid) != e.UID || uint32(h.Gid) != e.GID ||
			!h.ModTime.Equal(time.Unix(e.MtimeSec, int64(e.MtimeNs))) || uint32(h.Devmajor) != e.DevMajor || uint32(h.Devminor) != e.DevMinor {
			t.Errorf("%+v, want %+v", h, e)
		}
		for _, x := range e.Xattrs {
			if h.PAXRecords["SCHILY.xattr."+x.Key] != string(x.Value) {
				t.Errorf("%q: xattr %s", e.Path, x.Key)
			}
		}
	}
	if _, err := tr.Next(); err != io.EOF {
		t.Error(err)
	}
}

func TestGNUTarReadsIt(t *testing.T) {
	gnu, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar on this machine as a judge")
	}
	if v, _ := exec.Command(gnu, "--version").Output(); !bytes.Contains(v, []byte("GNU tar")) {
		t.Skip("tar on this machine is not GNU tar")
	}
	var es []abi.Entry
	for _, e := range entries() {
		if e.MtimeSec > -1<<40 && e.MtimeSec < 1<<40 && e.DevMinor < 1<<31 { // GNU tar knows no more
			es = append(es, e)
		}
	}
	cmd := exec.Command(gnu, "-tf", "-", "--quoting-style=literal", "--show-transformed-names")
	cmd.Stdin = bytes.NewReader(archive(t, es))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, e := range es {
		switch {
		case e.Path == "":
			want.WriteString("./\n")
		case e.Kind == abi.KindDir:
			want.WriteString(e.Path + "/\n")
		default:
			want.WriteString(e.Path + "\n")
		}
	}
	if d := cmp.Diff(want.String(), string(out)); d != "" {
		t.Error(d)
	}
}

// A size that USTAR cannot hold goes into the pax header; there is no body to try it with, only the header.
func TestHugeSize(t *testing.T) {
	for _, size := range []int64{1<<33 - 1, 1 << 33, 1 << 40} {
		b, err := tarwrite.AppendHeader(nil, &abi.Entry{Kind: abi.KindRegular, Path: "huge", Size: size})
		if err != nil {
			t.Fatal(err)
		}
		var e abi.Entry
		if err := layer.NewReader(bytes.NewReader(b), layer.Limits{}).Next(&e); err != nil || e.Size != size {
			t.Errorf("%d: %d, %v", size, e.Size, err)
		}
		if h, err := tar.NewReader(bytes.NewReader(b)).Next(); err != nil || h.Size != size {
			t.Errorf("%d: archive/tar %+v, %v", size, h, err)
		}
	}
}

func TestInvalid(t *testing.T) {
	for name, e := range map[string]abi.Entry{
		"no kind": {Path: "a"}, "kind": {Kind: 8, Path: "a"}, "absolute": {Kind: 1, Path: "/a"}, "dots": {Kind: 1, Path: "a/../b"},
		"dot": {Kind: 1, Path: "./a"}, "slash": {Kind: 2, Path: "a/"}, "NUL": {Kind: 1, Path: "a\x00"}, "root file": {Kind: 1},
		"no target": {Kind: abi.KindSymlink, Path: "a"}, "target": {Kind: abi.KindRegular, Path: "a", Link: "b"},
		"hard link": {Kind: abi.KindHardlink, Path: "a", Link: "../b"}, "size": {Kind: 1, Path: "a", Size: -1},
		"dir size": {Kind: 2, Path: "a", Size: 1}, "mode": {Kind: 1, Path: "a", Mode: 0o100644}, "ns": {Kind: 1, Path: "a", MtimeNs: 1e9},
		"device": {Kind: 1, Path: "a", DevMajor: 1}, "link NUL": {Kind: abi.KindSymlink, Path: "a", Link: "\x00"},
		"xattr":       {Kind: 1, Path: "a", Xattrs: []abi.Xattr{{Key: ""}}},
		"xattr twice": {Kind: 1, Path: "a", Xattrs: []abi.Xattr{{Key: "b"}, {Key: "a"}, {Key: "b"}}},
	} {
		if b, err := tarwrite.AppendHeader(nil, &e); !errors.Is(err, abi.ErrInvalid) || b != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	e := abi.Entry{Kind: 1, Path: "a", Xattrs: []abi.Xattr{{Key: "user.a=b"}}}
	if _, err := tarwrite.AppendHeader(nil, &e); !errors.Is(err, abi.ErrUnsupported) {
		t.Error(err)
	}
}

func FuzzRoundTrip(f *testing.F) {
	for _, e := range entries() {
		var key string
		var value []byte
		if len(e.Xattrs) > 0 {
			key, value = e.Xattrs[0].Key, e.Xattrs[0].Value
		}
		f.Add(uint8(e.Kind), e.Path, e.Link, e.Mode, e.UID, e.GID, e.DevMajor, e.DevMinor, e.MtimeSec, e.MtimeNs, e.Size, key, value)
	}
	f.Fuzz(func(t *testing.T, kind uint8, path, link string, mode, uid, gid, major, minor uint32, sec int64, ns uint32, size int64, key string, value []byte) {
		e := abi.Entry{Kind: abi.Kind(kind), Path: path, Link: link, Mode: mode, UID: uid, GID: gid, DevMajor: major, DevMinor: minor,
			MtimeSec: sec, MtimeNs: ns, Size: size}
		if key != "" {
			e.Xattrs = []abi.Xattr{{Key: key, Value: value}}
		}
		b, err := tarwrite.AppendHeader(nil, &e)
		if err != nil {
			if c := abi.ClassOf(err); c != abi.ErrInvalid && c != abi.ErrUnsupported {
				t.Fatal(err)
			}
			return
		}
		if strings.Contains(path, ".wh.") || len(key) > 255 {
			return // names with a meaning of their own
		}
		var got abi.Entry
		switch err := layer.NewReader(bytes.NewReader(b), layer.Limits{}).Next(&got); {
		case abi.ClassOf(err) == abi.ErrLimit:
		case err != nil:
			t.Fatalf("%+v: %v", e, err)
		default:
			if d := cmp.Diff(e, got, ignore); d != "" {
				t.Fatal(d)
			}
		}
	})
}
