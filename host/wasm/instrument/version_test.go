package instrument

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// TestVersion fails when Rewrite gives other bytes than it did under the recorded Version: results are kept between runs
// under that name, so it must change with them. Record the new pair below.
func TestVersion(t *testing.T) {
	const version, want = "1", "9b05ca521743395e5ee2446b941613acb68da0780c4034c5f5db9dec3f9147d4"
	m, err := Read(tour(), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.Rewrite("convhost.v1", "poll")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(out)
	if got := hex.EncodeToString(sum[:]); Version != version || got != want {
		t.Errorf("version %q gives %s, recorded are %q and %s", Version, got, version, want)
	}
}
