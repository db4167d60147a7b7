package flatten

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
)

// ApplyTar applies a whole layer and reads r to the end of its source. Errors are those of r and of Apply. If ctx ends, so
// does ApplyTar, with ctx's error class.
func (t *Tree) ApplyTar(ctx context.Context, r *layer.Reader) (layer.End, error) {
	t.BeginLayer()
	h := sha256.New()
	buf := make([]byte, 64<<10)
	var e abi.Entry
	for {
		if err := ctx.Err(); err != nil {
			return layer.End{}, abi.Errorf(abi.ClassOf(err), "apply layer: %w", err)
		}
		err := r.Next(&e)
		if err == io.EOF {
			return r.Drain()
		}
		if err != nil {
			return layer.End{}, err
		}
		var sum [32]byte
		if e.Kind == abi.KindRegular && e.Flags&(abi.EntryWhiteout|abi.EntryOpaque) == 0 {
			h.Reset()
			for err == nil {
				var n int
				n, err = r.Read(buf)
				h.Write(buf[:n])
				if err == nil {
					err = ctx.Err()
				}
			}
			if err == ctx.Err() {
				continue
			}
			if err != io.EOF {
				return layer.End{}, err
			}
			h.Sum(sum[:0])
		}
		if err := t.Apply(&e, sum); err != nil {
			return layer.End{}, err
		}
	}
}
