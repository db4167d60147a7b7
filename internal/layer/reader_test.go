package layer_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

type member struct {
	E   abi.Entry
	Sum [32]byte
}

// readAll reads a tar to its end. Everything that was read before an error is returned too.
func readAll(src io.Reader, lim layer.Limits) (ms []member, end layer.End, err error) {
	r := layer.NewReader(src, lim)
	for {
		var e abi.Entry
		if err := r.Next(&e); err == io.EOF {
			end, err = r.Drain()
			return ms, end, err
		} else if err != nil {
			return ms, end, err
		}
		h := sha256.New()
		n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, make([]byte, 1000))
		if err != nil {
			return ms, end, err
		}
		if n != e.Size {
			return ms, end, fmt.Errorf("%q: body of %d bytes, entry says %d", e.Path, n, e.Size)
		}
		ms = append(ms, member{E: e, Sum: [32]byte(h.Sum(nil))})
	}
}

// stdlib reads a tar with archive/tar and translates its headers: the oracle.
func stdlib(b []byte) (ms []member, err error) {
	tr := tar.NewReader(bytes.NewReader(b))
	kinds := map[byte]abi.Kind{'0': abi.KindRegular, '7': abi.KindRegular, 'S': abi.KindRegular, '1': abi.KindHardlink, '2': abi.KindSymlink,
		'3': abi.KindChar, '4': abi.KindBlock, '5': abi.KindDir, '6': abi.KindFifo}
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return ms, nil
		}
		if err != nil {
			return ms, err
		}
		if h.Typeflag == 'g' {
			continue
		}
		e := abi.Entry{Kind: kinds[h.Typeflag], Mode: uint32(h.Mode) & 0o7777, UID: uint32(h.Uid), GID: uint32(h.Gid),
			MtimeSec: h.ModTime.Unix(), MtimeNs: uint32(h.ModTime.Nanosecond()), Seq: uint64(len(ms)), Path: clean(h.Name)}
		switch e.Kind {
		case abi.KindRegular:
			e.Size = h.Size
		case abi.KindSymlink:
			e.Link = h.Linkname
		case abi.KindHardlink:
			e.Link = clean(h.Linkname)
		case abi.KindChar, abi.KindBlock:
			e.DevMajor, e.DevMinor = uint32(h.Devmajor), uint32(h.Devminor)
		}
		for k, v := range h.PAXRecords {
			if k, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				e.Xattrs = append(e.Xattrs, abi.Xattr{Key: k, Value: []byte(v)})
			}
		}
		slices.SortFunc(e.Xattrs, func(a, b abi.Xattr) int { return strings.Compare(a.Key, b.Key) })
		hash := sha256.New()
		if e.Size > 1<<24 {
			return ms, errors.New("too large for the oracle")
		}
		if _, err := io.Copy(hash, tr); err != nil {
			return ms, err
		}
		ms = append(ms, member{E: e, Sum: [32]byte(hash.Sum(nil))})
	}
}

func clean(s string) string { return strings.TrimPrefix(path.Clean("/"+s), "/") }

// comparable strips what the oracle does not know.
func comparable(ms []member) []member {
	ms = slices.Clone(ms)
	for i := range ms {
		e := &ms[i].E
		e.HdrOff, e.BodyOff, e.Flags = 0, 0, 0
		if len(e.Xattrs) == 0 {
			e.Xattrs = nil
		}
	}
	return ms
}

func build(t testing.TB, hs ...tar.Header) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range hs {
		body := bytes.Repeat([]byte(h.Name), int(h.Size)/max(len(h.Name), 1)+1)[:h.Size]
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func sample(t testing.TB) []byte {
	at := func(s, ns int64) time.Time { return time.Unix(s, ns) }
	long := strings.Repeat("long-directory-name/", 20)
	return build(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, ModTime: at(1, 0)},
		tar.Header{Typeflag: tar.TypeDir, Name: "usr/", Mode: 0o1777, Uid: 1, Gid: 2, ModTime: at(1700000000, 0)},
		tar.Header{Typeflag: tar.TypeReg, Name: "usr/file", Mode: 0o4755, Size: 1300, ModTime: at(1700000000, 123456789), Format: tar.FormatPAX},
		tar.Header{Typeflag: tar.TypeReg, Name: "usr/empty", Mode: 0o644, ModTime: at(-5, 0), Format: tar.FormatPAX},
		tar.Header{Typeflag: tar.TypeReg, Name: "usr/old", Mode: 0o644, Size: 512, ModTime: at(-5, 500000000), Format: tar.FormatPAX},
		tar.Header{Typeflag: tar.TypeReg, Name: long + "file", Mode: 0o600, Size: 3, ModTime: at(0, 0), Format: tar.FormatPAX},
		tar.Header{Typeflag: tar.TypeReg, Name: long + "gnu", Mode: 0o600, Size: 513, Uid: 1 << 30, ModTime: at(-77, 0), Format: tar.FormatGNU},
		tar.Header{Typeflag: tar.TypeLink, Name: "usr/hard", Linkname: "/usr/./file", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr/../usr/lib/" + long, Mode: 0o777},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "gnulib", Linkname: "../" + long, Mode: 0o777, Format: tar.FormatGNU},
		tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sda", Devmajor: 8, Devminor: 1 << 20, Mode: 0o660},
		tar.Header{Typeflag: tar.TypeFifo, Name: "run/fifo", Mode: 0o600},
		tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"comment": "c", "path": "not this"}},
		tar.Header{Typeflag: tar.TypeReg, Name: "/abs//x/../y", Size: 1, Mode: 0o644, PAXRecords: map[string]string{
			"SCHILY.xattr.user.b": "two\nlines=\x00\xff", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02", "SCHILY.xattr.user.a": ""}},
		tar.Header{Typeflag: tar.TypeReg, Name: "ä/\xff\xfe", Size: 1, Mode: 0o644, Format: tar.FormatGNU},
	)
}

func TestAgainstArchiveTar(t *testing.T) {
	b := sample(t)
	want, err := stdlib(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]io.Reader{"whole": bytes.NewReader(b), "one byte": iotest.OneByteReader(bytes.NewReader(b)),
		"data with EOF": iotest.DataErrReader(bytes.NewReader(b)), "half": iotest.HalfReader(bytes.NewReader(b))} {
		got, end, err := readAll(src, layer.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, comparable(got)); d != "" {
			t.Errorf("%s: -archive/tar +ours\n%s", name, d)
		}
		if end != (layer.End{Marker: true}) {
			t.Errorf("%s: end %+v", name, end)
		}
		for _, m := range got {
			if m.E.HdrOff%512 != 0 || m.E.BodyOff%512 != 0 || m.E.BodyOff <= m.E.HdrOff {
				t.Errorf("%s: offsets %d, %d", m.E.Path, m.E.HdrOff, m.E.BodyOff)
			}
			if m.E.Path == "usr/file" {
				if body := b[m.E.BodyOff:][:m.E.Size]; sha256.Sum256(body) != m.Sum {
					t.Error("BodyOff does not point to the body")
				}
			}
		}
	}
}

// Cut anywhere, a tar is truncated, except at the end of a member or in the padding of its body, where archives without
// an end marker end; nothing is ever read short.
func TestTruncation(t *testing.T) {
	b := sample(t)
	all, _, err := readAll(bytes.NewReader(b), layer.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(b); n++ {
		if n%512 > 1 && n%512 < 511 && n%97 != 0 {
			continue
		}
		got, end, err := readAll(bytes.NewReader(b[:n]), layer.Limits{})
		if d := cmp.Diff(all[:len(got)], got, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("cut at %d: other members\n%s", n, d)
		}
		if end.Marker {
			t.Fatalf("cut at %d: end marker", n)
		}
		bodyEnd := int64(0)
		if len(got) > 0 {
			last := got[len(got)-1].E
			bodyEnd = last.BodyOff + last.Size
		}
		allowed := int64(n) >= bodyEnd && int64(n) <= (bodyEnd+511)/512*512 || n == len(b)-512
		if n >= 512 && got != nil && got[len(got)-1].E.Path == "run/fifo" && n == int(got[len(got)-1].E.BodyOff)+1024 {
			allowed = true // behind the global header
		}
		switch {
		case err == nil && !allowed:
			t.Fatalf("cut at %d of %d: no error after %d members", n, len(b), len(got))
		case err != nil && !errors.Is(err, abi.ErrTruncated):
			t.Fatalf("cut at %d: %v", n, err)
		case err != nil && allowed:
			t.Fatalf("cut at %d, the end of a member: %v", n, err)
		}
	}
}

func TestSourceErrorPasses(t *testing.T) {
	b := sample(t)
	for _, cause := range []error{errors.New("disk on fire"), abi.ErrDigest} {
		for _, n := range []int{0, 100, 512, 2600, len(b) - 1, len(b)} {
			src := io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(cause))
			if _, _, err := readAll(src, layer.Limits{}); !errors.Is(err, cause) {
				t.Errorf("after %d bytes: %v, want %v", n, err, cause)
			} else if c := abi.ClassOf(err); c != abi.ErrIO && c != abi.ErrDigest {
				t.Errorf("after %d bytes: class %v", n, c)
			}
		}
	}
}

func TestTrailing(t *testing.T) {
	b := sample(t)
	second := append(bytes.Clone(b), b...)
	ms, end, err := readAll(bytes.NewReader(second), layer.Limits{})
	if err != nil || end != (layer.End{Marker: true, Trailing: int64(len(b)), NonZero: true}) || len(ms) != 15 {
		t.Errorf("concatenated: %d members, %+v, %v", len(ms), end, err)
	}
	_, end, err = readAll(bytes.NewReader(append(bytes.Clone(b), make([]byte, 10000)...)), layer.Limits{})
	if err != nil || end != (layer.End{Marker: true, Trailing: 10000}) {
		t.Errorf("padded: %+v, %v", end, err)
	}
	single := append(bytes.Clone(b[:len(b)-512]), b...)
	if _, _, err = readAll(bytes.NewReader(single), layer.Limits{}); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a single zero block: %v", err)
	}
}

// repaired sets the checksums right of all blocks that look like headers, so that fuzzing gets behind them.
func repaired(b []byte) []byte {
	b = bytes.Clone(b)
	for i := 0; i+512 <= len(b); i += 512 {
		if h := b[i : i+512]; string(h[257:262]) == "ustar" {
			copy(h[148:156], "        ")
			sum := 0
			for _, c := range h {
				sum += int(c)
			}
			copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
		}
	}
	return b
}

// Any bytes: an error of a known class, whatever the size of the source's reads; clean names; and if archive/tar reads the
// same bytes without an error, the same members.
func FuzzReader(f *testing.F) {
	f.Add(sample(f), true)
	f.Add(sample(f)[1024:4096], false)
	for _, h := range sparseSeeds(f) {
		f.Add(h, true)
	}
	lim := layer.Limits{Entries: 1000, FileBytes: 1 << 20, HoleBytes: 1 << 20}
	f.Fuzz(func(t *testing.T, b []byte, repair bool) {
		if repair {
			b = repaired(b)
		}
		got, _, err := readAll(bytes.NewReader(b), lim)
		if c := abi.ClassOf(err); err != nil && !errors.Is(err, abi.ErrCorrupt) && c != abi.ErrLimit && c != abi.ErrUnsupported {
			t.Fatalf("class %v: %v", c, err)
		}
		again, _, err2 := readAll(iotest.OneByteReader(bytes.NewReader(b)), lim)
		if d := cmp.Diff(got, again); d != "" || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("one byte at a time: %v, then %v\n%s", err, err2, d)
		}
		for _, m := range got {
			if m.E.Path != clean(m.E.Path) || strings.ContainsRune(m.E.Path, 0) || m.E.RecordSize() > abi.MaxEntryRecord {
				t.Fatalf("%+v", m.E)
			}
		}
		if err != nil || bytes.Contains(b, []byte(".wh.")) || bytes.Contains(b, []byte("LIBARCHIVE")) {
			return // rules that archive/tar does not have
		}
		if want, err := stdlib(b); err == nil {
			if d := cmp.Diff(want, comparable(got), cmpopts.EquateEmpty()); d != "" {
				t.Fatal("-archive/tar +ours", d)
			}
		}
	})
}

func BenchmarkNext(b *testing.B) {
	var hs []tar.Header
	for i := range 10000 {
		hs = append(hs, tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/share/doc/package-%d/copyright", i), Mode: 0o644})
	}
	data := build(b, hs...)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		r := layer.NewReader(bytes.NewReader(data), layer.Limits{})
		var e abi.Entry
		for n = 0; r.Next(&e) == nil; n++ {
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
}
