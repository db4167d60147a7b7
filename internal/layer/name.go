package layer

import (
	"bytes"
	"strconv"

	"github.com/convhost/convhost/abi"
)

// Names with a meaning in OCI layers.
const (
	WhiteoutPrefix = ".wh."         // hides what the rest of the name says in lower layers
	OpaqueName     = ".wh..wh..opq" // hides all lower content of its directory
	metaPrefix     = ".wh..wh."     // metadata of AUFS
)

// fault is a broken rule of a name: class 0 is no fault.
type fault struct {
	class     abi.Class
	got, want string
}

// cleanName makes b relative and lexically clean, in place: no empty, "." and ".." elements. "" is the root.
func cleanName(b []byte, lim *Limits) ([]byte, fault) {
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, fault{abi.ErrCorrupt, strconv.QuoteToASCII(clip(b)), "no NUL byte"}
	}
	out := b[:0]
	for rest := b; len(rest) > 0; {
		el := rest
		if i := bytes.IndexByte(rest, '/'); i >= 0 {
			el, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		switch {
		case len(el) == 0 || len(el) == 1 && el[0] == '.':
		case len(el) == 2 && el[0] == '.' && el[1] == '.':
			if len(out) == 0 {
				return nil, fault{abi.ErrCorrupt, "outside the root", `no ".." that leaves it`}
			}
			out = out[:max(bytes.LastIndexByte(out, '/'), 0)]
		case len(el) > lim.NameBytes:
			return nil, fault{abi.ErrLimit, "element of " + strconv.Itoa(len(el)) + " bytes", "at most " + strconv.Itoa(lim.NameBytes)}
		default:
			if len(out) > 0 {
				out = append(out, '/')
			}
			out = append(out, el...)
		}
	}
	if len(out) > lim.PathBytes {
		return nil, fault{abi.ErrLimit, strconv.Itoa(len(out)) + " bytes", "at most " + strconv.Itoa(lim.PathBytes)}
	}
	return out, fault{}
}

// classify tells what a clean path means in a layer. skip is true for metadata of AUFS.
func classify(p []byte) (flags uint16, skip bool, f fault) {
	if !bytes.Contains(p, []byte(WhiteoutPrefix)) {
		return 0, false, fault{}
	}
	for {
		el, rest, more := bytes.Cut(p, []byte{'/'})
		if bytes.HasPrefix(el, []byte(WhiteoutPrefix)) {
			switch {
			case string(el) == OpaqueName && !more:
				return abi.EntryOpaque, false, fault{}
			case bytes.HasPrefix(el, []byte(metaPrefix)) && string(el) != OpaqueName:
				return 0, true, fault{}
			case more:
				return 0, false, fault{abi.ErrUnsupported, strconv.QuoteToASCII(clip(el)), "a whiteout only as last element"}
			}
			hidden := string(el[len(WhiteoutPrefix):])
			if hidden == "" || hidden == "." || hidden == ".." {
				return 0, false, fault{abi.ErrCorrupt, strconv.QuoteToASCII(string(el)), "a whiteout that names what it hides"}
			}
			return abi.EntryWhiteout, false, fault{}
		}
		if !more {
			return 0, false, fault{}
		}
		p = rest
	}
}

// Hidden returns the path that a whiteout entry hides: the file for EntryWhiteout, the directory for EntryOpaque. ok is
// false for an entry that is neither.
func Hidden(e *abi.Entry) (path string, ok bool) {
	dir, base := "", e.Path
	if i := lastSlash(e.Path); i >= 0 {
		dir, base = e.Path[:i], e.Path[i+1:]
	}
	switch {
	case e.Flags&abi.EntryOpaque != 0:
		return dir, true
	case e.Flags&abi.EntryWhiteout != 0 && len(base) > len(WhiteoutPrefix):
		if dir == "" {
			return base[len(WhiteoutPrefix):], true
		}
		return dir + "/" + base[len(WhiteoutPrefix):], true
	}
	return "", false
}

func lastSlash(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return i
		}
	}
	return -1
}

// clip shortens a name for an error message.
func clip(b []byte) string {
	if len(b) > 64 {
		return string(b[:64]) + "…"
	}
	return string(b)
}
