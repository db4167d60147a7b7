package overlaybd

import (
	"context"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

// MergeLayers implements sdk.Merger: the image is its layers. A base layer has no source; upstream's convertor leaves it out
// of the history, so that history and layers do not agree; here it has an item.
func (plugin) MergeLayers(_ context.Context, m *sdk.Merge) (*abi.MergeResponse, error) {
	resp := &abi.MergeResponse{}
	for i, l := range m.Layers {
		for _, p := range l.Parts {
			out := abi.OutLayer{Part: int(p), Source: i}
			if m.Parts[p].Name == baseName {
				out.Source, out.CreatedBy, out.Comment = -1, "overlaybd base layer", "empty file system"
			}
			resp.Layers = append(resp.Layers, out)
		}
	}
	return resp, nil
}
