package overlaybd

import (
	"encoding/json"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"github.com/convhost/convhost/abi"
)

// config.v1.json of overlaybd's runtime, as much of it as describes an image: layers from the bottom up, each a local file
// or a digest below repoBlobUrl, and the files of a writable layer.                     (overlaybd-format 4.4)
type runtimeConfig struct {
	RepoBlobURL string         `json:"repoBlobUrl,omitempty"`
	Lowers      []runtimeLower `json:"lowers"`
	Upper       *runtimeUpper  `json:"upper,omitempty"`
}

type runtimeLower struct {
	File   string `json:"file,omitempty"`
	Digest string `json:"digest,omitempty"`
	Size   int64  `json:"size,omitempty"`
}

type runtimeUpper struct {
	Index string `json:"index"`
	Data  string `json:"data"`
}

// deviceConfig tells overlaybd's runtime how to present the image itself. It is nil if the layers are not where that runtime
// could read them.
func deviceConfig(a *abi.AttachRequest, o attachment) ([]byte, error) {
	var c runtimeConfig
	for i, p := range a.Parts[:layersOf(a.Parts)] {
		if targetOf(p) != "" {
			return nil, nil // the members of a TurboOCI layer would have to be local files
		}
		if p.Annotations[annotationAcceleration] == "yes" {
			continue
		}
		if i >= len(a.Locations) || a.Locations[i] == "" {
			return nil, nil
		}
		u, err := url.Parse(a.Locations[i])
		if err != nil {
			return nil, abi.Errorf(abi.ErrInvalid, "location of layer %d: %w", p.Layer, err)
		}
		if u.Scheme == "file" {
			c.Lowers = append(c.Lowers, runtimeLower{File: filepath.FromSlash(u.Path), Size: p.Size})
			continue
		}
		dir, digest := path.Split(u.Path)
		if digest != p.Digest {
			return nil, nil
		}
		u.Path = strings.TrimSuffix(dir, "/")
		if c.RepoBlobURL == "" {
			c.RepoBlobURL = u.String()
		} else if c.RepoBlobURL != u.String() {
			return nil, nil
		}
		c.Lowers = append(c.Lowers, runtimeLower{Digest: p.Digest, Size: p.Size})
	}
	if o.upper != "" {
		c.Upper = &runtimeUpper{Index: filepath.Join(o.upper, upperIndex), Data: filepath.Join(o.upper, upperData)}
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, abi.Errorf(abi.ErrInternal, "%w", err)
	}
	return append(b, '\n'), nil
}
