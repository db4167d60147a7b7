package instrument

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// TestVersion fails when Rewrite gives other bytes than it did under the recorded Version: results are kept between runs
// under that name, so it must change with them. Record the new pair below.
func TestVersion(t *testing.T) {
	const version, want = "2", "178a40d38a3b7c49ba7a2c05c2b1a27ab43eb75c52903b72e2d9f30fde0bfdf3"
	var all []byte
	for _, wasm := range [][]byte{tour(), withData("", segment(60, "abc"), segment(10, "d"), segment(1000, "e"))} {
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
