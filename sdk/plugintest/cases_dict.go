package plugintest

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
)

// uselessDict is a dictionary of no format: short, and without any structure.
var uselessDict = bytes.Repeat([]byte("no dictionary of yours\n"), 300)

// withDict converts one layer with dictionaries at hand.
func (k *kit) withDict(ctx context.Context, s *source, dicts ...artifact) *trial {
	req := &abi.ConvertRequest{Layer: k.layerInfo(s), Options: k.cfg.Options, Features: abi.Features()}
	grants := session.Config{Layer: layerGrant(s), Input: k.desc.Input}
	req.Dicts, grants.Dicts = grantParts(dicts)
	return k.run(ctx, conditions{}, abi.OpConvertLayer, req, grants, &outputs{})
}

func (k *kit) dictionaries() error {
	if !k.desc.Dicts {
		return notApplicable("the plugin takes no dictionaries")
	}
	s := makeLayer("small", file("a", []byte("a")))
	dict := artifact{info: abi.PartInfo{Digest: digest(uselessDict), Size: int64(len(uselessDict))}, bytes: uselessDict}
	t := k.withDict(k.ctx, &s, dict)
	refuses := []abi.Class{abi.ErrInvalid, abi.ErrUnsupported, abi.ErrCorrupt, abi.ErrTruncated, abi.ErrLimit}
	if t.err != nil && !slices.Contains(refuses, abi.ClassOf(t.err)) {
		return fmt.Errorf("a dictionary of no format: want an error of class 2, 3, 4, 5 or 7, got %w", t.err)
	}
	return t.same(k.withDict(k.ctx, &s, dict))
}
