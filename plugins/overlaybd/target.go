package overlaybd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
	"github.com/convhost/convhost/plugins/overlaybd/gzindex"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
	"github.com/convhost/convhost/plugins/overlaybd/turbo"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
	"github.com/convhost/convhost/sdk"
)

// targetKeys are the annotations that name the original layer of a TurboOCI layer; the second is of before its renaming.
var targetKeys = []string{
	"containerd.io/snapshot/overlaybd/turbo-oci/target-digest",
	"containerd.io/snapshot/overlaybd/fastoci/target-digest",
}

// targetOf returns the digest of the original layer of a TurboOCI layer, "" for others.
func targetOf(p abi.PartInfo) string {
	for _, key := range targetKeys {
		if d := p.Annotations[key]; d != "" {
			return d
		}
	}
	return ""
}

// target is the original layer of a TurboOCI layer: its tar, at any place.
type target struct {
	io.ReaderAt
	size   int64 // of the tar
	digest string
	blob   *sdk.Blob // as it is stored; nil if it is not at hand
}

// unpackTurbo opens a TurboOCI layer.
func (l *layerFile) unpackTurbo(h abi.Host, role abi.Role, parts []abi.PartInfo, index int, s *stack) error {
	t, err := turbo.Read(io.NewSectionReader(l.blob, 0, l.blob.Size()), turbo.Options{NewSpool: s.newMember})
	if err != nil {
		return err
	}
	if t.FS != "ext4" {
		return abi.Errorf(abi.ErrUnsupported, "not supported: TurboOCI layer with the file system %s, only ext4", t.FS)
	}
	if l.file, err = zfile.Open(t.Meta, t.Meta.Size, zfile.Options{}); err != nil {
		return err
	}
	if l.target, err = openTarget(h, role, parts, index, t.Index, s.pool); err != nil {
		return err
	}
	l.layer, err = lsmt.Open(l.file, l.file.Size(), lsmt.Options{Target: l.target, TargetSize: l.target.size})
	return err
}

// newMember makes a place for a member of a layer. It is written before there is another one.
func (s *stack) newMember() turbo.Spool { return &section{s: &s.members, off: s.members.size} }

// section is a part of a spool.
type section struct {
	s      *spool
	off, n int64
}

// Write implements io.Writer.
func (c *section) Write(p []byte) (int, error) {
	n, err := c.s.Write(p)
	c.n += int64(n)
	return n, err
}

// ReadAt implements io.ReaderAt.
func (c *section) ReadAt(p []byte, off int64) (int, error) {
	return io.NewSectionReader(c.s, c.off, c.n).ReadAt(p, off)
}

// openTarget finds the original layer of layer number index among what is granted beside the layers. To put another layer upon it,
// it is not needed: all metadata stands in the layer itself.
func openTarget(h abi.Host, role abi.Role, parts []abi.PartInfo, index int, gzip *turbo.Member, pool *gzindex.Pool) (*target, error) {
	t := &target{digest: targetOf(parts[index])}
	if role != abi.RolePart {
		t.ReaderAt, t.size = absent{t.digest}, math.MaxInt64-lsmt.SectorSize
		return t, nil
	}
	for i, p := range parts {
		if p.Ref == "" || p.Layer != parts[index].Layer || p.Digest != t.digest {
			continue
		}
		blob, err := sdk.OpenBlob(h, role, i)
		if err != nil {
			return nil, err
		}
		t.blob, t.ReaderAt, t.size = blob, blob, blob.Size()
		if gzip != nil {
			f, err := gzindex.Open(gzip, gzip.Size, blob, blob.Size(), gzindex.Options{Pool: pool})
			if err != nil {
				return nil, err
			}
			t.ReaderAt, t.size = f, f.Size()
		}
		return t, nil
	}
	return nil, abi.Errorf(abi.ErrNotFound, "the original layer %s, which holds the data of the files, is not where the image is: copy it there, or convert again", t.digest)
}

// absent is an original layer that nobody should need.
type absent struct{ digest string }

// ReadAt implements io.ReaderAt.
func (a absent) ReadAt([]byte, int64) (int, error) {
	return 0, abi.Errorf(abi.ErrCorrupt, "metadata of the file system stands in the original layer %s, where only the data of files may be: %w", a.digest, ext4.ErrAbsent)
}

// verifyTargets compares the original layers with their digests: nothing else in a TurboOCI image tells when their bytes are wrong.
func (s *stack) verifyTargets(ctx context.Context) error {
	for _, l := range s.layers {
		if l.target == nil {
			continue
		}
		if err := l.target.verify(ctx); err != nil {
			return fmt.Errorf("original of layer %d: %w", l.info.Layer, err)
		}
	}
	return nil
}

func (t *target) verify(ctx context.Context) error {
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	for off, size := int64(0), t.blob.Size(); off < size; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return abi.Errorf(abi.ClassOf(err), "verify: %w", err)
		}
		part := buf[:min(int64(len(buf)), size-off)]
		if n, err := t.blob.ReadAt(part, off); n < len(part) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return abi.Errorf(max(abi.ClassOf(err), abi.ErrIO), "read at %d: %w", off, err)
		}
		sum.Write(part)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != t.digest {
		return &abi.FormatError{Class: abi.ErrDigest, Format: "original layer", Off: -1, Field: "digest", Got: got, Want: t.digest}
	}
	return nil
}
