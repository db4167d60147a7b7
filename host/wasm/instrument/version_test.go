package instrument

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// TestVersion fails when Rewrite gives other bytes than it did under the recorded Version: results are kept between runs
// under that name, so it must change with them. Record the new pair below.
func TestVersion(t *testing.T) {
	const version, want = "3", "4fffffa9c2f533dbeb8dd18b6325dbcc4935e78f4458a756a6d666325485f3d5"
	var all []byte
	for _, wasm := range [][]byte{tour(), withData("", segment(60, "abc"), segment(10, "d"), segment(1000, "e")),
		goModuleOf(makeFunction(&choices{bytes.Repeat([]byte{13, 4, 2, 4, 0, 5, 9}, 40)}))} {
		m, err := Read(wasm, DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		out, err := m.Rewrite("convhost.v1", "poll")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, out...)
	}
	sum := sha256.Sum256(all)
	if got := hex.EncodeToString(sum[:]); Version != version || got != want {
		t.Errorf("version %q gives %s, recorded are %q and %s", Version, got, version, want)
	}
}
