package accel

import (
	"bytes"
	"testing"

	"github.com/convhost/convhost/abi"
)

// TestPrefix: a range that goes on behind what is wanted yields its first bytes, whatever follows.
func TestPrefix(t *testing.T) {
	body := words(4, 100_000)
	sum := must[[32]byte](t)(Sum(abi.DigestSHA256, body[:70_000]))
	for _, codec := range []abi.Codec{abi.CodecGzip, abi.CodecDeflate} {
		enc := must[[]byte](t)(Encode(codec, 0, nil, body))
		tests := []struct {
			name string
			src  []byte
			n    int
			want abi.Class
		}{
			{"a part", enc, 70_000, 0},
			{"all", enc, len(body), 0},
			{"garbage behind", append(bytes.Clone(enc), "garbage"...), 70_000, 0},
			{"only the beginning", enc[:len(enc)*9/10], 70_000, 0},
			{"too little", enc[:len(enc)/3], 70_000, abi.ErrTruncated},
			{"ends before", enc, len(body) + 1, abi.ErrTruncated},
			{"not compressed", noise(3, 1000), 100, abi.ErrCorrupt},
		}
		for _, tt := range tests {
			q := newPoolAndQueue(t)
			var out bytes.Buffer
			p := mustPlan(t, q, abi.PlanSpec{Codec: codec, Digest: abi.DigestSHA256, Decode: true}, q.NewSink(&out))
			r := abi.Range{CLen: len(tt.src), ULen: tt.n, N: -1, Prefix: true}
			if tt.n == 70_000 {
				r.Want = &sum
			}
			err := q.Range(p, bytes.NewReader(tt.src), int64(len(tt.src)), r, 1)
			if err == nil {
				_, err = q.ClosePlan(p)
			}
			switch {
			case tt.want != 0:
				wantClass(t, err, tt.want)
			case err != nil:
				t.Errorf("codec %d, %s: %v", codec, tt.name, err)
			case !bytes.Equal(out.Bytes(), body[:tt.n]):
				t.Errorf("codec %d, %s: other bytes", codec, tt.name)
			}
		}
	}
	q := newPoolAndQueue(t)
	p := mustPlan(t, q, abi.PlanSpec{Codec: abi.CodecZstd, Decode: true}, nil)
	wantClass(t, q.Range(p, bytes.NewReader(body), 9, abi.Range{CLen: 9, ULen: 9, Prefix: true}, 1), abi.ErrUnsupported)
}
