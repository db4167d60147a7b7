package sdk

import (
	"context"

	"github.com/convhost/convhost/abi"
)

// Plugin is one format. In the sandbox every operation gets a fresh instance; natively and in process the host may call
// methods of one value at the same time. So nothing can be kept between calls: a plugin is best an empty struct.
type Plugin interface {
	// Describe says what the plugin is and can do. It must always return the same. Major, Minor and the operations of
	// the further interfaces are filled in by this package.
	Describe() abi.Description
	// ConvertLayer turns one layer of an image into artifacts: it opens l.Input(), writes sinks, and lists them
	// in the response. Layers of one image are converted in parallel on different instances unless the format is
	// chained. abi.ErrUnsupported means that this format cannot hold that layer.
	ConvertLayer(ctx context.Context, l *Layer) (*abi.ConvertResponse, error)
}

// Merger is a Plugin whose images need a last step over all layers, such as a common bootstrap. Without it the parts
// of all layers become the image's layers in order.
type Merger interface {
	MergeLayers(ctx context.Context, m *Merge) (*abi.MergeResponse, error)
}

// Unpacker is a Plugin that can turn its images back into tars. It writes sink 0.
type Unpacker interface {
	Unpack(ctx context.Context, u *Unpack) (*abi.UnpackResponse, error)
}

// Checker is a Plugin that can examine its images.
type Checker interface {
	Check(ctx context.Context, c *Check) (*abi.CheckResponse, error)
}

// Attacher is a native Plugin that can present an image as a device or a mount.
//
// Attach runs as long as the attachment is served: when it can be used it calls a.Ready, and it returns the same response when
// the attachment has ended, which Detach does. Where the system serves what was attached by itself, Attach returns without
// calling Ready. A cancelled ctx ends it at once, within a second; what it left then, Detach cleans.
//
// Detach is called while Attach runs, or by another process, also after the one that served was killed. It works from what
// Attach stored in the state directory, and does nothing where nothing is left. ErrExists: the attachment is in use, and
// lives on.
type Attacher interface {
	Attach(ctx context.Context, a *Attach) (*abi.AttachResponse, error)
	Detach(ctx context.Context, d *abi.DetachRequest) error
}

// Layer is the request of ConvertLayer with the host that serves it.
type Layer struct {
	abi.ConvertRequest
	abi.Host
}

// Merge is the request of MergeLayers with the host that serves it.
type Merge struct {
	abi.MergeRequest
	abi.Host
}

// Unpack is the request of Unpack with the host that serves it.
type Unpack struct {
	abi.UnpackRequest
	abi.Host
}

// Check is the request of Check with the host that serves it.
type Check struct {
	abi.CheckRequest
	abi.Host
}

// Attach is the request of Attach with the host that serves it.
type Attach struct {
	abi.AttachRequest
	abi.Host
}

// InProcess makes p a guest that runs in this process, without a sandbox: for embedders who trust it, and for tests.
func InProcess(p Plugin) abi.Guest { return inProcess{p} }

type inProcess struct{ p Plugin }

// Call implements abi.Guest.
func (g inProcess) Call(ctx context.Context, op abi.Op, req []byte, host abi.Host) ([]byte, error) {
	return dispatch(ctx, g.p, op, req, host)
}
