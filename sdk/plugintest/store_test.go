package plugintest

import (
	"bytes"
	"context"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/sdk"
)

// store is a right plugin, as short as one with all abilities can be: a converted layer is a tar again. The wrong
// ones are made of it by changing one thing.
type store struct {
	wrong wrongs
}

// wrongs are places where a plugin can be made wrong. nil does nothing.
type wrongs struct {
	describe func(d *abi.Description)
	options  bool // takes any value
	start    func(l *sdk.Layer) error
	trailer  func() []byte // behind the archive
	finish   func(l *sdk.Layer, resp *abi.ConvertResponse) error
	unpack   func(e *abi.Entry)
	reversed bool // lays the layers upside down
	blind    bool // checks nothing
}

func (s store) Describe() abi.Description {
	d := abi.Description{
		Name: "store", Version: "1", Summary: "layers as plain tars", Input: abi.RoleLayerEntries,
		Options: []abi.OptionSpec{{Name: "mode", Default: "plain", Values: []string{"plain"}, Help: "how"}},
	}
	if s.wrong.describe != nil {
		s.wrong.describe(&d)
	}
	return d
}

func (s store) ConvertLayer(_ context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	if _, err := sdk.Choice(l.Options, "mode", "plain", map[string]bool{"plain": true}); err != nil && !s.wrong.options {
		return nil, err
	}
	if s.wrong.start != nil {
		if err := s.wrong.start(l); err != nil {
			return nil, err
		}
	}
	sink, err := sdk.OpenSink(l, 0)
	if err != nil {
		return nil, err
	}
	if err := s.writeTar(l, sink); err != nil {
		return nil, err
	}
	info, err := sink.Close()
	if err != nil {
		return nil, err
	}
	resp := &abi.ConvertResponse{Parts: []abi.Part{{Name: "tar", MediaType: "application/vnd.example.tar", Size: info.Size, Digest: hexDigest(info.SHA256)}}}
	if s.wrong.finish != nil {
		err = s.wrong.finish(l, resp)
	}
	return resp, err
}

func hexDigest(sum [32]byte) string {
	const digits = "0123456789abcdef"
	b := []byte("sha256:")
	for _, c := range sum {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return string(b)
}

func (s store) writeTar(l *sdk.Layer, sink *sdk.Sink) error {
	stream, err := l.Open(abi.RoleLayerEntries, 0)
	if err != nil {
		return err
	}
	plan, err := l.NewPlan(&abi.PlanSpec{ChunkSize: 64 << 10, Sink: sink.Handle})
	if err != nil {
		return err
	}
	calls := 0
	var head []byte
	for e, err := range sdk.Entries(l, stream, 0, func() error { calls++; return nil }) {
		if err != nil {
			return err
		}
		if head, err = sdk.AppendTarHeader(head, e); err != nil {
			return err
		}
		if _, err := sink.Write(head); err != nil {
			return err
		}
		if e.Size > 0 {
			if _, err := l.JobStream(plan, stream, -1, e.Seq); err != nil {
				return err
			}
		}
		head = sdk.AppendTarPadding(head[:0], e.Size)
	}
	head = sdk.AppendTarEnd(head)
	if s.wrong.trailer != nil {
		head = append(head, s.wrong.trailer()...)
	}
	_, err = sink.Write(head)
	return err
}

func (s store) Unpack(_ context.Context, u *sdk.Unpack) (*abi.UnpackResponse, error) {
	parts := []int{u.Layer}
	if u.Layer < 0 {
		parts = parts[:0]
		for i := range u.Parts {
			parts = append(parts, i)
		}
		if s.wrong.reversed {
			for i := range len(parts) / 2 {
				parts[i], parts[len(parts)-1-i] = parts[len(parts)-1-i], parts[i]
			}
		}
	}
	sink, err := sdk.OpenSink(u, 0)
	if err != nil {
		return nil, err
	}
	type body struct {
		part abi.Handle
		off  int64
	}
	var bodies []body
	var plain []abi.Entry
	o := sdk.NewOverlay()
	for _, i := range parts {
		b, err := sdk.OpenBlob(u, abi.RolePart, i)
		if err != nil {
			return nil, err
		}
		o.BeginLayer()
		if err := each(b, func(e abi.Entry) error {
			bodies = append(bodies, body{b.Handle, e.BodyOff})
			if u.Layer >= 0 {
				plain = append(plain, e)
				return nil
			}
			return o.Add(&e, uint64(len(bodies)-1))
		}); err != nil {
			return nil, err
		}
	}
	write := func(e *abi.Entry, b body) error {
		if s.wrong.unpack != nil && u.Layer >= 0 {
			s.wrong.unpack(e)
		}
		head, err := sdk.AppendTarHeader(nil, e)
		if err == nil {
			_, err = sink.Write(head)
		}
		if err == nil && e.Size > 0 {
			_, err = u.Copy(sink.Handle, b.part, b.off, e.Size)
		}
		if err == nil {
			_, err = sink.Write(sdk.AppendTarPadding(nil, e.Size))
		}
		return err
	}
	for i := range plain {
		if err := write(&plain[i], bodies[i]); err != nil {
			return nil, err
		}
	}
	if u.Layer < 0 {
		for e, i := range o.Entries() {
			if err := write(e, bodies[min(int(i), len(bodies)-1)]); err != nil {
				return nil, err
			}
		}
	}
	if _, err := sink.Write(sdk.AppendTarEnd(nil)); err != nil {
		return nil, err
	}
	_, err = sink.Close()
	return &abi.UnpackResponse{}, err
}

func each(b *sdk.Blob, fn func(abi.Entry) error) error {
	r := layer.NewReader(io.NewSectionReader(b, 0, b.Size()), layer.Limits{})
	for {
		var e abi.Entry
		if err := r.Next(&e); err == io.EOF {
			end, err := r.Drain()
			if err == nil && !end.Marker {
				err = abi.Errorf(abi.ErrTruncated, "the archive has no end")
			}
			return err
		} else if err != nil {
			return err
		}
		e.Xattrs = bytesClone(e.Xattrs)
		if err := fn(e); err != nil {
			return err
		}
	}
}

func bytesClone(xs []abi.Xattr) (out []abi.Xattr) {
	for _, x := range xs {
		out = append(out, abi.Xattr{Key: x.Key, Value: bytes.Clone(x.Value)})
	}
	return out
}

func (s store) Check(_ context.Context, c *sdk.Check) (*abi.CheckResponse, error) {
	resp := &abi.CheckResponse{}
	for i := range c.Parts {
		b, err := sdk.OpenBlob(c, abi.RolePart, i)
		if err != nil {
			return nil, err
		}
		if err := each(b, func(abi.Entry) error { return nil }); err != nil && !s.wrong.blind {
			resp.Problems = append(resp.Problems, abi.DetailOf(err))
		}
	}
	return resp, nil
}
