package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

const maxTOC = 512 << 20 // bytes of JSON that we read

type tocJSON struct {
	Version int        `json:"version"`
	Entries []tocEntry `json:"entries"`
}

// tocEntry is a file, or a further chunk (type "chunk") of the file before it.
type tocEntry struct {
	Name        string            `json:"name"`
	Type        string            `json:"type"`
	Size        int64             `json:"size,omitempty"`
	ModTime     string            `json:"modtime,omitempty"` // RFC 3339 in UTC; none: 1970
	LinkName    string            `json:"linkName,omitempty"`
	Mode        uint32            `json:"mode"`
	UID         uint32            `json:"uid"`
	GID         uint32            `json:"gid"`
	Offset      int64             `json:"offset,omitempty"` // of the chunk's first gzip member in the blob
	InnerOffset int64             `json:"innerOffset,omitempty"`
	DevMajor    uint32            `json:"devMajor,omitempty"`
	DevMinor    uint32            `json:"devMinor,omitempty"`
	Xattrs      map[string][]byte `json:"xattrs,omitempty"`
	Digest      string            `json:"digest,omitempty"` // of the whole body
	ChunkOffset int64             `json:"chunkOffset,omitempty"`
	ChunkSize   int64             `json:"chunkSize,omitempty"` // 0 for the last chunk
	ChunkDigest string            `json:"chunkDigest,omitempty"`
}

func corrupt(class abi.Class, off int64, field, got, want string) error {
	return &abi.FormatError{Class: class, Format: "estargz layer", Off: off, Field: field, Got: got, Want: want}
}

// lazyLayer is an eStargz layer, opened: its files with their chunks.
type lazyLayer struct {
	blob  *sdk.Blob
	files []lazyFile
}

type lazyFile struct {
	abi.Entry
	chunks  []chunk
	covered int64 // bytes of chunks
}

// chunk is where the bytes of a body lie: at most stored bytes from off yield size.
type chunk struct {
	off    int64
	stored int
	size   int
	digest [32]byte
}

// openLayer reads the TOC of part i and compares its digest with the annotation.
func openLayer(h abi.Host, parts []abi.PartInfo, i int) (*lazyLayer, error) {
	if i < 0 || i >= len(parts) {
		return nil, abi.Errorf(abi.ErrInvalid, "layer %d of %d", i, len(parts))
	}
	want := parts[i].Annotations[annotationDigest]
	if want == "" {
		return nil, abi.Errorf(abi.ErrUnsupported, "layer %d has no annotation %s: it is an ordinary layer", i, annotationDigest)
	}
	b, err := sdk.OpenBlob(h, abi.RolePart, i)
	if err != nil {
		return nil, err
	}
	off, err := tocOffset(b)
	if err != nil {
		return nil, err
	}
	raw, err := readTOC(b, off)
	if err != nil {
		return nil, err
	}
	if got := fmt.Sprintf("sha256:%x", sha256.Sum256(raw)); got != want {
		return nil, corrupt(abi.ErrDigest, off, "digest of the TOC", got, want+" as annotated")
	}
	var t tocJSON
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, corrupt(abi.ErrCorrupt, off, "TOC: "+err.Error(), "", "")
	}
	if t.Version != 1 {
		return nil, corrupt(abi.ErrUnsupported, off, "version of the TOC", strconv.Itoa(t.Version), "1")
	}
	l := &lazyLayer{blob: b}
	return l, l.load(t.Entries, off)
}

func tocOffset(b *sdk.Blob) (int64, error) {
	at := b.Size() - footerSize
	if at < 0 {
		return 0, corrupt(abi.ErrTruncated, b.Size(), "size", "", "at least the 51 bytes of a footer")
	}
	f := make([]byte, footerSize)
	if _, err := b.ReadAt(f, at); err != nil {
		return 0, err
	}
	off, err := strconv.ParseInt(string(f[16:32]), 16, 64)
	want := appendFooter(nil, max(off, 0))
	if err != nil || string(f[:4]) != string(want[:4]) || string(f[10:]) != string(want[10:]) {
		return 0, corrupt(abi.ErrCorrupt, at, "footer", strconv.Quote(string(f)), "an empty gzip member with the offset of the TOC")
	}
	if off >= at {
		return 0, corrupt(abi.ErrCorrupt, at, "offset of the TOC", strconv.FormatInt(off, 10), "one before the footer")
	}
	return off, nil
}

func readTOC(b *sdk.Blob, off int64) ([]byte, error) {
	z, err := gzip.NewReader(io.NewSectionReader(b, off, b.Size()-footerSize-off))
	if err != nil {
		return nil, corrupt(abi.ErrCorrupt, off, "TOC: "+err.Error(), "", "")
	}
	r := tar.NewReader(z)
	h, err := r.Next()
	if err != nil || h.Name != tocName {
		return nil, corrupt(abi.ErrCorrupt, off, "tar entry at the offset of the TOC", "", tocName)
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxTOC+1))
	if err != nil {
		return nil, corrupt(abi.ErrCorrupt, off, "TOC: "+err.Error(), "", "")
	}
	if len(raw) > maxTOC {
		return nil, corrupt(abi.ErrLimit, off, "size of the TOC", "", "at most 512 MiB")
	}
	return raw, nil
}

// load turns a TOC into files. end is where the last chunk must end.
func (l *lazyLayer) load(entries []tocEntry, end int64) error {
	starts := []int64{end}
	for i := range entries {
		if entries[i].Offset > 0 {
			starts = append(starts, entries[i].Offset)
		}
	}
	slices.Sort(starts)
	for i := range entries {
		t := &entries[i]
		if t.Type != "chunk" {
			e, err := t.entry()
			if err != nil {
				return err
			}
			l.files = append(l.files, lazyFile{Entry: e})
		}
		if t.Type != "chunk" && (t.Type != "reg" || t.Size == 0) {
			continue
		}
		if len(l.files) == 0 {
			return corrupt(abi.ErrCorrupt, end, "first entry of the TOC", "a chunk", "a file")
		}
		if err := l.files[len(l.files)-1].addChunk(t, starts, end); err != nil {
			return err
		}
	}
	for i := range l.files {
		if f := &l.files[i]; f.Size != f.covered {
			return f.corrupt(abi.ErrCorrupt, "bytes of all chunks", strconv.FormatInt(f.covered, 10), strconv.FormatInt(f.Size, 10))
		}
	}
	return nil
}

func (f *lazyFile) corrupt(class abi.Class, field, got, want string) error {
	return &abi.FormatError{Class: class, Format: "estargz TOC", Entry: f.Path, Off: -1, Field: field, Got: got, Want: want}
}

// addChunk appends the chunk that t describes. It ends where the next one starts, at the latest.
func (f *lazyFile) addChunk(t *tocEntry, starts []int64, end int64) error {
	size := t.ChunkSize
	if size == 0 {
		size = f.Size - t.ChunkOffset
	}
	for _, rule := range []struct {
		broken bool
		class  abi.Class
		field  string
		got    int64
		want   string
	}{
		{t.InnerOffset != 0, abi.ErrUnsupported, "innerOffset", t.InnerOffset, "none: several chunks in one member are not supported"},
		{t.ChunkOffset != f.covered, abi.ErrCorrupt, "chunkOffset", t.ChunkOffset, "the end of the chunk before"},
		{t.Offset <= 0 || t.Offset >= end, abi.ErrCorrupt, "offset", t.Offset, "one before the TOC"},
		{size <= 0 || size > f.Size-f.covered, abi.ErrCorrupt, "chunkSize", size, "bytes of the file"},
		{size > abi.MaxChunkSize, abi.ErrLimit, "chunkSize", size, "at most 16 MiB"},
	} {
		if rule.broken {
			return f.corrupt(rule.class, rule.field, strconv.FormatInt(rule.got, 10), rule.want)
		}
	}
	i, _ := slices.BinarySearch(starts, t.Offset+1)
	c := chunk{off: t.Offset, size: int(size), stored: int(min(starts[i]-t.Offset, size+size/64+1024))} // deflate adds 5 bytes in 64 KiB
	sum := t.ChunkDigest
	if sum == "" {
		sum = t.Digest
	}
	digits, ok := strings.CutPrefix(sum, "sha256:")
	if n, err := hex.Decode(c.digest[:], []byte(digits[:min(len(digits), 64)])); !ok || err != nil || n != 32 || len(digits) != 64 {
		return f.corrupt(abi.ErrCorrupt, "chunkDigest", strconv.Quote(sum), "sha256:…")
	}
	f.chunks = append(f.chunks, c)
	f.covered += size
	return nil
}

// entry turns a file of the TOC into an entry.
func (t *tocEntry) entry() (e abi.Entry, err error) {
	for k, name := range typeNames {
		if name == t.Type {
			e.Kind = k
		}
	}
	e.Path, e.Mode, e.UID, e.GID = cleanName(t.Name), t.Mode&0o7777, t.UID, t.GID
	if e.Kind == 0 {
		return e, &abi.FormatError{Class: abi.ErrCorrupt, Format: "estargz TOC", Entry: t.Name, Off: -1, Field: "type", Got: strconv.Quote(t.Type), Want: "one that the format has"}
	}
	switch e.Kind {
	case abi.KindRegular:
		e.Size = t.Size
		switch base := path.Base(e.Path); {
		case base == ".wh..wh..opq":
			e.Flags = abi.EntryOpaque
		case strings.HasPrefix(base, ".wh."):
			e.Flags = abi.EntryWhiteout
		}
	case abi.KindSymlink:
		e.Link = t.LinkName
	case abi.KindHardlink:
		e.Link = cleanName(t.LinkName)
	case abi.KindChar, abi.KindBlock:
		e.DevMajor, e.DevMinor = t.DevMajor, t.DevMinor
	}
	for k, v := range t.Xattrs {
		e.Xattrs = append(e.Xattrs, abi.Xattr{Key: k, Value: v})
	}
	slices.SortFunc(e.Xattrs, func(a, b abi.Xattr) int { return strings.Compare(a.Key, b.Key) })
	if t.ModTime != "" {
		m, err := time.Parse(time.RFC3339, t.ModTime)
		if err != nil {
			return e, &abi.FormatError{Class: abi.ErrCorrupt, Format: "estargz TOC", Entry: t.Name, Off: -1, Field: "modtime", Got: strconv.Quote(t.ModTime), Want: "RFC 3339"}
		}
		e.MtimeSec, e.MtimeNs = m.Unix(), uint32(m.Nanosecond())
	}
	return e, nil
}

// cleanName makes a path of a name in a tar: no "./" in front, no "/" behind, no way out.
func cleanName(s string) string { return path.Clean("/" + s)[1:] }
