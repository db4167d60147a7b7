package native

import (
	"context"
	"os"
	"sync"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel"
	"github.com/convhost/convhost/internal/dataplane"
	"github.com/convhost/convhost/internal/session"
)

// pool works for all operations of this process.
var pool = sync.OnceValue(func() *accel.Pool { return accel.NewPool(0, 0) })

// Call implements dataplane.Server: one operation, from its grants to its answer.
func (s *server) Call(ctx context.Context, req *abi.CallRequest) (*abi.CallResponse, error) {
	// go-plugin routes what is printed through gRPC, where the last words of a crash are lost.
	s.stdio.Do(func() { os.Stdout, os.Stderr = s.stderr, s.stderr })
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mux.enter(req.ID, cancel)
	defer s.mux.leave(req.ID)

	cl := &client{m: s.mux, id: req.ID, ctx: ctx}
	resp := new(abi.CallResponse)
	var err error
	if resp.Response, err = s.operate(ctx, cl, req); err == nil && len(resp.Response) > dataplane.MaxPayload {
		err = abi.Errorf(abi.ErrLimit, "response of %d bytes is larger than the limit of %d", len(resp.Response), dataplane.MaxPayload)
	}
	cl.sync()
	if err != nil {
		*resp = abi.CallResponse{Failed: true, Error: abi.DetailOf(err)}
	}
	return resp, nil
}

func (s *server) operate(ctx context.Context, cl *client, req *abi.CallRequest) ([]byte, error) {
	cfg := cl.config(&req.Grants)
	if cfg.Attach = req.Op == abi.OpAttach; cfg.Attach {
		cfg.Ready = cl.ready
	}
	host := session.New(ctx, cfg)
	defer host.Abort()
	out, err := s.guest.Call(ctx, req.Op, req.Request, host)
	if err != nil {
		return nil, err
	}
	return out, host.Finish()
}

// config turns grants into streams that are opened when they are used.
func (cl *client) config(g *abi.Grants) session.Config {
	cfg := session.Config{
		Pool: pool(), Input: g.Input, Limits: dataplane.Limits(&g.Limits),
		Parts: cl.parts(abi.RolePart, g.Parts), Parents: cl.parts(abi.RoleParent, g.Parents), Dicts: cl.parts(abi.RoleDict, g.Dicts),
		Log: cl.logger(), Progress: cl.progress, Read: cl.consumed,
	}
	if g.HasLayer {
		cfg.Layer = &session.Layer{
			Open: cl.openLayer, MediaType: g.Layer.MediaType, Digest: g.Layer.Digest, Size: g.Layer.Size, DiffID: g.Layer.DiffID,
		}
		if g.Layer.Random {
			cfg.Layer.At = &randomStream{cl: cl, role: abi.RoleLayerStored, size: g.Layer.Size}
		}
	}
	if g.HasSinks {
		cfg.OpenSink = cl.openSink
	}
	return cfg
}

func (cl *client) parts(role abi.Role, sizes []int64) (out []session.Part) {
	for i, n := range sizes {
		out = append(out, session.Part{At: &randomStream{cl: cl, role: role, index: i, size: n}, Size: n})
	}
	return out
}
