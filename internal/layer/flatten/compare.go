package flatten

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
)

// Field is a set of things that Compare looks at.
type Field uint32

// The fields. Their names in a Difference are those of [Field.String].
const (
	FieldPath Field = 1 << iota // existence
	FieldKind
	FieldMode
	FieldOwner
	FieldMtime
	FieldSize
	FieldLink
	FieldGroup
	FieldDevice
	FieldXattrs
	FieldContent
)

var fieldNames = []string{"path", "type", "mode", "owner", "mtime", "size", "link", "hard-link group", "device", "xattrs", "content"}

// String returns the names of the fields in f, separated by commas.
func (f Field) String() string {
	var names []string
	for i, n := range fieldNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ", ")
}

// CompareOptions say what does not count. The zero value is exact.
type CompareOptions struct {
	WholeSeconds bool  // mtimes are equal if their seconds are: for formats that keep no more
	Ignore       Field // not compared at all
	// ImpliedUnspecified: the attributes of a directory that one side only implies do not count (mode, owner, mtime, xattrs).
	ImpliedUnspecified bool
	IgnoreRoot         bool // attributes of the root directory do not count: containerd drops them
	Max                int  // stop after so many differences; 0: never
}

// Difference is one thing that is not equal. A and B are the values as text; "" stands for a path that is missing.
type Difference struct {
	Path  string `json:"path"`
	Field string `json:"field"`
	A     string `json:"a"`
	B     string `json:"b"`
}

// String returns one line for people.
func (d Difference) String() string {
	switch p := quote("/" + d.Path); {
	case d.A == "" && d.Field == FieldPath.String():
		return p + ": only in the second: " + d.B
	case d.B == "" && d.Field == FieldPath.String():
		return p + ": only in the first: " + d.A
	default:
		return fmt.Sprintf("%s: %s is %s in the first, %s in the second", p, d.Field, d.A, d.B)
	}
}

// Compare returns what differs between two sorted lists of records, in their order. Use slices.Values for a slice.
func Compare(a, b iter.Seq[Record], opt CompareOptions) []Difference {
	nextA, stopA := iter.Pull(a)
	defer stopA()
	nextB, stopB := iter.Pull(b)
	defer stopB()
	c := &comparer{opt: opt}
	ra, okA := nextA()
	rb, okB := nextB()
	for (okA || okB) && !c.full() {
		order := 0
		switch {
		case !okB:
			order = -1
		case !okA:
			order = 1
		default:
			order = comparePaths(ra.Path, rb.Path)
		}
		switch {
		case order < 0:
			c.add(ra.Path, FieldPath, kindName(ra.Kind), "")
		case order > 0:
			c.add(rb.Path, FieldPath, "", kindName(rb.Kind))
		default:
			c.records(&ra, &rb)
		}
		if order <= 0 {
			ra, okA = nextA()
		}
		if order >= 0 {
			rb, okB = nextB()
		}
	}
	return c.out
}

// comparePaths orders paths as Records does: a directory's content directly after it.
func comparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if x, y := a[i], b[i]; x != y {
			switch {
			case x == '/':
				return -1
			case y == '/':
				return 1
			case x < y:
				return -1
			}
			return 1
		}
	}
	return len(a) - len(b)
}

type comparer struct {
	opt CompareOptions
	out []Difference
}

func (c *comparer) full() bool { return c.opt.Max > 0 && len(c.out) >= c.opt.Max }

func (c *comparer) add(path string, f Field, a, b string) {
	if a != b && c.opt.Ignore&f == 0 && !c.full() {
		c.out = append(c.out, Difference{path, f.String(), a, b})
	}
}

func (c *comparer) records(a, b *Record) {
	p := a.Path
	if a.Kind != b.Kind {
		c.add(p, FieldKind, kindName(a.Kind), kindName(b.Kind))
		return // the rest says nothing any more
	}
	implied := c.opt.ImpliedUnspecified && (a.Implied || b.Implied) || c.opt.IgnoreRoot && p == ""
	if !implied {
		c.attributes(a, b)
	}
	switch a.Kind {
	case abi.KindRegular:
		if a.Size != b.Size {
			c.add(p, FieldSize, fmt.Sprint(a.Size), fmt.Sprint(b.Size))
		}
		if a.SHA256 != b.SHA256 {
			c.add(p, FieldContent, "sha256:"+hex.EncodeToString(a.SHA256[:]), "sha256:"+hex.EncodeToString(b.SHA256[:]))
		}
	case abi.KindSymlink:
		if a.Link != b.Link {
			c.add(p, FieldLink, quote(a.Link), quote(b.Link))
		}
	case abi.KindChar, abi.KindBlock:
		if a.DevMajor != b.DevMajor || a.DevMinor != b.DevMinor {
			c.add(p, FieldDevice, fmt.Sprintf("%d:%d", a.DevMajor, a.DevMinor), fmt.Sprintf("%d:%d", b.DevMajor, b.DevMinor))
		}
	}
	if a.Group != b.Group {
		c.add(p, FieldGroup, groupName(a.Group), groupName(b.Group))
	}
}

func groupName(g string) string {
	if g == "" {
		return "none"
	}
	return quote("/" + g)
}

func (c *comparer) attributes(a, b *Record) {
	p := a.Path
	if a.Mode != b.Mode {
		c.add(p, FieldMode, fmt.Sprintf("%04o", a.Mode), fmt.Sprintf("%04o", b.Mode))
	}
	if a.UID != b.UID || a.GID != b.GID {
		c.add(p, FieldOwner, fmt.Sprintf("%d:%d", a.UID, a.GID), fmt.Sprintf("%d:%d", b.UID, b.GID))
	}
	switch {
	case a.MtimeSec == b.MtimeSec && (a.MtimeNs == b.MtimeNs || c.opt.WholeSeconds):
	case c.opt.WholeSeconds:
		c.add(p, FieldMtime, fmt.Sprint(a.MtimeSec), fmt.Sprint(b.MtimeSec))
	default:
		c.add(p, FieldMtime, fmt.Sprintf("%d s + %d ns", a.MtimeSec, a.MtimeNs), fmt.Sprintf("%d s + %d ns", b.MtimeSec, b.MtimeNs))
	}
	same := func(x, y abi.Xattr) bool { return x.Key == y.Key && bytes.Equal(x.Value, y.Value) }
	if !slices.EqualFunc(a.Xattrs, b.Xattrs, same) {
		c.xattrs(a, b)
	}
}

// xattrs names each attribute that differs.
func (c *comparer) xattrs(a, b *Record) {
	show := func(v []byte) string {
		if len(v) > 64 {
			return fmt.Sprintf("%q… (%d bytes)", v[:64], len(v))
		}
		return fmt.Sprintf("%q", v)
	}
	x, y := a.Xattrs, b.Xattrs
	for len(x) > 0 || len(y) > 0 {
		switch {
		case len(y) == 0 || len(x) > 0 && x[0].Key < y[0].Key:
			c.add(a.Path, FieldXattrs, quote(x[0].Key)+"="+show(x[0].Value), "without "+quote(x[0].Key))
			x = x[1:]
		case len(x) == 0 || y[0].Key < x[0].Key:
			c.add(a.Path, FieldXattrs, "without "+quote(y[0].Key), quote(y[0].Key)+"="+show(y[0].Value))
			y = y[1:]
		default:
			if !bytes.Equal(x[0].Value, y[0].Value) {
				c.add(a.Path, FieldXattrs, quote(x[0].Key)+"="+show(x[0].Value), quote(y[0].Key)+"="+show(y[0].Value))
			}
			x, y = x[1:], y[1:]
		}
	}
}
