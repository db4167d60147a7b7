package dedup

import (
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/transport"
)

// MaxPlaces is how many places of one blob a store tells, newest first. It may forget the others.
const MaxPlaces = 16

// Place is where blobs are: a repository of a registry, or a layout or archive on this machine.
type Place struct {
	Transport string // transport.Docker, transport.OCI or transport.OCIArchive
	Host      string // of the registry, with its port
	Path      string // repository, or absolute path of the directory or file
}

// maxPlace bounds the parts of a place, in bytes: what databases can index.
const maxPlace = 255

// PlaceOf returns the place that a reference is in, false for those that blobs cannot be found in later.
func PlaceOf(r transport.Reference) (Place, bool) {
	p := Place{Transport: r.Transport, Host: r.Host, Path: r.Repo}
	if p.Local() {
		abs, err := filepath.Abs(r.Path)
		if err != nil {
			return Place{}, false
		}
		p.Path = abs
	}
	return p, p.Validate() == nil
}

// Local says that the place is on this machine only. Stores that machines share leave such places out.
func (p Place) Local() bool { return p.Transport != transport.Docker }

// Reference returns a reference to the place, for transport.OpenSource and OpenTarget. It names no image.
func (p Place) Reference() transport.Reference {
	r := transport.Reference{Transport: p.Transport, Index: -1}
	if p.Local() {
		r.Path = p.Path
	} else {
		r.Host, r.Repo, r.Tag = p.Host, p.Path, "latest"
	}
	return r
}

// String returns TRANSPORT:PATH or docker://HOST/REPOSITORY.
func (p Place) String() string {
	if p.Local() {
		return p.Transport + ":" + p.Path
	}
	return p.Transport + "://" + p.Host + "/" + p.Path
}

// ParsePlace reads what String writes. abi.ErrInvalid for anything else.
func ParsePlace(s string) (Place, error) {
	var p Place
	name, rest, _ := strings.Cut(s, ":")
	p.Transport = name
	if p.Local() {
		p.Path = rest
	} else {
		rest, ok := strings.CutPrefix(rest, "//")
		if !ok {
			return Place{}, abi.Errorf(abi.ErrInvalid, "place %q: after docker: comes //", s)
		}
		p.Host, p.Path, _ = strings.Cut(rest, "/")
	}
	return p, p.Validate()
}

// Validate returns abi.ErrInvalid for places that cannot be meant.
func (p Place) Validate() error {
	bad := func(why string) error { return abi.Errorf(abi.ErrInvalid, "place %q: %s", p.String(), why) }
	switch {
	case len(p.Host) > maxPlace || len(p.Path) > maxPlace && !p.Local() || len(p.Path) > 4096:
		return bad("the name is too long")
	case strings.ContainsAny(p.Host+p.Path, "\x00\n\r"):
		return bad("it holds control characters")
	case p.Path == "":
		return bad("the path is empty")
	}
	switch p.Transport {
	case transport.Docker:
		if p.Host == "" || strings.Contains(p.Host, "/") || strings.ContainsAny(p.Path, "@: ") {
			return bad("want docker://HOST/REPOSITORY")
		}
	case transport.OCI, transport.OCIArchive:
		if p.Host != "" || !filepath.IsAbs(p.Path) {
			return bad("want an absolute path")
		}
	default:
		return bad("there is nothing to be found later")
	}
	return nil
}

func validBlobs(blobs []digest.Digest) error {
	for _, b := range blobs {
		if err := b.Validate(); err != nil {
			return abi.Errorf(abi.ErrInvalid, "blob %q: %w", string(b), err)
		}
	}
	return nil
}
