package host

import (
	"context"

	"github.com/convhost/convhost/host/transport"
)

// result is what a caller learns of a target.
func (c *conversion) result() Result {
	r := Result{Format: c.plugin.info.Name, Dest: c.target.Dest, Source: c.src.root, Root: c.rewritten.Root, Plugin: c.plugin.info}
	for _, m := range c.rewritten.Converted {
		res := c.manifests[m.Source.Desc.Digest]
		if res == nil { // it was of this format already
			res = &ManifestResult{Platform: platformOf(m.Source), Source: m.Source.Desc, Already: true}
		}
		res.Converted = m.Target
		r.Manifests = append(r.Manifests, *res)
	}
	for _, d := range c.rewritten.Dropped {
		r.Dropped = append(r.Dropped, Dropped{Descriptor: d.Node.Desc, Reason: d.Reason})
	}
	return r
}

// complete verifies, dumps and publishes what was converted, as far as the request asks for it.
func (h *Host) complete(ctx context.Context, convs []*conversion, req ConvertRequest) (results []Result, err error) {
	for _, c := range convs {
		if req.Verify {
			if err := c.verify(ctx); err != nil {
				return nil, err
			}
		}
	}
	if req.DumpDir != "" {
		d, derr := stageDump(ctx, req.DumpDir, convs)
		if derr != nil {
			return nil, derr
		}
		defer func() {
			if err == nil {
				err = d.appear()
			}
			d.drop()
		}()
	}
	if !req.DryRun {
		return h.publish(ctx, convs)
	}
	for _, c := range convs {
		r := c.result()
		r.DryRun = true
		results = append(results, r)
	}
	return results, nil
}

// openTarget opens where the result goes, once.
func (c *conversion) openTarget(ctx context.Context) (transport.Target, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened != nil {
		return c.opened, nil
	}
	t, err := transport.OpenTarget(ctx, c.ref, c.host.cfg.transport)
	if err == nil {
		c.opened = t
	}
	return t, err
}

// closeTarget may be called again.
func (c *conversion) closeTarget() error {
	c.mu.Lock()
	t := c.opened
	c.opened = nil
	c.mu.Unlock()
	if t == nil {
		return nil
	}
	err := t.Close()
	if err != nil {
		c.log.Warn("a target could not be closed", "dest", c.target.Dest, "error", err)
	}
	return err
}

// publish pushes all results, then makes their names visible. The results are those that were published, also beside an
// error.
func (h *Host) publish(ctx context.Context, convs []*conversion) (results []Result, err error) {
	var targets []transport.Target
	defer func() {
		for _, c := range convs {
			if cerr := c.closeTarget(); err == nil {
				err = cerr
			}
		}
	}()
	for _, c := range convs {
		t, err := c.openTarget(ctx)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
		if err := c.push(ctx, t); err != nil {
			return nil, err
		}
	}
	for i, c := range convs {
		c.reuse.close()
		if err := targets[i].Publish(ctx, c.rewritten.Root); err != nil {
			return results, err
		}
		c.emit(Event{Kind: EventPublished, Descriptor: c.rewritten.Root})
		results = append(results, c.result())
		c.reuse.record(ctx)
	}
	return results, nil
}
