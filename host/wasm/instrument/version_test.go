package instrument

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// TestVersion fails when Rewrite gives other bytes than it did under the recorded Version: results are kept between runs
// under that name, so it must change with them. Record the new pair below.
func TestVersion(t *testing.T) {
	const version, want = "4", "3d8fae71d9acde5b9b720e3be10ae545faad6b11814d76d0cbb03bc75d957e63"
	var all []byte
	for _, wasm := range [][]byte{tour(), withData("", segment(60, "abc"), segment(10, "d"), segment(1000, "e")),
		goModuleOf(goFunctionOf(1)), goModuleOf(goFunctionOf(2)), goModuleOf(goFunctionOf(3)), goModuleOf(goFunctionOf(4))} {
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

func goFunctionOf(seed uint64) []byte {
	return makeFunction(&choices{decisions(rand.New(rand.NewPCG(seed, 1)))})
}
