package host

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/sdk"
)

// TestHostBytes: what the host's codecs make of some bytes. When this fails because a codec was changed on purpose, hostBytes
// must change as well: results of the old one would be taken for results of the new one.
func TestHostBytes(t *testing.T) {
	var text []byte
	for i := range uint64(60_000) {
		text = fmt.Appendf(text, "%d %x\n", i, i*i*i)
	}
	sum := sha256.New()
	p := &copier{convert: func(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
		for _, c := range []struct {
			codec abi.Codec
			level int
		}{{abi.CodecLZ4Block, 0}, {abi.CodecGzip, 0}, {abi.CodecGzip, 9}, {abi.CodecZstd, 0}, {abi.CodecZstd, 1}, {abi.CodecZstd, 19}, {abi.CodecDeflate, 6}} {
			b, err := l.Host.Encode(c.codec, c.level, nil, text)
			if err != nil {
				return nil, fmt.Errorf("codec %d, level %d: %w", c.codec, c.level, err)
			}
			sum.Write(b)
		}
		for i, f := range []abi.SinkFilter{abi.FilterGzip, abi.FilterZstd} {
			out, err := l.OpenSink(i+1, f, 0)
			if err != nil {
				return nil, err
			}
			if err := l.Write(out, text); err != nil {
				return nil, err
			}
			info, err := l.Host.Close(out)
			if err != nil {
				return nil, err
			}
			sum.Write(info.SHA256[:])
		}
		resp, err := copyLayer(l)
		resp.Parts = append(resp.Parts, abi.Part{Sink: 1, Aux: true}, abi.Part{Sink: 2, Aux: true})
		return resp, err
	}}
	e, _ := reusing(t, p, nil)
	s := graphtest.NewStore()
	e.convert(e.source(s, s.Image(graphtest.Image{Layers: []graphtest.Layer{s.Layer(map[string]string{"a": "b"})}})), "copy", e.ref("out"))
	same(t, "the codecs' bytes with hostBytes "+hostBytes, fmt.Sprintf("%x", sum.Sum(nil)), codecBytes)
}

// codecBytes are renewed together with hostBytes.
const codecBytes = "cee43d11fcc0b632985c9068d576c653280b1e848f1a8897f2ebca157a296b2a"
