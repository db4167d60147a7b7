package native

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/dataplane"
)

// invoke runs the operation of c in the process. A cancelled ctx cuts c's streams and tells the plugin; a plugin that
// does not come back then is killed.
func (p *process) invoke(ctx context.Context, c *call, op abi.Op, req []byte) ([]byte, error) {
	var resp *abi.CallResponse
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, err = dataplane.Call(context.WithoutCancel(ctx), p.cc,
			&abi.CallRequest{Op: op, Request: req, ID: c.id, Grants: dataplane.GrantsOf(&c.grants)})
	}()
	select {
	case <-done:
	case <-ctx.Done():
		c.cancel()
		go p.data.Send(&abi.DataFrame{Call: c.id, Kind: abi.DataCancel}, nil) // may wait for a plugin that does not read
		select {
		case <-done:
		case <-time.After(grace):
			p.giveUp(abi.Errorf(abi.ErrPlugin, "plugin %s did not end a cancelled operation within %v and was killed", p.name, grace))
			<-done
		}
	}
	switch {
	case ctx.Err() != nil:
		cerr := contextError(ctx)
		return nil, abi.Errorf(abi.ClassOf(cerr), "plugin %s: %s: %w", p.name, op, cerr)
	case err != nil:
		return nil, p.callError(op, err)
	case resp.Failed:
		return nil, resp.Error.Err()
	}
	return resp.Response, nil
}

// callError explains an error of the connection. Nothing can be expected of the process after it.
func (p *process) callError(op abi.Op, err error) error {
	if code := status.Code(err); code == codes.Unimplemented {
		err = abi.Errorf(abi.ErrPlugin, "plugin %s does not serve convhost.v1.Plugin: %w", p.name, err)
		p.giveUp(err)
		return err
	} else if code == codes.Unavailable {
		select { // usually it is dying: let it say why
		case <-p.run.exited:
		case <-time.After(grace):
		}
	}
	p.mu.Lock()
	fault := p.fault
	p.mu.Unlock()
	if fault == nil && !p.run.hasExited() {
		fault = abi.Errorf(abi.ErrPlugin, "plugin %s: %w", p.name, err)
		p.giveUp(fault)
	}
	<-p.run.exited
	if fault != nil {
		return abi.Errorf(abi.ErrPlugin, "%w (during %s)%s", fault, op, p.lastWords())
	}
	return abi.Errorf(abi.ErrPlugin, "plugin %s ended (%s) during %s%s", p.name, stateOf(p.run), op, p.lastWords())
}

func stateOf(r *runner) string {
	if r.state == nil {
		return "unknown status"
	}
	return fmt.Sprint(r.state)
}
