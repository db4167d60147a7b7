package ext4

import (
	"bytes"
	"context"
	"io"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
)

// found is what a walk came to.
type found struct {
	e    *abi.Entry
	body *File
}

// Diff calls fn with the entries of a layer that makes the tree of lower into that of upper: whiteouts for what went, and what is
// new or changed, in the order of Walk. Files are compared byte by byte. A file of several names that changed is given with
// all of them. Arguments and errors are as for Walk.
func Diff(ctx context.Context, lower, upper *Image, fn WalkFunc) error {
	d := &differ{fn: fn, given: map[string]bool{}}
	nextL, stopL := iter.Pull2(lower.all(ctx))
	defer stopL()
	nextU, stopU := iter.Pull2(upper.all(ctx))
	defer stopU()
	l, errL, okL := nextL()
	u, errU, okU := nextU()
	for okL || okU {
		if errL != nil {
			return errL
		}
		if errU != nil {
			return errU
		}
		order := 0
		switch {
		case !okU:
			order = -1
		case !okL:
			order = 1
		default:
			order = comparePaths(l.e.Path, u.e.Path)
		}
		var err error
		switch {
		case order < 0:
			err = d.gone(l.e.Path)
		case order > 0:
			err = d.give(u)
		default:
			err = d.both(l, u)
		}
		if err != nil {
			return err
		}
		if order <= 0 {
			l, errL, okL = nextL()
		}
		if order >= 0 {
			u, errU, okU = nextU()
		}
	}
	return nil
}

// all is Walk as a sequence; an error is its last element.
func (im *Image) all(ctx context.Context) iter.Seq2[found, error] {
	return func(yield func(found, error) bool) {
		stop := abi.Errorf(abi.ErrCanceled, "stopped")
		err := im.Walk(ctx, func(e *abi.Entry, body *File) error {
			if !yield(found{e, body}, nil) {
				return stop
			}
			return nil
		})
		if err != nil && err != stop {
			yield(found{}, err)
		}
	}
}

// comparePaths orders paths as Walk does: a directory's content directly after it.
func comparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

type differ struct {
	fn      WalkFunc
	given   map[string]bool // files of several names
	removed string          // path below which lower content is gone with it
	seq     uint64
}

func (d *differ) below(p string) bool { return d.removed != "" && strings.HasPrefix(p, d.removed+"/") }

func (d *differ) gone(p string) error {
	if d.below(p) {
		return nil
	}
	d.removed = p
	dir, base := path.Split(p)
	return d.call(&abi.Entry{Kind: abi.KindRegular, Flags: abi.EntryWhiteout, Path: dir + ".wh." + base}, nil)
}

func (d *differ) call(e *abi.Entry, body *File) error {
	e.Seq = d.seq
	d.seq++
	return d.fn(e, body)
}

func (d *differ) give(u found) error {
	if u.e.Kind != abi.KindDir && u.e.Kind != abi.KindHardlink {
		d.given[u.e.Path] = true
	}
	return d.call(u.e, u.body)
}

func (d *differ) both(l, u found) error {
	if l.e.Kind == abi.KindDir && u.e.Kind != abi.KindDir {
		d.removed = l.e.Path
	}
	if u.e.Kind == abi.KindHardlink && d.given[u.e.Link] {
		return d.give(u)
	}
	same, err := equal(l, u)
	if same || err != nil {
		return err
	}
	return d.give(u)
}

func equal(l, u found) (bool, error) {
	a, b := l.e, u.e
	if a.Kind != b.Kind || a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || a.MtimeSec != b.MtimeSec || a.MtimeNs != b.MtimeNs ||
		a.Size != b.Size || a.Link != b.Link || a.DevMajor != b.DevMajor || a.DevMinor != b.DevMinor {
		return false, nil
	}
	if !slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y abi.Xattr) bool { return x.Key == y.Key && bytes.Equal(x.Value, y.Value) }) {
		return false, nil
	}
	if l.body == nil {
		return true, nil
	}
	return sameContent(l.body, u.body)
}

// sameContent compares two files of one size; ranges that are holes in both cost nothing.
func sameContent(a, b *File) (bool, error) {
	p, q := make([]byte, bodyChunk*BlockSize), make([]byte, bodyChunk*BlockSize)
	for off := int64(0); off < a.size; {
		sa, na := a.run(uint32(off / BlockSize))
		sb, nb := b.run(uint32(off / BlockSize))
		if n := min(na, nb); sa == 0 && sb == 0 {
			off += n * BlockSize
			continue
		}
		n := int(min(a.size-off, int64(len(p)), min(na, nb)*BlockSize))
		if _, err := a.ReadAt(p[:n], off); err != nil && err != io.EOF {
			return false, err
		}
		if _, err := b.ReadAt(q[:n], off); err != nil && err != io.EOF {
			return false, err
		}
		if !bytes.Equal(p[:n], q[:n]) {
			return false, nil
		}
		off += int64(n)
	}
	return true, nil
}
