package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/convhost/convhost/abi"
)

const (
	tocName          = "stargz.index.json"
	prefetchLandmark = ".prefetch.landmark"    // what comes before it should be fetched at once
	noPrefetch       = ".no.prefetch.landmark" // nothing should
	landmarkBody     = "\x0f"
	footerSize       = 51
)

// reserved tells whether a path belongs to the format and not to the layer.
func reserved(p string) bool { return p == tocName || p == prefetchLandmark || p == noPrefetch }

var typeNames = map[abi.Kind]string{
	abi.KindRegular: "reg", abi.KindDir: "dir", abi.KindSymlink: "symlink", abi.KindHardlink: "hardlink",
	abi.KindChar: "char", abi.KindBlock: "block", abi.KindFifo: "fifo",
}

// appendFooter appends an empty gzip member with the TOC's offset in its extra field.
func appendFooter(b []byte, tocOff int64) []byte {
	b = append(b, 0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255) // deflate, extra field, no time, no OS
	b = append(b, 26, 0, 'S', 'G', 22, 0)
	b = fmt.Appendf(b, "%016xSTARGZ", tocOff)
	b = append(b, 1, 0, 0, 0xff, 0xff)       // one stored block, the last, without bytes
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0) // CRC-32 and size
}

// appendTOCEntry appends the JSON of an entry but for its chunk and the closing brace. It is written by hand because a layer
// can have a million of them, and reflection is slow in the sandbox.
func appendTOCEntry(b []byte, e *abi.Entry) ([]byte, error) {
	name := e.Path
	if e.Kind == abi.KindDir {
		name = tarDirName(e.Path)
	}
	b = appendString(append(b, `{"name":`...), name)
	b = appendString(append(b, `,"type":`...), typeNames[e.Kind])
	b = appendNumber(b, "size", e.Size)
	if e.MtimeSec != 0 || e.MtimeNs != 0 {
		m := time.Unix(e.MtimeSec, int64(e.MtimeNs)).UTC()
		if m.Year() < 0 || m.Year() > 9999 {
			return b, abi.Errorf(abi.ErrUnsupported, "entry %q: a TOC cannot say the year %d", e.Path, m.Year())
		}
		b = append(m.AppendFormat(append(b, `,"modtime":"`...), time.RFC3339Nano), '"')
	}
	if e.Link != "" {
		b = appendString(append(b, `,"linkName":`...), e.Link)
	}
	b = strconv.AppendUint(append(b, `,"mode":`...), uint64(e.Mode), 10)
	b = strconv.AppendUint(append(b, `,"uid":`...), uint64(e.UID), 10)
	b = strconv.AppendUint(append(b, `,"gid":`...), uint64(e.GID), 10)
	b = appendNumber(appendNumber(b, "devMajor", int64(e.DevMajor)), "devMinor", int64(e.DevMinor))
	for i, x := range e.Xattrs { // sorted by key
		if !utf8.ValidString(x.Key) {
			return b, abi.Errorf(abi.ErrUnsupported, "entry %q: attribute %q is not UTF-8, a TOC cannot name it", e.Path, x.Key)
		}
		b = append(b, [2]string{`,"xattrs":{`, ","}[min(i, 1)]...)
		value, _ := json.Marshal(x.Value) // base64
		b = append(append(appendString(b, x.Key), ':'), value...)
	}
	if len(e.Xattrs) > 0 {
		b = append(b, '}')
	}
	return b, nil
}

// tarDirName is the name of a directory in a tar.
func tarDirName(p string) string {
	if p == "" {
		return "./"
	}
	return p + "/"
}

func appendNumber(b []byte, key string, n int64) []byte {
	if n == 0 {
		return b
	}
	b = append(append(append(b, ',', '"'), key...), '"', ':')
	return strconv.AppendInt(b, n, 10)
}

func appendDigest(b []byte, key string, sum *[32]byte) []byte {
	b = append(append(append(b, ',', '"'), key...), `":"sha256:`...)
	return append(hex.AppendEncode(b, sum[:]), '"')
}

func appendString(b []byte, s string) []byte {
	special := func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }
	if strings.IndexFunc(s, special) < 0 {
		return append(append(append(b, '"'), s...), '"')
	}
	quoted, _ := json.Marshal(s)
	return append(b, quoted...)
}
