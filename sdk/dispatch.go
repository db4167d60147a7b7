package sdk

import (
	"context"
	"errors"

	"github.com/convhost/convhost/abi"
)

// describe completes what the author wrote.
func describe(p Plugin) abi.Description {
	d := p.Describe()
	d.Major, d.Minor = abi.Major, abi.Minor
	if d.Input == 0 {
		d.Input = abi.RoleLayerEntries
	}
	d.Ops = []abi.Op{abi.OpConvertLayer}
	if _, ok := p.(Merger); ok {
		d.Ops = append(d.Ops, abi.OpMergeLayers)
	}
	if _, ok := p.(Unpacker); ok {
		d.Ops = append(d.Ops, abi.OpUnpack)
	}
	if _, ok := p.(Checker); ok {
		d.Ops = append(d.Ops, abi.OpCheck)
	}
	if _, ok := p.(Attacher); ok {
		d.Ops = append(d.Ops, abi.OpAttach, abi.OpDetach)
	}
	return d
}

// dispatch runs one operation of p: decode, call, encode.
func dispatch(ctx context.Context, p Plugin, op abi.Op, req []byte, host abi.Host) ([]byte, error) {
	if op == abi.OpDescribe {
		d := describe(p)
		return abi.Marshal(&d), nil
	}
	resp, err := call(ctx, p, op, req, host)
	if err != nil {
		return nil, classed(err)
	}
	return abi.Marshal(resp), nil
}

func call(ctx context.Context, p Plugin, op abi.Op, req []byte, host abi.Host) (abi.Message, error) {
	switch op {
	case abi.OpConvertLayer:
		l := &Layer{Host: host}
		if err := abi.Unmarshal(req, &l.ConvertRequest); err != nil {
			return nil, err
		}
		return answer(p.ConvertLayer(ctx, l))
	case abi.OpMergeLayers:
		if q, ok := p.(Merger); ok {
			m := &Merge{Host: host}
			if err := abi.Unmarshal(req, &m.MergeRequest); err != nil {
				return nil, err
			}
			return answer(q.MergeLayers(ctx, m))
		}
	case abi.OpUnpack:
		if q, ok := p.(Unpacker); ok {
			u := &Unpack{Host: host}
			if err := abi.Unmarshal(req, &u.UnpackRequest); err != nil {
				return nil, err
			}
			return answer(q.Unpack(ctx, u))
		}
	case abi.OpCheck:
		if q, ok := p.(Checker); ok {
			c := &Check{Host: host}
			if err := abi.Unmarshal(req, &c.CheckRequest); err != nil {
				return nil, err
			}
			return answer(q.Check(ctx, c))
		}
	case abi.OpAttach, abi.OpDetach:
		if q, ok := p.(Attacher); ok {
			return attach(ctx, q, op, req, host)
		}
	}
	return nil, abi.Errorf(abi.ErrUnsupported, "plugin %s has no operation %s", p.Describe().Name, op)
}

func attach(ctx context.Context, q Attacher, op abi.Op, req []byte, host abi.Host) (abi.Message, error) {
	if op == abi.OpAttach {
		a := &Attach{Host: host}
		if err := abi.Unmarshal(req, &a.AttachRequest); err != nil {
			return nil, err
		}
		return answer(q.Attach(ctx, a))
	}
	var d abi.DetachRequest
	if err := abi.Unmarshal(req, &d); err != nil {
		return nil, err
	}
	return &abi.DetachResponse{}, q.Detach(ctx, &d)
}

// answer turns a typed result into a message, and a nil result without an error into a fault.
func answer[T any, P interface {
	*T
	abi.Message
}](resp P, err error) (abi.Message, error) {
	if err == nil && resp == nil {
		err = abi.Errorf(abi.ErrPlugin, "plugin returned neither a response nor an error")
	}
	return resp, err
}

// classed gives an error without a class the class of a plugin's fault.
func classed(err error) error {
	var c abi.Class
	if errors.As(err, &c) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return abi.Errorf(abi.ErrPlugin, "%w", err)
}
