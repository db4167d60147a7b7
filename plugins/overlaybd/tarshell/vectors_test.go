package tarshell

import (
	"bytes"
	"flag"
	"testing"

	"github.com/convhost/convhost/plugins/overlaybd/internal/vectors"
)

var update = flag.Bool("update", false, "write testdata anew")

// damages changes one field each; sign says which header's checksum is put right afterwards.
var damages = []struct {
	name, expect, field string
	off                 int
	value               string
	sign                int
}{
	{"pax-size-not-octal", "corrupt", "size of the pax records", 124, "0x11        ", 0},
	{"pax-size-0", "unsupported", "size of the pax records", 124, "          0 ", 0},
	{"pax-size-513", "unsupported", "size of the pax records", 124, "       1001 ", 0},
	{"pax-size-base256", "corrupt", "size of the pax records", 124, "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0f", 0},
	{"record-length-0", "corrupt", "pax record", 512, "00", -1},
	{"record-length-too-big", "corrupt", "pax record", 512, "99", -1},
	{"record-without-newline", "corrupt", "pax record", 512 + 11, "x", -1},
	{"record-without-key", "corrupt", "pax record", 512 + 7, "x", -1},
	{"record-size-negative", "corrupt", "pax record size", 512 + 8, "-10", -1},
	{"record-size-text", "corrupt", "pax record size", 512 + 8, "abc", -1},
	{"record-size-too-big", "truncated", "payload", 512, "13 size=9999\n", 0},
	{"second-header-missing", "corrupt", "header behind the pax records", 1024 + 257, "nothing", 1024},
	{"second-header-checksum", "corrupt", "header behind the pax records", 1024 + 10, "X", -1},
	{"a-directory", "unsupported", "typeflag", 1024 + 156, "5", 1024},
	{"a-second-pax-header", "unsupported", "typeflag", 1024 + 156, "x", 1024},
	{"a-long-name-first", "unsupported", "typeflag", 156, "L", 0},
	{"no-size-at-all", "corrupt", "size", 1024 + 124, "            ", 1024},
}

func TestVectors(t *testing.T) {
	if *update {
		good := wrap(t, bytes.Repeat([]byte("1234"), 25), false) // size=100
		vectors.Save(t, "testdata", vectors.Vector{Name: "good", Format: "tarshell", Expect: "ok", MadeBy: "the writer of this package", Data: good})
		for _, d := range damages {
			b := bytes.Clone(good)
			if d.name == "no-size-at-all" {
				copy(b[512:], "12 sizf=100\n")
			}
			copy(b[d.off:], d.value)
			if d.name == "record-size-too-big" { // one byte longer than the good one
				copy(b[124:], "         15 ")
			}
			if d.sign >= 0 {
				copy(b[d.sign+148:], blankOctal(sumOf(b[d.sign:d.sign+512])))
			}
			vectors.Save(t, "testdata", vectors.Vector{Name: d.name, Format: "tarshell", Expect: d.expect, Field: d.field, MadeBy: "by hand, one field changed", Data: b})
		}
	}
	all := vectors.Load(t, "testdata")
	if len(all) != len(damages)+1 {
		t.Errorf("%d vectors, want %d", len(all), len(damages)+1)
	}
	for _, v := range all {
		s, ok, err := Find(bytes.NewReader(v.Data), int64(len(v.Data)))
		v.Check(t, err)
		if ok != (err == nil) || !ok && s != (Shell{}) {
			t.Errorf("%s: half a result", v.Name)
		}
		errs, _ := Check(bytes.NewReader(v.Data), int64(len(v.Data)))
		if len(errs) > 0 {
			v.Check(t, errs[0])
		} else if v.Expect != "ok" {
			t.Errorf("%s: check finds nothing", v.Name)
		}
	}
}
