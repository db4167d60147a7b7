package instrument

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/convhost/convhost/abi"
)

// withData is a module with one page of memory and these data segments, each flags and offset first.
func withData(before string, segments ...string) []byte {
	all := string(appendU32(nil, uint32(len(segments))))
	for _, s := range segments {
		all += s
	}
	return []byte(magic + sec(secMemory, "\x01", "\x00\x01") + sec(secExport, "\x01", "\x06memory\x02\x00") + before + sec(secData, all))
}

func segment(at uint32, content string) string {
	return "\x00\x41" + string(appendI32(nil, at)) + "\x0b" + string(appendU32(nil, uint32(len(content)))) + content
}

// startMemory is what a module's memory holds when it starts; nil if it does not start.
func startMemory(t *testing.T, wasm []byte) []byte {
	t.Helper()
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	host := rt.NewHostModuleBuilder(abi.WasmModule)
	host.NewFunctionBuilder().WithFunc(func() {}).Export(abi.WasmPoll)
	if _, err := host.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	mod, err := rt.Instantiate(ctx, wasm)
	if err != nil {
		return nil
	}
	b, _ := mod.Memory().Read(0, 65536)
	return bytes.Clone(b)
}

// segmentsOf counts the data segments of a module that Rewrite made.
func segmentsOf(t *testing.T, wasm []byte) int {
	t.Helper()
	m, err := Read(wasm, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return m.section(secData).count("", maxSegments, 1)
}

// TestJoinedSegments: memory starts the same with fewer segments.
func TestJoinedSegments(t *testing.T) {
	for _, tt := range []struct {
		name string
		wasm []byte
		want int // segments
	}{
		{"none", withData(""), 0},
		{"one", withData("", segment(7, "abc")), 1},
		{"side by side", withData("", segment(7, "abc"), segment(10, "d")), 1},
		{"a small gap", withData("", segment(7, "abc"), segment(10+joinGap, "d")), 1},
		{"a large gap", withData("", segment(7, "abc"), segment(11+joinGap, "d")), 2},
		{"out of order", withData("", segment(60, "abc"), segment(10, "d"), segment(1000, "e"), segment(30, "f")), 2},
		{"empty ones", withData("", segment(60, ""), segment(60, "x"), segment(61, ""), segment(65536, "")), 2},
		{"the last byte", withData("", segment(65535, "x"), segment(65500, "y")), 1},
		{"overlapping", withData("", segment(10, "abc"), segment(12, "d")), 2},
		{"overlapping, out of order", withData("", segment(12, "d"), segment(10, "abc")), 2},
		{"beyond the end", withData("", segment(65530, "x"), segment(65536, "y")), 1},
		{"far beyond the end", withData("", segment(1<<31-1, "x"), segment(5, "y")), 2},
		{"negative offset", withData("", "\x00\x41\x7f\x0b\x01x", segment(5, "y")), 2},
		{"memory named", withData("", "\x02\x00\x41\x05\x0b\x01x", segment(6, "y")), 2},
		{"passive", withData("", "\x01\x01x", segment(6, "y")), 2},
		{"long offset", withData("", "\x00\x41\x85\x80\x80\x80\x00\x0b\x01x", segment(6, "y")), 1},
		{"data count", withData(sec(secDataCount, "\x02"), segment(6, "y"), segment(7, "z")), 2},
	} {
		out, err := rewrite(tt.wasm, DefaultLimits())
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got, want := startMemory(t, out), startMemory(t, tt.wasm); !bytes.Equal(got, want) {
			t.Errorf("%s: memory starts otherwise", tt.name)
		}
		if n := segmentsOf(t, out); n != tt.want {
			t.Errorf("%s: %d segments, want %d", tt.name, n, tt.want)
		}
	}
}

func TestJoinedSegmentsRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var segments []string
		for range r.IntN(20) {
			content := make([]byte, r.IntN(60))
			for k := range content {
				content[k] = byte(1 + r.IntN(255))
			}
			segments = append(segments, segment(uint32(r.IntN(3000)), string(content)))
		}
		wasm := withData("", segments...)
		out, err := rewrite(wasm, DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(startMemory(t, out), startMemory(t, wasm)) {
			t.Fatalf("memory starts otherwise: %x", wasm)
		}
	}
}
