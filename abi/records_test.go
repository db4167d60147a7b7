package abi

import (
	"errors"
	"reflect"
	"testing"
)

func sampleEntries() []Entry {
	return []Entry{
		{Kind: KindDir, Mode: 0o755, Path: ""},
		{Kind: KindRegular, Flags: EntryWhiteout, Mode: 0o4755, UID: 1 << 31, GID: 7, MtimeSec: -5, MtimeNs: 999, Size: 8 << 30,
			Chunks: 3, HdrOff: 512, BodyOff: 1024, Seq: 9, Path: "a/\xff b", Xattrs: []Xattr{{"user.a", []byte{0, 10}}, {"user.b", []byte{}}}},
		{Kind: KindSymlink, Path: "l", Link: "../x"},
		{Kind: KindBlock, DevMajor: 259, DevMinor: 300, Path: "dev"},
	}
}

func TestEntryRoundTrip(t *testing.T) {
	var b []byte
	for _, e := range sampleEntries() {
		n := len(b)
		if b = e.Append(b); len(b)-n != e.RecordSize() || len(b)%8 != 0 {
			t.Fatalf("record of %q has %d bytes, RecordSize says %d", e.Path, len(b)-n, e.RecordSize())
		}
	}
	for _, want := range sampleEntries() {
		var got Entry
		rest, err := got.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		var shared Entry
		if _, err := shared.DecodeText(b, string(b)); err != nil || !reflect.DeepEqual(shared, want) {
			t.Errorf("with a shared text: got %+v, want %+v, %v", shared, want, err)
		}
		if _, err := shared.DecodeText(b, string(b[:len(b)-len(rest)-1])); err == nil {
			t.Error("a text that is too short is accepted")
		}
		if b = rest; !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestCompletionRoundTrip(t *testing.T) {
	want := Completion{Tag: 1 << 40, Seq: 2, Flags: CompletionDup, Digest: [32]byte{1, 31: 9}, Offset: 5 << 30, Stored: 6, Raw: 7, Index: 8, CRC32C: 9, Pos: 10 << 30}
	b := want.Append(nil)
	var got Completion
	if got.Decode(b); len(b) != CompletionSize || got != want {
		t.Errorf("%d bytes: got %+v, want %+v", len(b), got, want)
	}
}

// Law: whatever decodes encodes to a record that decodes to the same entry.
func FuzzEntryDecode(f *testing.F) {
	for _, e := range sampleEntries() {
		f.Add(e.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e, again Entry
		if _, err := e.Decode(b); err != nil {
			return
		}
		if _, err := again.Decode(e.Append(nil)); err != nil || !(len(e.Xattrs) == 0 && len(again.Xattrs) == 0 || reflect.DeepEqual(e.Xattrs, again.Xattrs)) || e.Path != again.Path {
			t.Fatalf("%+v\n%+v\n%v", e, again, err)
		}
	})
}

func TestRangeFlags(t *testing.T) {
	sum := [32]byte{1, 2, 3}
	want := Range{Off: 5, CLen: 6, ULen: 7, Want: &sum, CRC: 8, HasCRC: true, Prefix: true, Skip: 1, N: -1}
	got, err := DecodeRange(want.Append(nil))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	b := want.Append(nil)
	b[16] |= 16
	if _, err := DecodeRange(b); !errors.Is(err, ErrUnsupported) {
		t.Errorf("unknown flag: %v", err)
	}
}
