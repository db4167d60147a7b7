package wasm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/convhost/convhost/abi"
)

// sdkGuest uses the SDK's half of the binding.
var sdkGuest = builder("../../sdk/internal/wasmguest/testdata/hostcalls")

// TestEveryHostCall holds both halves of the binding against each other: what a plugin passes arrives, and what the
// host answers comes back.
func TestEveryHostCall(t *testing.T) {
	_, g := load(t, Config{}, mustBuild(t, sdkGuest))
	host := &fakeHost{}
	resp, err := g.Call(t.Context(), abi.OpMergeLayers, nil, host)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b")), sha256.Sum256([]byte("c"))
	want := []string{
		"MergeLayers <nil>", "5 <nil>", "6 <nil>", "stream bytes <nil>", "0 <nil>", "at <nil>", "1099511627776 <nil>", "write <nil>", "2199023255552 <nil>",
		fmt.Sprintf("%+v <nil>", abi.StreamInfo{Size: 1, RawSize: 2}),
		fmt.Sprintf("%+v <nil>", abi.StreamInfo{Size: 3, SHA256: a, RawSize: 4, RawSHA256: b}),
		fmt.Sprintf("%+v <nil> <nil>", abi.Entry{Kind: abi.KindRegular, Path: "a/b", Size: -1, MtimeSec: -5}),
		"7 <nil>", "8 <nil>", "9 <nil>", "range <nil>", "range <nil>",
		fmt.Sprintf("%+v <nil>", abi.Completion{Tag: 1, Offset: 1 << 35, Pos: 3}),
		fmt.Sprintf("%+v <nil>", abi.PlanInfo{Chunks: 1, Jobs: 2, StoredBytes: 3, RawBytes: 4, RawSHA256: c}),
		fmt.Sprintf("%x <nil>", sha256.Sum256([]byte("abc"))),
		"pre200003 <nil>", "predecoded <nil>", "decode short", "",
	}
	if d := cmp.Diff(want, strings.Split(string(resp), "\n")); d != "" {
		t.Errorf("the plugin saw (-want +got):\n%s", d)
	}
	wantCalls := []string{
		"open 7 2", "open_sink 3 1 -9", "read 5 4096", "read 5 0", "read_at 5 4096 8589934592", "size 5", "write 6 7",
		"copy 6 5 -1 17179869184", "info 6", "close 6", "entries 5 0",
		"new_plan 1048576 2 true 3 -3 true 1 4096 6 true true",
		"job_stream 7 5 -1 9223372036854775808", `job_bytes 7 "job" 12`,
		"job_range 7 5: 68719476736 5 6 false abcd ffffffff true 1 -1, 13",
		"job_range 7 5: 1 6 6 true none 0 false 0 2, 14",
		"collect 4096 1", "close_plan 7", "sum 1", "encode 1 1", "encode 1 1", "decode 2 7", "decode 2 7",
		"log 4 log line", "progress 1099511627776 -1",
	}
	if d := cmp.Diff(wantCalls, host.calls); d != "" {
		t.Errorf("the host saw (-want +got):\n%s", d)
	}
}

// TestErrorsKeepTheirCause checks that the host's error survives its way through the plugin.
func TestErrorsKeepTheirCause(t *testing.T) {
	_, g := load(t, Config{}, mustBuild(t, sdkGuest))
	cause := &abi.FormatError{Class: abi.ErrCorrupt, Format: "tar", Entry: "etc/x", Off: 512, Field: "size", Got: "-5", Want: "0 or more"}
	for _, tt := range []struct{ req, want string }{
		{"wrap", "layer 3: " + cause.Error()},
		{"replace", "something else: " + cause.Error()},
	} {
		_, err := g.Call(t.Context(), abi.OpCheck, []byte(tt.req), &fakeHost{fail: fmt.Errorf("layer sha256:12: %w", cause)})
		var f *abi.FormatError
		if !errors.As(err, &f) || f != cause || abi.ClassOf(err) != abi.ErrCorrupt {
			t.Errorf("%s: %#v does not wrap the host's error", tt.req, err)
		}
		if err == nil || strings.Count(err.Error(), cause.Error()) != 1 || !strings.HasPrefix(err.Error(), tt.want[:7]) {
			t.Errorf("%s: error %v, want %s", tt.req, err, tt.want)
		}
	}
	if resp, err := g.Call(t.Context(), abi.OpCheck, []byte("soft"), &fakeHost{}); err != nil || string(resp) != "went on" {
		t.Errorf("after a stream that is not there: %q, %v", resp, err)
	}
	_, err := g.Call(t.Context(), abi.OpCheck, []byte("format"), &fakeHost{})
	var f *abi.FormatError
	if !errors.As(err, &f) || f.Off != 99 || f.Format != "toc" || !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("error of the plugin: %v", err)
	}
}
