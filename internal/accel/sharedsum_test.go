package accel

import (
	"crypto/sha256"
	"io"
	"testing"

	"github.com/convhost/convhost/abi"
)

// TestSharedSum: plans that share a sum add to it in submission order, whatever they do with the bytes.
func TestSharedSum(t *testing.T) {
	for _, workers := range []int{1, 4} {
		q := newQueue(t, t.Context(), newPool(t, workers, 0), Limits{})
		stored := mustPlan(t, q, abi.PlanSpec{ChunkSize: 4096, Codec: abi.CodecGzip, SharedSum: true}, q.NewSink(io.Discard))
		summed := mustPlan(t, q, abi.PlanSpec{ChunkSize: 1 << 20, SharedSum: true}, nil)
		other := mustPlan(t, q, abi.PlanSpec{RawSum: true}, nil)
		want := sha256.New()
		for i := range 200 {
			b := words(int64(i), 1+i*50)
			p := stored
			if i%3 == 0 {
				p = summed
			}
			must[int](t)(q.Bytes(p, b, 0))
			want.Write(b)
			must[int](t)(q.Bytes(other, b[:1], 0))
		}
		for _, p := range []*Plan{stored, summed} {
			if info := must[abi.PlanInfo](t)(q.ClosePlan(p)); info.RawSHA256 != [32]byte(want.Sum(nil)) {
				t.Errorf("%d workers: sum %x, want %x", workers, info.RawSHA256, want.Sum(nil))
			}
		}
		if info := must[abi.PlanInfo](t)(q.ClosePlan(other)); info.RawSHA256 == [32]byte(want.Sum(nil)) {
			t.Error("a plan with a sum of its own got the shared one")
		}
	}
}
