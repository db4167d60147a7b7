package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel"
	"github.com/convhost/convhost/internal/session"
)

// grace is how long a cancelled operation may take to end.
const grace = time.Second

// errHangs says that an operation did not end when it had to. It is left alone from then on.
var errHangs = errors.New("did not end within a second after it was cancelled")

// trial is one operation with what came out of it.
type trial struct {
	answer
	outs *outputs
}

// artifact is one output at rest, as the next operation gets it.
type artifact struct {
	info   abi.PartInfo
	bytes  []byte
	diffID string
}

// outputs are the sinks of one operation, in memory.
type outputs struct {
	mu   sync.Mutex
	all  map[int]*output
	fail func(index int, written int) error // asked before each write, and with written -1 before closing
}

type output struct {
	o      *outputs
	index  int
	bytes  bytes.Buffer
	info   abi.StreamInfo
	closed bool
}

func (o *outputs) open(index int) (session.Sink, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[int]*output{}
	}
	k := &output{o: o, index: index}
	o.all[index] = k
	return k, nil
}

// Write implements session.Sink.
func (k *output) Write(p []byte) (int, error) {
	if k.o.fail != nil {
		if err := k.o.fail(k.index, k.bytes.Len()); err != nil {
			return 0, err
		}
	}
	return k.bytes.Write(p)
}

// Close implements session.Sink.
func (k *output) Close(info abi.StreamInfo) error {
	if k.o.fail != nil {
		if err := k.o.fail(k.index, -1); err != nil {
			return err
		}
	}
	k.info, k.closed = info, true
	return nil
}

// Abort implements session.Sink.
func (k *output) Abort() {}

// same tells whether two operations wrote and answered the same.
func (t *trial) same(u *trial) error {
	if t.err != nil || u.err != nil {
		if abi.ClassOf(t.err) == abi.ClassOf(u.err) {
			return nil
		}
		return fmt.Errorf("once it ended with %v, once with %v", t.err, u.err)
	}
	for i, k := range t.outs.all {
		l := u.outs.all[i]
		if l == nil || !bytes.Equal(k.bytes.Bytes(), l.bytes.Bytes()) {
			return fmt.Errorf("output %d has other bytes", i)
		}
	}
	if len(u.outs.all) != len(t.outs.all) {
		return fmt.Errorf("%d outputs, then %d", len(t.outs.all), len(u.outs.all))
	}
	if !bytes.Equal(t.resp, u.resp) {
		return errors.New("the outputs are equal, the responses are not")
	}
	return nil
}

// run calls the plugin once. It returns in any case, whatever the plugin does.
func (k *kit) run(ctx context.Context, how conditions, op abi.Op, req abi.Message, grants session.Config, outs *outputs) *trial {
	workers := how.workers
	if workers == 0 {
		workers = 2
	}
	pool := accel.NewPool(workers, 0)
	grants.Pool = pool
	if grants.Limits == (session.Limits{}) {
		grants.Limits = session.Limits{OutputBase: 1 << 30, OutputFactor: 100}
	}
	if outs != nil {
		grants.OpenSink = outs.open
	}
	ctx, cancel := context.WithTimeoutCause(ctx, k.cfg.Timeout, abi.Errorf(abi.ErrTimeout, "%s took longer than %v", op, k.cfg.Timeout))
	defer cancel()
	done := make(chan answer, 1)
	go func() {
		var raw []byte
		if req != nil {
			raw = abi.Marshal(req)
		}
		a := k.plugin.call(ctx, how, op, raw, grants)
		pool.Close()
		done <- a
	}()
	var a answer
	select {
	case a = <-done:
	case <-ctx.Done():
		select {
		case a = <-done:
		case <-time.After(grace):
			a.err = abi.Errorf(abi.ErrTimeout, "%s %w", op, errHangs)
		}
	}
	return &trial{answer: a, outs: outs}
}

// layerGrant gives a layer as it is in an image.
func layerGrant(s *source) *session.Layer {
	return &session.Layer{
		Open:      func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(s.stored)), nil },
		At:        bytes.NewReader(s.stored),
		MediaType: gzipLayer, Digest: digest(s.stored), Size: int64(len(s.stored)), DiffID: digest(s.tar),
	}
}

func (k *kit) layerInfo(s *source) abi.LayerInfo {
	k.stored.Store(digest(s.stored), s.stored)
	info := abi.LayerInfo{MediaType: gzipLayer, Digest: digest(s.stored), Size: int64(len(s.stored)), DiffID: digest(s.tar)}
	if k.desc.Chained {
		info.Count, info.ChainID = 1, info.DiffID
	}
	return info
}

// convert converts one layer. grant, if not nil, replaces how the layer is given.
func (k *kit) convert(ctx context.Context, how conditions, s *source, grant *session.Layer, outs *outputs, options map[string]string) *trial {
	if grant == nil {
		grant = layerGrant(s)
	}
	if options == nil {
		options = k.cfg.Options
	}
	req := &abi.ConvertRequest{Layer: k.layerInfo(s), Options: options, Features: abi.Features()}
	return k.run(ctx, how, abi.OpConvertLayer, req, session.Config{Layer: grant, Input: k.desc.Input}, outs)
}

// claims holds what a plugin says of its outputs against their bytes, and returns them.
func (o *outputs) claims(parts []abi.Part) ([]artifact, error) {
	var out []artifact
	named := map[int]bool{}
	for i := range parts {
		p := &parts[i]
		k := o.all[p.Sink]
		switch {
		case k == nil || !k.closed:
			return nil, fmt.Errorf("the response names output %d, which was not completed", p.Sink)
		case named[p.Sink]:
			return nil, fmt.Errorf("the response names output %d twice", p.Sink)
		case p.MediaType == "" && !p.Aux:
			return nil, fmt.Errorf("output %d has no media type", p.Sink)
		case p.Digest != "" && p.Digest != digest(k.bytes.Bytes()):
			return nil, fmt.Errorf("the response says that output %d is %s, its bytes are %s", p.Sink, p.Digest, digest(k.bytes.Bytes()))
		case p.Digest != "" && p.Size != int64(k.bytes.Len()):
			return nil, fmt.Errorf("the response says that output %d has %d bytes, it has %d", p.Sink, p.Size, k.bytes.Len())
		}
		named[p.Sink] = true
		out = append(out, artifact{
			info:  abi.PartInfo{Name: p.Name, MediaType: p.MediaType, Digest: digest(k.bytes.Bytes()), Size: int64(k.bytes.Len()), Annotations: p.Annotations},
			bytes: bytes.Clone(k.bytes.Bytes()), diffID: p.DiffID,
		})
	}
	for i := range o.all {
		if !named[i] {
			return nil, fmt.Errorf("output %d was written and is not in the response", i)
		}
	}
	return out, nil
}

// layerParts reads the response of ConvertLayer.
func (t *trial) layerParts() ([]artifact, abi.ConvertResponse, error) {
	var resp abi.ConvertResponse
	if err := abi.Unmarshal(t.resp, &resp); err != nil {
		return nil, resp, fmt.Errorf("the response is not a ConvertResponse: %w", err)
	}
	parts, err := t.outs.claims(resp.Parts)
	return parts, resp, err
}

// grantParts gives artifacts with random access.
func grantParts(parts []artifact) (infos []abi.PartInfo, grants []session.Part) {
	for _, p := range parts {
		infos = append(infos, p.info)
		grants = append(grants, session.Part{At: bytes.NewReader(p.bytes), Size: int64(len(p.bytes))})
	}
	return infos, grants
}

// grantImage gives the layers of an image, and behind them the source's that they refer to.
func (k *kit) grantImage(layers []artifact) (infos []abi.PartInfo, grants []session.Part) {
	all := layers[:len(layers):len(layers)]
	for _, l := range layers {
		for _, key := range k.desc.Refs {
			if v, ok := k.stored.Load(l.info.Annotations[key]); ok {
				b := v.([]byte)
				all = append(all, artifact{info: abi.PartInfo{Layer: l.info.Layer, Digest: digest(b), Size: int64(len(b)), Ref: key}, bytes: b})
			}
		}
	}
	return grantParts(all)
}

func (k *kit) has(op abi.Op) bool { return slices.Contains(k.desc.Ops, op) }
