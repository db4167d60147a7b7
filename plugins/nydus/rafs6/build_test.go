package rafs6

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
)

func TestImpliedParents(t *testing.T) {
	// zzz/, zzz/f, aaa/f, aaa/b/c/g: upstream puts aaa/f into zzz.
	entries := tarEntries(t, inputTar(t, "missing"))
	tree, err := build(plainOptions, entries, func(_ uint32, raw []byte) uint32 { return uint32(len(raw)) })
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, tree, "/ 755", "aaa/ 755", "aaa/b/ 755", "aaa/b/c/ 755", "aaa/b/c/g 644 1", "aaa/f 644 1", "zzz/ 755", "zzz/f 644 1")
	if got := strings.Join(tree.ImpliedDirs(), " "); got != " aaa aaa/b aaa/b/c" {
		t.Errorf("implied: %q", got)
	}
	data, _ := boot(t, "zstd-blake3-missing") // a reader gets what upstream's bootstrap says
	up, err := Open(data)
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, up, "/ 755", "aaa/ 755", "aaa/b/ 755", "aaa/b/c/ 755", "aaa/b/c/g 644 1", "zzz/ 755", "zzz/f 644 1")
}

func TestBuildRules(t *testing.T) {
	xa := func(e abi.Entry, kv ...string) abi.Entry {
		for k := 0; k < len(kv); k += 2 {
			e.Xattrs = append(e.Xattrs, abi.Xattr{Key: kv[k], Value: []byte(kv[k+1])})
		}
		return e
	}
	char := abi.Entry{Kind: abi.KindChar, Path: "c", DevMajor: 259, DevMinor: 300, Mode: 0o600}
	loopTo := symlink("l", "l/x")
	for _, c := range []struct {
		name string
		in   []any
		want []string
	}{
		{"duplicate file", []any{file("a", "1"), file("a", "22")}, []string{"/ 755", "a 644 2"}},
		{"directory again keeps children", []any{dir("d", 0o755), file("d/x", "1"), dir("d", 0o700)}, []string{"/ 755", "d/ 700", "d/x 644 1"}},
		{"file over directory", []any{dir("d", 0o755), file("d/x", "1"), file("d", "22"), dir("d", 0o711)}, []string{"/ 755", "d/ 711"}},
		{"symlink to device over directory", []any{file("d/x", "1"), symlink("d", "e"), file("d/y", "1")}, []string{"/ 755", "d -> e", "e/ 755", "e/y 644 1"}},
		{"root entry", []any{file("a", "1"), dir("", 0o711)}, []string{"/ 711", "a 644 1"}},
		{"hard link", []any{file("a", "1"), hardlink("b", "a")}, []string{"/ 755", "a 600 1 uid 9", "b = a uid 9"}},
		{"hard link to a file replaced later", []any{file("a", "1"), hardlink("b", "a"), file("a", "22")}, []string{"/ 755", "a 644 2", "b 600 1 uid 9"}},
		{"hard link to symlink", []any{symlink("s", "x"), hardlink("t", "s")}, []string{"/ 755", "s -> x uid 9", "t -> x uid 9"}},
		{"hard link to device", []any{char, hardlink("t", "c")}, []string{"/ 755", "c 5 259 uid 9", "t 5 259 uid 9"}},
		{"hard link adds xattrs", []any{tarEntry{xa(file("a", "1").Entry, "user.x", "1"), []byte("1")}, xa(hardlink("b", "a"), "user.a", "2", "user.x", "3")},
			[]string{"/ 755", "a 600 1 uid 9 user.a=2 user.x=3", "b = a uid 9 user.a=2 user.x=3"}},
		{"xattrs sorted", []any{xa(dir("d", 0o755), "user.z", "1", "security.capability", "2", "user.a", "3", "system.posix_acl_access", "4")},
			[]string{"/ 755", "d/ 755 security.capability=2 system.posix_acl_access=4 user.a=3 user.z=1"}},
		{"below a symlink", []any{symlink("lib", "usr/lib"), file("lib/x", "1"), symlink("abs", "/usr"), file("abs/y", "1")},
			[]string{"/ 755", "abs -> /usr", "lib -> usr/lib", "usr/ 755", "usr/lib/ 755", "usr/lib/x 644 1", "usr/y 644 1"}},
		{"symlink out of the root", []any{symlink("up", "../../etc"), file("up/x", "1")}, []string{"/ 755", "etc/ 755", "etc/x 644 1", "up -> ../../etc"}},
		{"hard link through a symlink", []any{symlink("lib", "usr"), file("usr/a", "1"), hardlink("b", "lib/a")}, []string{"/ 755", "b 600 1 uid 9", "lib -> usr", "usr/ 755", "usr/a = b uid 9"}},
		{"estargz files", []any{file("stargz.index.json", "{}"), file(".prefetch.landmark", "x"), file(".no.prefetch.landmark", "x"), file("a", "1"), file("d/stargz.index.json", "1")},
			[]string{"/ 755", "a 644 1", "d/ 755", "d/stargz.index.json 644 1"}},
		{"whiteouts stay", []any{file(".wh.x", ""), file("d/.wh..wh..opq", "")}, []string{"/ 755", ".wh.x 644 0", "d/ 755", "d/.wh..wh..opq 644 0"}},
		{"names around dots", []any{file("-x", "1"), file(".!", "1"), file(".hidden", "1"), file("...", "1")}, []string{"/ 755", "-x 644 1", ".! 644 1", "... 644 1", ".hidden 644 1"}},
		{"longest name and target", []any{file(strings.Repeat("n", 255), "1"), symlink("s", strings.Repeat("t", 4095))},
			[]string{"/ 755", strings.Repeat("n", 255) + " 644 1", "s -> " + strings.Repeat("t", 4095)}},
		{"loop nobody enters", []any{loopTo}, []string{"/ 755", "l -> l/x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree, err := tryLayer(c.in...)
			if err != nil {
				t.Fatal(err)
			}
			wantList(t, tree, c.want...)
			wantList(t, reread(t, tree), c.want...)
		})
	}
}

func TestBuildRefuses(t *testing.T) {
	bad := abi.Xattr{Key: "lustre.lov", Value: []byte("x")}
	withX := dir("d", 0o755)
	withX.Xattrs = []abi.Xattr{bad}
	big := dir("d", 0o755)
	big.Xattrs = []abi.Xattr{{Key: "user.v", Value: make([]byte, 65536)}}
	dev := abi.Entry{Kind: abi.KindBlock, Path: "d", DevMajor: 5000}
	for _, c := range []struct {
		name  string
		class abi.Class
		text  string
		in    []any
	}{
		{"hard link to nowhere", abi.ErrCorrupt, `"b": hard link target "a" is missing`, []any{file("c", ""), hardlink("b", "a")}},
		{"hard link below nowhere", abi.ErrCorrupt, `hard link target "x/y/a" is missing`, []any{hardlink("b", "x/y/a")}},
		{"hard link to a directory", abi.ErrCorrupt, "a directory", []any{dir("a", 0o755), hardlink("b", "a")}},
		{"hard link to itself", abi.ErrCorrupt, "is missing", []any{file("a", "1"), hardlink("a", "a")}},
		{"hard link over its target's directory", abi.ErrCorrupt, "is missing", []any{file("a/b", "1"), hardlink("a", "a/b")}},
		{"below a file", abi.ErrCorrupt, "not a directory", []any{file("a", "1"), file("a/b", "1")}},
		{"link loop", abi.ErrCorrupt, "too many symbolic links", []any{symlink("a", "b"), symlink("b", "a"), file("a/x", "1")}},
		{"growing link loop", abi.ErrCorrupt, "too many symbolic links", []any{symlink("l", "l/"+strings.Repeat("x/", 1000)), file("l/x", "1")}},
		{"long name", abi.ErrLimit, "length of the name is 256", []any{file(strings.Repeat("n", 256), "1")}},
		{"long parent", abi.ErrLimit, "longer than 255", []any{file(strings.Repeat("n", 256)+"/x", "1")}},
		{"long target", abi.ErrLimit, "4096", []any{symlink("s", strings.Repeat("t", 4096))}},
		{"empty target", abi.ErrLimit, "target", []any{symlink("s", "")}},
		{"deep", abi.ErrLimit, "4096 directories", []any{file(strings.Repeat("a/", 5000)+"x", "1")}},
		{"xattr namespace", abi.ErrUnsupported, "lustre.lov", []any{withX}},
		{"xattr value", abi.ErrLimit, "user.v", []any{big}},
		{"device number", abi.ErrLimit, "5000:0", []any{dev}},
		{"root is a file", abi.ErrCorrupt, "a directory", []any{file("", "1")}},
		{"unknown kind", abi.ErrUnsupported, "kind is 99", []any{abi.Entry{Kind: 99, Path: "x"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := tryLayer(c.in...)
			var f *abi.FormatError
			if !errors.As(err, &f) || f.Class != c.class || !strings.Contains(err.Error(), c.text) || f.Off != int64(512*(len(c.in)-1)) {
				t.Errorf("got %v", err)
			}
		})
	}
	o := plainOptions
	o.DropUnknownXattrs = true
	tree, err := build(o, []tarEntry{{Entry: withX}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, tree, "/ 755", "d/ 755")
	for _, o := range []Options{{ChunkSize: 5000, Digest: abi.DigestBLAKE3}, {Codec: abi.CodecGzip, Digest: abi.DigestBLAKE3}, {}, {ChunkSize: 1 << 25, Digest: abi.DigestBLAKE3}} {
		if _, err := NewBuilder(o); !errors.Is(err, abi.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestChunksThatContradict(t *testing.T) {
	good := abi.Completion{Raw: 3, Stored: 2}
	for name, change := range map[string]func(*abi.Completion, *uint64){
		"length":     func(c *abi.Completion, _ *uint64) { c.Raw = 4 },
		"entry":      func(_ *abi.Completion, seq *uint64) { *seq = 9 },
		"index":      func(c *abi.Completion, _ *uint64) { c.Index = 1 },
		"stored":     func(c *abi.Completion, _ *uint64) { c.Stored = 4 },
		"empty":      func(c *abi.Completion, _ *uint64) { c.Stored = 0 },
		"position":   func(c *abi.Completion, _ *uint64) { c.Offset = 1 },
		"no raw bit": func(c *abi.Completion, _ *uint64) { c.Stored = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			b, err := NewBuilder(plainOptions)
			if err != nil {
				t.Fatal(err)
			}
			e := file("a", "123").Entry
			if err := b.Add(&e); err != nil {
				t.Fatal(err)
			}
			c, seq := good, uint64(0)
			change(&c, &seq)
			if err := b.AddChunk(seq, &c); !errors.Is(err, abi.ErrPlugin) {
				t.Errorf("got %v", err)
			}
		})
	}
	b, _ := NewBuilder(plainOptions)
	e := file("a", "123").Entry
	if err := b.Add(&e); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Finish(); !errors.Is(err, abi.ErrPlugin) {
		t.Errorf("missing chunk: %v", err)
	}
}

func TestNegativeTimesAndNanoseconds(t *testing.T) {
	e := file("a", "1")
	e.MtimeSec, e.MtimeNs = -5, 999999999
	tree := layer(t, e)
	err := tree.Walk(func(e *abi.Entry, _ File) error {
		if e.Path == "a" && (e.MtimeSec != -5 || e.MtimeNs != 999999999) {
			t.Errorf("%d.%d", e.MtimeSec, e.MtimeNs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSameTwice(t *testing.T) {
	var prev []byte
	for range 2 {
		tree, err := tryLayer(file("b/x", "1"), file("a/y", "22"), hardlink("z", "b/x"), symlink("l", "a"))
		if err != nil {
			t.Fatal(err)
		}
		data, err := tree.Bootstrap()
		if err != nil {
			t.Fatal(err)
		}
		if prev != nil && !bytes.Equal(prev, data) {
			t.Error("two runs differ")
		}
		prev = data
	}
}

func TestStateErrors(t *testing.T) {
	tree := layer(t, file("a/b", "1"))
	head := stateMagic + strings.Repeat("\x00", 32)
	for _, s := range []string{"", "RV6S\x03" + head[5:], stateMagic, head[:stateHead-1], head + "\x05", head + "\x00\xff\xff\x01x", head + "\x00\x06a/b", head + "\x00\x02q"} {
		if err := tree.ApplyState([]byte(s)); !errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
