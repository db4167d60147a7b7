package layer_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/google/go-cmp/cmp"
)

func named(name string) []byte { return raw('0', name, 0, nil, nil) }

func TestNames(t *testing.T) {
	el255, el256 := strings.Repeat("n", 255), strings.Repeat("n", 256)
	deep := strings.Repeat(strings.Repeat("d", 99)+"/", 41)
	for _, c := range []struct {
		name, want string
		class      abi.Class
	}{
		{"a", "a", 0}, {"./a", "a", 0}, {"/a", "a", 0}, {"//a//b/", "a/b", 0}, {"a/./b", "a/b", 0}, {"a/../b", "b", 0},
		{"a/b/../../c", "c", 0}, {"...", "...", 0}, {"a/..b", "a/..b", 0}, {"wh.x", "wh.x", 0}, {"a.wh.b", "a.wh.b", 0},
		{el255, el255, 0}, {"x/" + el255, "x/" + el255, 0}, {"\xff\n\x01", "\xff\n\x01", 0}, {" a ", " a ", 0},
		{"..", "", abi.ErrCorrupt}, {"../a", "", abi.ErrCorrupt}, {"a/../../b", "", abi.ErrCorrupt}, {"/../a", "", abi.ErrCorrupt},
		{"a\x00b", "", abi.ErrCorrupt}, {el256, "", abi.ErrLimit}, {deep + "x", "", abi.ErrLimit}, {"./", "", abi.ErrCorrupt},
		{".wh.", "", abi.ErrCorrupt}, {"a/.wh..", "", abi.ErrCorrupt}, {"a/.wh...", "", abi.ErrCorrupt},
		{".wh.a/b", "", abi.ErrUnsupported}, {"x/.wh..wh..opq/y", "", abi.ErrUnsupported},
	} {
		b := paxFile('0', nil, "path", c.name)
		ms, _, err := readAll(bytes.NewReader(b), layer.Limits{})
		switch {
		case c.class != 0:
			if !errors.Is(err, c.class) || len(ms) != 0 {
				t.Errorf("%q: %v, want class %v", c.name, err, c.class)
			}
		case err != nil || len(ms) != 1 || ms[0].E.Path != c.want:
			t.Errorf("%q: %v, %v, want %q", c.name, ms, err, c.want)
		}
		// A hard link's target obeys the same rules.
		if c.class == abi.ErrUnsupported || strings.Contains(c.name, ".wh.") {
			continue
		}
		ms, _, err = readAll(bytes.NewReader(paxFile('1', nil, "linkpath", c.name)), layer.Limits{})
		if c.class != 0 && !errors.Is(err, c.class) || c.class == 0 && (err != nil || ms[0].E.Link != c.want) {
			t.Errorf("link to %q: %v, %v", c.name, ms, err)
		}
	}
}

func TestWhiteouts(t *testing.T) {
	b := bytes.Join([][]byte{named("a/.wh.x"), named(".wh..wh..opq"), named("b/.wh..wh..opq"), named(".wh..wh.plnk/1.2"), named("c/.wh..wh.aufs"),
		raw('5', "d/.wh.dir", 0, nil, nil), raw('1', "d/.wh.link", 0, nil, func(b []byte) { copy(b[157:], ".wh..wh.aufs") }),
		raw('0', "d/.wh.body", 5, []byte("12345"), nil), named("e")}, nil)
	ms, _, err := readAll(bytes.NewReader(b), layer.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, m := range ms {
		h, ok := layer.Hidden(&m.E)
		got = append(got, fmt.Sprintf("%s %d %q %v", m.E.Path, m.E.Flags, h, ok))
		if m.E.Seq != uint64(i) || m.E.Kind != abi.KindRegular || m.E.Link != "" || m.E.Size != 0 {
			t.Errorf("%+v", m.E)
		}
	}
	want := []string{`a/.wh.x 1 "a/x" true`, `.wh..wh..opq 2 "" true`, `b/.wh..wh..opq 2 "b" true`, `d/.wh.dir 1 "d/dir" true`,
		`d/.wh.link 1 "d/link" true`, `d/.wh.body 1 "d/body" true`, `e 0 "" false`}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, _, err := readAll(bytes.NewReader(raw('0', ".wh.body", 5000, make([]byte, 4000), nil)), layer.Limits{}); !errors.Is(err, abi.ErrTruncated) {
		t.Errorf("cut body of a whiteout: %v", err)
	}
}

func TestRefused(t *testing.T) {
	edit := func(off int, s string) []byte { return raw('0', "x", 0, nil, func(b []byte) { copy(b[off:], s) }) }
	flip := named("x")
	flip[0] ^= 1
	long := strings.Repeat("k", 256)
	for name, c := range map[string]struct {
		b    []byte
		want abi.Class
	}{
		"checksum":          {flip, abi.ErrCorrupt},
		"checksum is text":  {append(bytes.Repeat([]byte("x"), 512), 0), abi.ErrCorrupt},
		"type V":            {raw('V', "x", 0, nil, nil), abi.ErrUnsupported},
		"type M":            {raw('M', "x", 0, nil, nil), abi.ErrUnsupported},
		"mode":              {edit(100, "zzzzzzz"), abi.ErrCorrupt},
		"uid":               {edit(108, "\xff\xff\xff\xff\xff\xff\xff\xfe"), abi.ErrCorrupt},
		"uid of 2^32":       {paxFile('0', nil, "uid", "4294967296"), abi.ErrCorrupt},
		"gid":               {paxFile('0', nil, "gid", "1e3"), abi.ErrCorrupt},
		"mtime":             {paxFile('0', nil, "mtime", "1.2.3"), abi.ErrCorrupt},
		"mtime overflow":    {paxFile('0', nil, "mtime", "9223372036854775808"), abi.ErrCorrupt},
		"size":              {edit(124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfb"), abi.ErrCorrupt},
		"size overflow":     {edit(124, "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfb"), abi.ErrCorrupt},
		"pax size":          {paxFile('0', nil, "size", "-1"), abi.ErrCorrupt},
		"8 GiB, nothing":    {edit(124, "\x80\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00"), abi.ErrTruncated},
		"size of 1 EiB":     {edit(124, "\x80\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00"), abi.ErrLimit},
		"major":             {raw('3', "x", 0, nil, func(b []byte) { copy(b[329:], "\xff\xff\xff\xff\xff\xff\xff\xff") }), abi.ErrCorrupt},
		"symlink to \"\"":   {raw('2', "x", 0, nil, nil), abi.ErrCorrupt},
		"symlink with NUL":  {paxFile('2', nil, "linkpath", "a\x00b"), abi.ErrCorrupt},
		"symlink too long":  {paxFile('2', nil, "linkpath", strings.Repeat("l", 4097)), abi.ErrLimit},
		"hard link to root": {raw('1', "x", 0, nil, nil), abi.ErrCorrupt},
		"pax length":        {append(raw('x', "p", 6, []byte("9 a=b\n"), nil), named("x")...), abi.ErrCorrupt},
		"pax no feed":       {append(raw('x', "p", 6, []byte("6 a=b!"), nil), named("x")...), abi.ErrCorrupt},
		"pax no equals":     {append(raw('x', "p", 6, []byte("6 abc\n"), nil), named("x")...), abi.ErrCorrupt},
		"pax no key":        {append(raw('x', "p", 5, []byte("5 =b\n"), nil), named("x")...), abi.ErrCorrupt},
		"pax negative":      {append(raw('x', "p", 6, []byte("-6 a=b"), nil), named("x")...), abi.ErrCorrupt},
		"pax then end":      {append(raw('x', "p", 6, []byte("6 a=b\n"), nil), make([]byte, 1024)...), abi.ErrCorrupt},
		"pax then cut":      {raw('x', "p", 6, []byte("6 a=b\n"), nil), abi.ErrTruncated},
		"pax of 1 GiB":      {raw('x', "p", 1<<30, nil, nil), abi.ErrLimit},
		"long name 1 GiB":   {raw('L', "p", 1<<30, nil, nil), abi.ErrLimit},
		"global of 1 GiB":   {raw('g', "p", 1<<30, nil, nil), abi.ErrLimit},
		"global after pax":  {append(raw('x', "p", 6, []byte("6 a=b\n"), nil), raw('g', "x", 0, nil, nil)...), abi.ErrCorrupt},
		"xattr twice":       {paxFile('0', nil, "SCHILY.xattr.user.a", "1", "SCHILY.xattr.user.a", "1"), abi.ErrCorrupt},
		"xattr no name":     {paxFile('0', nil, "SCHILY.xattr.", "1"), abi.ErrCorrupt},
		"xattr name":        {paxFile('0', nil, "SCHILY.xattr."+long, "1"), abi.ErrLimit},
		"xattr value":       {paxFile('0', nil, "SCHILY.xattr.user.a", strings.Repeat("v", 65537)), abi.ErrLimit},
	} {
		ms, _, err := readAll(bytes.NewReader(c.b), layer.Limits{})
		if got := abi.ClassOf(err); got != c.want || len(ms) != 0 {
			t.Errorf("%s: %d members, %v, want class %v", name, len(ms), err, c.want)
		}
		if fe := new(abi.FormatError); errors.As(err, &fe) && (fe.Format != "tar" || fe.Off < 0) {
			t.Errorf("%s: %+v", name, fe)
		}
	}
}

func TestAttributes(t *testing.T) {
	read := func(b []byte) abi.Entry {
		t.Helper()
		ms, _, err := readAll(bytes.NewReader(b), layer.Limits{})
		if err != nil || len(ms) != 1 {
			t.Fatal(len(ms), err)
		}
		return ms[0].E
	}
	for in, want := range map[string][2]int64{"0": {0, 0}, "-5": {-5, 0}, "1.5": {1, 5e8}, "-0.5": {-1, 5e8}, "-1.25": {-2, 75e7},
		"1.": {1, 0}, "12.0000000019": {12, 1}, "-9223372036854775808": {-1 << 63, 0}} {
		e := read(paxFile('0', nil, "mtime", in))
		if e.MtimeSec != want[0] || int64(e.MtimeNs) != want[1] {
			t.Errorf("mtime %s: %d, %d", in, e.MtimeSec, e.MtimeNs)
		}
	}
	b64 := base64.RawStdEncoding.EncodeToString
	e := read(paxFile('0', nil, "LIBARCHIVE.xattr.user.%61%3D", b64([]byte("v\n1")), "SCHILY.xattr.user.b", "schily", "LIBARCHIVE.xattr.user.b",
		b64([]byte("other")), "LIBARCHIVE.xattr.user.bad", "***", "LIBARCHIVE.xattr.user.%zz", "AAAA"))
	want := []abi.Xattr{{Key: "user.a=", Value: []byte("v\n1")}, {Key: "user.b", Value: []byte("schily")}}
	if d := cmp.Diff(want, e.Xattrs); d != "" {
		t.Error(d)
	}
	if e := read(raw('7', "contiguous", 3, []byte("abc"), nil)); e.Kind != abi.KindRegular || e.Size != 3 {
		t.Errorf("%+v", e)
	}
	if e := read(raw(0, "v7dir/", 0, nil, func(b []byte) { clear(b[257:265]) })); e.Kind != abi.KindDir || e.Path != "v7dir" {
		t.Errorf("%+v", e)
	}
	if e := read(raw('5', "claims", 512, nil, nil)); e.Kind != abi.KindDir || e.Size != 0 {
		t.Errorf("%+v", e)
	}
	if e := read(raw('0', "name", 0, nil, func(b []byte) { copy(b[345:], "prefix\xc3") })); e.Path != "name" {
		t.Errorf("GNU header with bytes in its time fields: %q", e.Path)
	}
	if e := read(raw('0', "name", 0, nil, func(b []byte) { copy(b[345:], "go17/prefix/that/is/long") })); e.Path != "go17/prefix/that/is/long/name" {
		t.Errorf("GNU header of Go before 1.8: %q", e.Path)
	}
}

func TestLimits(t *testing.T) {
	b := build(t, tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 600}, tar.Header{Name: "b", Typeflag: tar.TypeReg})
	for name, lim := range map[string]layer.Limits{"entries": {Entries: 1}, "file": {FileBytes: 599}} {
		if _, _, err := readAll(bytes.NewReader(b), lim); abi.ClassOf(err) != abi.ErrLimit {
			t.Errorf("%s: %v", name, err)
		}
	}
	var kv []string
	for i := range 20 {
		kv = append(kv, fmt.Sprintf("SCHILY.xattr.user.%d", i), strings.Repeat("v", 60000))
	}
	lim := layer.Limits{HeaderBytes: 1 << 30}
	if _, _, err := readAll(bytes.NewReader(paxFile('0', nil, kv...)), lim); abi.ClassOf(err) != abi.ErrLimit {
		t.Errorf("more than a record can hold: %v", err)
	}
	flood := bytes.Repeat(raw('g', "g", 0, nil, nil), 100)
	if _, _, err := readAll(bytes.NewReader(flood), layer.Limits{Entries: 10}); abi.ClassOf(err) != abi.ErrLimit {
		t.Errorf("flood of global headers: %v", err)
	}
}
