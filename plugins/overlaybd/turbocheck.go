package overlaybd

import (
	"context"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/gzindex"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
	"github.com/convhost/convhost/plugins/overlaybd/turbo"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
	"github.com/convhost/convhost/sdk"
)

// checkTurbo examines a TurboOCI layer: its archive, the shells of the metadata, the gzip index, and the original layer's digest;
// deep also that the index fits the original, block for block.
func (r *report) checkTurbo(ctx context.Context, h *sdk.Check, index int, where string) error {
	blob, err := sdk.OpenBlob(h, abi.RolePart, index)
	if err != nil {
		return r.add(err, where)
	}
	defer blob.Close()
	s := &stack{}
	defer s.close()
	t, err := turbo.Read(io.NewSectionReader(blob, 0, blob.Size()), turbo.Options{NewSpool: s.newMember})
	if err != nil {
		return r.add(err, where)
	}
	if t.FS != "ext4" {
		return r.add(abi.Errorf(abi.ErrUnsupported, "not supported: TurboOCI layer with the file system %s, only ext4", t.FS), where)
	}
	errs, _ := zfile.Check(t.Meta, t.Meta.Size, zfile.Options{})
	if err := r.addAll(errs, where); err != nil || len(errs) > 0 {
		return err
	}
	f, err := zfile.Open(t.Meta, t.Meta.Size, zfile.Options{})
	if err != nil {
		return r.add(err, where)
	}
	target, err := openTarget(h, abi.RolePart, h.Parts, index, t.Index, nil)
	if err != nil {
		return r.add(err, where)
	}
	errs, _ = lsmt.Check(f, f.Size(), lsmt.Options{Target: target, TargetSize: target.size})
	if err := r.addAll(errs, where); err != nil {
		return err
	}
	if err := target.verify(ctx); err != nil {
		return r.add(err, where+": original")
	}
	if t.Index == nil {
		return nil
	}
	var gz io.ReaderAt
	if h.Deep {
		gz = target.blob
	}
	errs, _ = gzindex.Check(t.Index, t.Index.Size, gz, target.blob.Size(), gzindex.Options{})
	return r.addAll(errs, where)
}
