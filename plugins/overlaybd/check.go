package overlaybd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
	"github.com/convhost/convhost/plugins/overlaybd/tarshell"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
	"github.com/convhost/convhost/sdk"
)

// maxProblems bounds a report.
const maxProblems = 1000

// report collects what is wrong.
type report struct{ resp abi.CheckResponse }

// add takes err into the report. It returns errors after which the operation itself cannot go on.
func (r *report) add(err error, where string) error {
	switch abi.ClassOf(err) {
	case abi.ErrCanceled, abi.ErrTimeout, abi.ErrPlugin, abi.ErrIO, abi.ErrDenied, abi.ErrInternal:
		if err != nil {
			return err
		}
	}
	if err != nil && len(r.resp.Problems) < maxProblems {
		r.resp.Problems = append(r.resp.Problems, abi.DetailOf(fmt.Errorf("%s: %w", where, err)))
	}
	return nil
}

func (r *report) addAll(errs []error, where string) error {
	for _, err := range errs {
		if err := r.add(err, where); err != nil {
			return err
		}
	}
	return nil
}

// Check implements sdk.Checker: every shell of every layer with all its checksums, the stack, the file system on it; with Deep
// also that every file can be read.
func (plugin) Check(ctx context.Context, c *sdk.Check) (*abi.CheckResponse, error) {
	layers := layersOf(c.Parts)
	r := &report{resp: abi.CheckResponse{Facts: map[string]string{"layers": strconv.Itoa(layers)}}}
	for i, p := range c.Parts[:layers] {
		if p.Annotations[annotationAcceleration] == "yes" {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, abi.Errorf(abi.ClassOf(err), "check: %w", err)
		}
		if err := r.checkLayer(ctx, c, i); err != nil {
			return nil, err
		}
	}
	if len(r.resp.Problems) > 0 {
		return &r.resp, nil // what lies upon broken layers says nothing
	}
	s, err := openStack(c, abi.RolePart, c.Parts, layers)
	if err != nil {
		return &r.resp, r.add(err, "stack of layers")
	}
	defer s.close()
	if err := r.add(s.inOrder(), "stack of layers"); err != nil {
		return nil, err
	}
	if err := r.addAll(ext4.Check(s, s.Size()), "file system"); err != nil {
		return nil, err
	}
	if len(r.resp.Problems) == 0 {
		err = r.facts(ctx, s, c.Deep)
	}
	return &r.resp, err
}

// checkLayer examines the shells of one layer, outermost first, as far as each can be opened.
func (r *report) checkLayer(ctx context.Context, h *sdk.Check, index int) error {
	where := fmt.Sprintf("layer %d (%s)", index, h.Parts[index].Digest)
	if targetOf(h.Parts[index]) != "" {
		return r.checkTurbo(ctx, h, index, where)
	}
	blob, err := sdk.OpenBlob(h, abi.RolePart, index)
	if err != nil {
		return r.add(err, where)
	}
	defer blob.Close()
	var in io.ReaderAt = blob
	size := blob.Size()
	shell, ok, err := tarshell.Find(in, size)
	if err != nil {
		return r.add(err, where)
	}
	if ok {
		errs, _ := tarshell.Check(in, size)
		if err := r.addAll(errs, where); err != nil || len(errs) > 0 {
			return err
		}
		in, size = io.NewSectionReader(blob, shell.Offset, shell.Size), shell.Size
	}
	head := make([]byte, 24)
	if n, err := in.ReadAt(head, 0); n < len(head) && err != nil && !errors.Is(err, io.EOF) {
		return r.add(err, where)
	}
	if zfile.Match(head) {
		errs, _ := zfile.Check(in, size, zfile.Options{})
		if err := r.addAll(errs, where); err != nil || len(errs) > 0 {
			return err
		}
		f, err := zfile.Open(in, size, zfile.Options{})
		if err != nil {
			return r.add(err, where)
		}
		in, size = f, f.Size()
	}
	errs, _ := lsmt.Check(in, size, lsmt.Options{})
	return r.addAll(errs, where)
}

// facts says what the image is; deep reads every file for it.
func (r *report) facts(ctx context.Context, s *stack, deep bool) error {
	im, err := ext4.Open(s, s.Size())
	if err != nil {
		return r.add(err, "file system")
	}
	names, buf := 0, make([]byte, 1<<20)
	err = im.Walk(ctx, func(e *abi.Entry, f *ext4.File) error {
		names++
		if !deep || f == nil || e.Kind != abi.KindRegular {
			return nil
		}
		n, err := io.CopyBuffer(onlyWriter{io.Discard}, io.LimitReader(f, e.Size+1), buf)
		if err == nil && n != e.Size {
			err = &abi.FormatError{Class: abi.ErrTruncated, Format: "ext4", Entry: e.Path, Off: n, Field: "content", Want: strconv.FormatInt(e.Size, 10) + " bytes"}
		}
		return err
	})
	if err := r.add(err, "file system"); err != nil {
		return err
	}
	blocks, inodes := im.Free()
	f := r.resp.Facts
	f["file system"], f["device bytes"], f["names"] = "ext4", strconv.FormatInt(s.Size(), 10), strconv.Itoa(names)
	f["free blocks"], f["free inodes"] = strconv.FormatUint(blocks, 10), strconv.FormatUint(uint64(inodes), 10)
	f["segments"] = strconv.Itoa(len(s.Segments()))
	return nil
}
