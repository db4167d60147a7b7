package layer_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
)

// raw makes one USTAR or GNU header block by hand and appends the body with padding.
func raw(typ byte, name string, size int64, body []byte, edit func(b []byte)) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x0000000000001\x00", size))
	b[156] = typ
	copy(b[257:], "ustar  \x00")
	if edit != nil {
		edit(b)
	}
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	b = append(b, body...)
	return append(b, make([]byte, -len(b)&511)...)
}

func paxRecords(kv ...string) []byte {
	var b []byte
	for i := 0; i < len(kv); i += 2 {
		s := " " + kv[i] + "=" + kv[i+1] + "\n"
		n := len(s) + 1
		for len(fmt.Sprint(n))+len(s) != n {
			n++
		}
		b = append(b, fmt.Sprint(n)+s...)
	}
	return b
}

func paxFile(typ byte, body []byte, kv ...string) []byte {
	rec := paxRecords(kv...)
	return append(raw('x', "pax", int64(len(rec)), rec, nil), raw(typ, "name", int64(len(body)), body, nil)...)
}

func sparseSeeds(t testing.TB) (out [][]byte) {
	data := []byte("0123456789")
	out = append(out,
		paxFile('0', data, "GNU.sparse.numblocks", "2", "GNU.sparse.map", "5,4,100,6", "GNU.sparse.size", "200"),
		paxFile('0', data, "GNU.sparse.numblocks", "2", "GNU.sparse.size", "200", "GNU.sparse.offset", "5", "GNU.sparse.numbytes", "4",
			"GNU.sparse.offset", "100", "GNU.sparse.numbytes", "6"))
	body := append([]byte("2\n5\n4\n100\n6\n"), make([]byte, 512-12)...)
	out = append(out, paxFile('0', append(body, data...), "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "real",
		"GNU.sparse.realsize", "200"))
	out = append(out, raw('S', "old", 10, data, func(b []byte) {
		copy(b[386:], "00000000005\x0000000000004\x0000000000144\x0000000000006\x00")
		copy(b[483:], "00000000310\x00")
	}))
	return out
}

func expanded() []byte {
	want := make([]byte, 200)
	copy(want[5:], "0123")
	copy(want[100:], "456789")
	return want
}

func TestSparse(t *testing.T) {
	for i, b := range sparseSeeds(t) {
		ms, _, err := readAll(bytes.NewReader(b), layer.Limits{})
		if err != nil || len(ms) != 1 {
			t.Fatalf("%d: %d members, %v", i, len(ms), err)
		}
		e := ms[0].E
		if e.Size != 200 || ms[0].Sum != sha256.Sum256(expanded()) || e.Flags != abi.EntrySparse {
			t.Errorf("%d: size %d, flags %d, or wrong body", i, e.Size, e.Flags)
		}
		if want, err := stdlib(b); err != nil || want[0].Sum != ms[0].Sum || want[0].E.Path != e.Path {
			t.Errorf("%d: archive/tar: %v %v", i, want, err)
		}
		for n := 513; n < len(b); n++ {
			_, _, err := readAll(bytes.NewReader(b[:n]), layer.Limits{})
			if last := len(b) - 512 + 10; n < last && !errors.Is(err, abi.ErrTruncated) {
				t.Fatalf("%d cut at %d: %v", i, n, err)
			}
		}
	}
}

func TestSparseRefused(t *testing.T) {
	data := []byte("0123456789")
	pax := func(kv ...string) []byte { return paxFile('0', data, kv...) }
	map01 := func(m, size string) []byte {
		return pax("GNU.sparse.numblocks", "1", "GNU.sparse.map", m, "GNU.sparse.size", size)
	}
	for name, c := range map[string]struct {
		b    []byte
		want abi.Class
	}{
		"outside":        {map01("195,10", "200"), abi.ErrCorrupt},
		"overflow":       {map01("9223372036854775807,10", "9223372036854775807"), abi.ErrLimit},
		"overlap":        {pax("GNU.sparse.numblocks", "2", "GNU.sparse.map", "0,6,5,4", "GNU.sparse.size", "20"), abi.ErrCorrupt},
		"too little":     {map01("0,9", "200"), abi.ErrCorrupt},
		"too much":       {map01("0,11", "200"), abi.ErrCorrupt},
		"huge hole":      {map01("0,10", "99999999999"), abi.ErrLimit},
		"odd map":        {map01("0", "200"), abi.ErrCorrupt},
		"count":          {pax("GNU.sparse.numblocks", "2", "GNU.sparse.map", "0,10", "GNU.sparse.size", "20"), abi.ErrCorrupt},
		"version":        {pax("GNU.sparse.major", "2", "GNU.sparse.minor", "0"), abi.ErrUnsupported},
		"map too long":   {pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0"), abi.ErrCorrupt},
		"lonely offset":  {pax("GNU.sparse.offset", "1"), abi.ErrCorrupt},
		"negative":       {map01("-1,10", "200"), abi.ErrCorrupt},
		"old without":    {raw('S', "x", 10, data, func(b []byte) { copy(b[257:], "ustar\x0000") }), abi.ErrUnsupported},
		"old bad number": {raw('S', "x", 10, data, func(b []byte) { copy(b[386:], "x"); copy(b[483:], "00000000310\x00") }), abi.ErrCorrupt},
	} {
		lim := layer.Limits{HoleBytes: 1 << 20}
		if _, _, err := readAll(bytes.NewReader(c.b), lim); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want class %v", name, err, c.want)
		}
	}
}

// GNU tar writes what Go cannot: sparse files in all its formats.
func TestGNUTar(t *testing.T) {
	gnu, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar on this machine to write sparse archives")
	}
	if v, _ := exec.Command(gnu, "--version").Output(); !bytes.Contains(v, []byte("GNU tar")) {
		t.Skip("tar on this machine is not GNU tar")
	}
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 { // more than fit into one header
		f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 4096), int64(i)*1<<17)
	}
	if err := f.Truncate(60<<17 + 77); err != nil {
		t.Fatal(err)
	}
	f.Close()
	want, _ := os.ReadFile(filepath.Join(dir, "sparse"))
	for _, args := range [][]string{{"--format=gnu"}, {"--format=posix", "--sparse-version=0.0"}, {"--format=posix", "--sparse-version=0.1"},
		{"--format=posix", "--sparse-version=1.0"}, {"--format=v7"}, {"--format=oldgnu"}, {"--format=ustar"}} {
		if f := args[0]; f != "--format=v7" && f != "--format=ustar" {
			args = append(args, "-S")
		}
		args = append(args, "-C", dir, "-cf", "-", "sparse")
		b, err := exec.Command(gnu, args...).Output()
		if err != nil {
			t.Fatal(args, err)
		}
		ms, _, err := readAll(bytes.NewReader(b), layer.Limits{})
		if err != nil {
			t.Fatal(args, err)
		}
		if len(ms) != 1 || ms[0].E.Path != "sparse" || ms[0].Sum != sha256.Sum256(want) {
			t.Errorf("%v: %d members, or another body", args, len(ms))
		}
		if oracle, err := stdlib(b); err != nil || fmt.Sprint(oracle) != fmt.Sprint(comparable(ms)) {
			t.Errorf("%v: archive/tar reads %v, %v; we %v", args, oracle, err, comparable(ms))
		}
	}
}
